"""Engines take a list of tasks to results. An entry: run(tasks, where, folder, report) -> None."""
