"""What is timed, by name. A part is a function (scale) -> dict of figures, and a text for people; the contenders of a part alternate in
one process, round by round, and CPU-seconds stand beside wall time, because machines are noisy."""

from experiments.benchmarks import checkpoint, laws, layouts

PARTS = {"checkpoint": checkpoint, "laws": laws, "layouts": layouts}
