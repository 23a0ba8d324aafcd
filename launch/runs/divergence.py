"""When a run has gone wrong: judged from its own losses, step by step, so that a resumed run judges
the same.
"""

import math

import numpy as np

RISE = 1.0  # nats per token above the running minimum
STEPS = 20  # of a block, at least: the least of many single batches is low by chance


class Watch:
    """Reads the loss of every step. `verdict` is in words why the run has diverged, None while it
    has not.

    Losses are averaged over blocks of a hundredth of the run, and of STEPS at least: one batch may
    be easy by chance, and the easiest of many is. A run has diverged when its blocks stand a nat
    above their minimum for a twentieth of the run (at least 20 steps), or when `max_bad_steps`
    updates in a row were skipped because the loss or the gradient was not finite. `at` is the step
    at which that was so, whatever the dispatch.
    """

    def __init__(self, total: int, max_bad_steps: int, state: dict | None = None):
        self._block, self._needed = (
            max(STEPS, round(total / 100)),
            max(math.ceil(total / 20), STEPS),
        )
        self._max_bad, self.verdict = max_bad_steps, None
        self.skipped, self._bad, self._sum, self._count = 0, 0, 0.0, 0
        self.low, self.last, self._above = math.inf, math.inf, 0
        self.first, self.latest, self.at, self._steps = math.inf, math.inf, None, 0
        for name, value in (state or {}).items():
            setattr(self, name, math.inf if value is None and name in self.LOSSES else value)

    LOSSES = ("low", "last", "first", "latest")
    STATE = ("skipped", "_bad", "_sum", "_count", "_above", "_steps", "verdict", "at", *LOSSES)

    def state(self) -> dict:
        """What a checkpoint keeps, ready for JSON."""
        return {k: None if getattr(self, k) == math.inf else getattr(self, k) for k in self.STATE}

    @property
    def end(self) -> float:
        """The mean loss of the steps since the last block, or of that block if there are none."""
        return self._sum / self._count if self._count else self.last

    def add(self, loss: float, skipped: bool) -> None:
        """One step."""
        self._steps += 1
        self._judge(loss, skipped)
        if self.verdict and self.at is None:
            self.at = self._steps

    def _judge(self, loss: float, skipped: bool) -> None:
        if skipped:
            self.skipped, self._bad = self.skipped + 1, self._bad + 1
            if self._bad >= self._max_bad:
                self.verdict = (
                    self.verdict
                    or f"{self._bad} updates in a row were skipped: the loss or the gradient is not finite"  # noqa: E501
                )
            return
        self._bad, self._sum, self._count = 0, self._sum + loss, self._count + 1
        self.first, self.latest = loss if self.first == math.inf else self.first, loss
        if self.low == math.inf:  # before the first block is whole
            self.last = loss
        if self._count == self._block:
            self.last = self._sum / self._count
            self._above = self._above + self._count if self.last > self.low + RISE else 0
            self.low, self._sum, self._count = min(self.low, self.last), 0.0, 0
            if self._above >= self._needed:
                self.verdict = (
                    self.verdict
                    or f"the training loss stood {RISE:g} nat above its minimum of {self.low:.2f} for {self._above} steps"  # noqa: E501
                )


def at_the_end(watch: Watch, steps: int, loss: float) -> str | None:
    """Why a run of `steps` steps whose validation loss is `loss` has diverged, or None. A small
    loss is not asked for: a run that is too short to learn is no failure.

    A validation loss alone may rise by overfitting, so the training loss must stand high too.
    """
    if watch.verdict:
        return watch.verdict
    if not np.isfinite(loss):
        return "the validation loss is not finite"
    if steps and watch.skipped >= steps:
        return "every update was skipped: the loss or the gradient is not finite"
    if min(loss, watch.end) > watch.low + RISE:
        return (
            f"the run ends {RISE:g} nat above its minimum of {watch.low:.2f}: training loss"
            f" {watch.end:.2f}, validation loss {loss:.2f}"
        )
    if loss > watch.first + RISE and watch.latest > watch.first - RISE:
        return (
            f"the validation loss {loss:.2f} ends {RISE:g} nat above the loss {watch.first:.2f}"
            " that the run began with"
        )
    return None


def unlearned(loss: float, unigram_entropy: float) -> bool:
    """Whether a model predicts no better than the frequencies of the tokens. In nats per token."""
    return bool(np.isfinite(loss) and loss > unigram_entropy)
