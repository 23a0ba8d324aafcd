"""When a run has gone wrong: judged from its own losses, step by step, so that a resumed run judges
the same.
"""

import math

import numpy as np

RISE = 1.0  # nats per token above the running minimum


class Watch:
    """Reads the loss of every step. `verdict` is in words why the run has diverged, None while it
    has not.

    Losses are averaged over blocks of a hundredth of the run (one batch may be easy by chance). A
    run has diverged when its blocks stand a nat above their minimum for a twentieth of the run (at
    least 20 steps), or when `max_bad_steps` updates in a row were skipped because the loss or the
    gradient was not finite.
    """

    def __init__(self, total: int, max_bad_steps: int, state: dict | None = None):
        self._block, self._needed = max(1, round(total / 100)), max(math.ceil(total / 20), 20)
        self._max_bad, self.verdict = max_bad_steps, None
        self.skipped, self._bad, self._sum, self._count = 0, 0, 0.0, 0
        self.low, self.last, self._above = math.inf, math.inf, 0
        for name, value in (state or {}).items():
            setattr(self, name, math.inf if value is None else value)

    STATE = ("skipped", "_bad", "_sum", "_count", "low", "last", "_above")

    def state(self) -> dict:
        """What a checkpoint keeps, ready for JSON."""
        return {k: None if getattr(self, k) == math.inf else getattr(self, k) for k in self.STATE}

    def add(self, loss: float, skipped: bool) -> None:
        """One step."""
        if skipped:
            self.skipped, self._bad = self.skipped + 1, self._bad + 1
            if self._bad >= self._max_bad:
                self.verdict = (
                    self.verdict
                    or f"{self._bad} updates in a row were skipped: the loss or the gradient is not finite"  # noqa: E501
                )
            return
        self._bad, self._sum, self._count = 0, self._sum + loss, self._count + 1
        if self._count == self._block:
            self.last = self._sum / self._count
            self._above = self._above + self._count if self.last > self.low + RISE else 0
            self.low, self._sum, self._count = min(self.low, self.last), 0.0, 0
            if self._above >= self._needed:
                self.verdict = (
                    self.verdict
                    or f"the training loss stood {RISE:g} nat above its minimum of {self.low:.2f} for {self._above} steps"  # noqa: E501
                )


def at_the_end(loss: float, unigram_entropy: float) -> str | None:
    """Why a run that reached its last step has diverged all the same, or None. In nats per
    token.
    """
    if not np.isfinite(loss):
        return "the validation loss is not finite"
    if loss > unigram_entropy:
        return (
            f"the validation loss {loss:.2f} ends above the unigram entropy {unigram_entropy:.2f}"
            " of the corpus: nothing was learned of context"
        )
    return None
