"""The predictions of `isoflop next` and what came of them: each one, and how often the result lay
inside its interval, by distance. An edited prediction is refused.

isoflop predictions runs/quickstart
isoflop predictions runs/quickstart runs/moe --format=json
isoflop predictions runs/quickstart --run=/elsewhere/run
    a run that was trained in another folder than the one next to its prediction
"""

import json
import os
import sys

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.console import terminal
from experiments.verbs import prediction_text
from launch.runs import outcomes, predictions


def _body(fv, folders: list[str]) -> int:
    folders = [f for f in (*folders, *fv.workdir.split(",")) if f]
    if not folders:
        raise UserError("name the folder of a sweep, as in isoflop predictions runs/quickstart")
    for folder in folders:
        if not os.path.isdir(folder):
            raise UserError(f"--workdir={folder} does not exist: name the folder of a sweep")
    for folder in fv.run:
        if not os.path.isdir(folder):
            raise UserError(f"--run={folder} does not exist: name the folder of a run")
    found = {f: outcomes.rows(f, tuple(fv.run)) for f in folders}
    every = [r for rows in found.values() for r in rows]
    if not every:
        raise UserError(
            f"{', '.join(folders)}: no prediction is registered; make one with isoflop next"
            f" --workdir={folders[0]} --budget=FLOPS"
        )
    if fv.format == "json":
        judged = [r["judged"] for r in every if r["judged"]]
        print(json.dumps({"predictions": every, "tally": predictions.tally(judged)}))
        return 0
    lines = [prediction_text.line(r) for r in every]
    print(terminal.plain("\n".join([*lines, *prediction_text.tally(every)])))
    return 0


def main(argv=None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    folders = []
    while argv and not argv[0].startswith("-"):  # isoflop predictions WORKDIR ...
        folders.append(argv.pop(0))
    fv = cli.flag_values("workdir")
    flags.DEFINE_multi_string(
        "run", [], "folder of a run that was trained elsewhere; repeatable", flag_values=fv
    )
    return cli.run("predictions", __doc__, fv, argv, lambda fv: _body(fv, folders))


if __name__ == "__main__":
    sys.exit(main())
