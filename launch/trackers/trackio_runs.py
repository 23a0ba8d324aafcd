"""Trackio. TRACKIO_PROJECT names the project; without TRACKIO_SPACE_ID or TRACKIO_SERVER_URL its
database is a local one (TRACKIO_DIR). A run of the same name goes on there.
"""

import os

PACKAGE = EXTRA = "trackio"
APART, REWRITES = True, False


class Tracker:
    def __init__(self, about):
        self._about = about

    def open(self) -> None:
        import trackio

        a = self._about
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT") or a.project,
            name=a.name,
            group=a.group or None,
            config=a.fields,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def write(self, step: int, values: dict) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()
