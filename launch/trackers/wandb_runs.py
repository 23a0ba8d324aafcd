"""Weights & Biases. WANDB_PROJECT, WANDB_MODE=offline and its other variables are its own; files of
a run go to FOLDER/wandb. The run's id is W&B's too, so a resumed run goes on there.
"""

import os

PACKAGE = EXTRA = "wandb"
APART, REWRITES = True, False


class Tracker:
    def __init__(self, about):
        self._about = about

    def open(self) -> None:
        import wandb

        a = self._about
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or a.project,
            id=a.identity,
            name=a.name,
            group=a.group or None,
            dir=a.folder,
            config=a.fields,
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )

    def write(self, step: int, values: dict) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()
