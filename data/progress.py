"""A bar on a terminal, for what takes seconds."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def bar(text: str, total: float) -> Iterator[Callable[[float], None]]:
    """A function of bytes done out of `total`; nothing is shown where stderr is no terminal."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as shown:
        task = shown.add_task(text, total=total)
        yield lambda n: shown.advance(task, n)
