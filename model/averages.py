"""Averages of the weights along a run, which are evaluated beside the last ones.

    ema(decay)       exponential moving average of the weights after every update, its start
                     corrected for as Adam's moments are (Kingma & Ba 2015, arXiv 1412.6980, 3)
    lawa(k,every)    mean of k states `every` updates apart, the last one the end of the run
                     (latest weight averaging: Kaddour 2022, arXiv 2209.14981)

Both are one rule, ``average += weight x (weights - average)``, with a weight of each update that is
computed on the host and passed in, as the learning rate is: one compiled program serves all, and an
average is one more copy of the parameters.
"""

import dataclasses
import re

from model.config import choose


@dataclasses.dataclass(frozen=True)
class Ema:
    """Exponential moving average."""

    decay: float = 0.999

    def check(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"average: the decay {self.decay} of ema must lie in [0, 1)")

    def begins(self, steps: int) -> int:
        return 0

    def weight(self, step: int, steps: int) -> float:
        return (1 - self.decay) / (1 - self.decay ** (step + 1))


@dataclasses.dataclass(frozen=True)
class Lawa:
    """Latest weight averaging."""

    k: int = 5
    every: int = 100

    def check(self) -> None:
        if self.k < 1 or self.every < 1:
            raise ValueError("average: lawa(k, every) wants two numbers of at least 1")

    def begins(self, steps: int) -> int:
        return steps - 1 - (self.k - 1) * self.every

    def weight(self, step: int, steps: int) -> float:
        passed, rest = divmod(step - self.begins(steps), self.every)
        return 0.0 if rest or passed < 0 else 1 / (passed + 1)


AVERAGES = {"ema": Ema, "lawa": Lawa}


def name(text: str) -> str:
    """`ema` of ``ema(0.999)``; empty for none."""
    return text.partition("(")[0].strip()


def read(text: str) -> Ema | Lawa | None:
    """The average that `text` names, such as ``ema(0.999)`` or ``lawa(5,100)``; None for "". Raises
    ValueError in words that say what to change.
    """
    if not text:
        return None
    cls: type = choose(AVERAGES, name(text), "average")
    found = re.fullmatch(r"\s*\w+\s*(?:\(([^()]*)\))?\s*", text)
    given = [t.strip() for t in ((found and found[1]) or "").split(",") if t.strip()]
    fields = dataclasses.fields(cls)
    try:
        pairs = [t.rpartition("=")[::2] for t in given]
        names = [k.strip() or f.name for (k, _), f in zip(pairs, fields, strict=False)]
        kinds = {"decay": float, "k": int, "every": int}
        values = {k: kinds[k](v) for k, (_, v) in zip(names, pairs, strict=True)}
        if not found or len(values) < len(given):
            raise ValueError
        out = cls(**values)
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"average={text!r}: write ema(DECAY), such as ema(0.999), or lawa(K,EVERY), such as"
            " lawa(5,100)"
        ) from None
    out.check()
    return out


def check(text: str, steps: int, fork: int = 0) -> None:
    """Raises ValueError unless a run of `steps` updates, of which the first `fork` are those of a
    trunk, has that average.
    """
    average = read(text)
    if average is None or not isinstance(average, Lawa):
        return
    if average.begins(steps) < fork:
        raise ValueError(
            f"average={text} reaches back over {(average.k - 1) * average.every} updates, more than"
            f" the {steps - fork - 1} before the last one"
            + (" of the cooldown, behind which a trunk knows no length" if fork else "")
            + ": lower k or every"
        )


def moved(average, params, weight):
    """`average` one update further, with the parameters after it. At a weight of 1 it is them, to
    the bit.
    """
    import jax

    return jax.tree.map(lambda a, p: (1 - weight) * a + weight * p, average, params)
