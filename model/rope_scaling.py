"""How rotary frequencies change for sequences longer than those that they were trained on, as
published. A scaling is a field of `rope`. The contract of an entry:

frequencies(theta, width, length)   of a rotated width: (radians a token of each pair, what turned
                                    queries and keys are multiplied by)
check(), check_head(width)          raise ValueError, in words that say what to change

`length` is model.seq_len and not the length of a call: a prefix, and a text that is decoded token
by token, are turned like the whole. (So does vLLM; transformers goes by each call's own length.)
"""

import dataclasses
import math

import numpy as np


def plain(theta: float, width: int) -> np.ndarray:
    """theta^(-2i/width), of every pair (Su et al. 2021, arXiv 2104.09864, eq 15)."""
    half = width // 2
    return theta ** (-np.arange(half) / half)


@dataclasses.dataclass(frozen=True)
class Linear:
    """Positions are divided by `factor` (Chen et al. 2023, arXiv 2306.15595, eq 4)."""

    factor: float = 1.0  # how many times longer sequences become

    def frequencies(self, theta: float, width: int, length: int) -> tuple[np.ndarray, float]:
        return plain(theta, width) / self.factor, 1.0

    def check(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.type in (int, float) and (value < 0 or value == 0 and f.default != 0):
                raise ValueError(f"rope scaling: {f.name}={value} must be above 0")

    def check_head(self, width: int) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class Dynamic(Linear):
    """Theta grows with the length beyond `original`, so that the slowest pair is stretched and the
    fastest stays ("dynamic NTK", Peng et al. 2023, arXiv 2309.00071, section 3.3 and appendix
    B.1).
    """

    original: int = 2048  # length that the frequencies are meant for

    def frequencies(self, theta, width, length):
        stretch = self.factor * max(length, self.original) / self.original - (self.factor - 1)
        return plain(theta * stretch ** (width / (width - 2)), width), 1.0

    def check_head(self, width):
        if width < 4:
            raise ValueError(
                f"rope scaling dynamic needs a rotated width of 4 or more, not {width}"
            )


@dataclasses.dataclass(frozen=True)
class Yarn(Linear):
    """Pairs that turn fewer than `beta_slow` times in `original` tokens are divided by `factor`,
    those that turn more than `beta_fast` times stay, and between is a ramp (Peng et al. 2023, arXiv
    2309.00071, eq 17 to 23).
    """

    original: int = 4096  # length that the frequencies are meant for
    beta_fast: float = 32.0  # turns
    beta_slow: float = 1.0  # turns
    magnitude: float = 0.0  # of turned queries and keys; 0: 0.1 ln(factor) + 1, eq 22
    truncate: bool = True  # the ends of the ramp are rounded outwards to whole pairs

    def check(self):
        super().check()
        if self.beta_fast <= self.beta_slow:
            raise ValueError(
                f"rope scaling: beta_fast={self.beta_fast} must be above beta_slow={self.beta_slow}"
            )

    def frequencies(self, theta, width, length):
        def pair(turns):  # that turns so many times
            return width * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(theta))

        low, high = pair(self.beta_fast), pair(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, width - 1)
        high = high + 0.001 * (low == high)
        ramp = np.clip((np.arange(width // 2) - low) / (high - low), 0, 1)
        own = plain(theta, width)
        usual = 0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0
        return own * (1 - ramp) + own / self.factor * ramp, self.magnitude or usual


@dataclasses.dataclass(frozen=True)
class Llama3(Linear):
    """Pairs that turn fewer than `low` times in `original` tokens are divided by `factor`, those
    that turn more than `high` times stay, and between is a ramp in turns (Llama 3.1, arXiv
    2407.21783, section 3.4; meta-llama/llama-models, models/llama3/model.py, apply_scaling).
    """

    factor: float = 8.0  # how many times longer sequences become
    original: int = 8192  # length that the frequencies are meant for
    low: float = 1.0  # turns
    high: float = 4.0  # turns

    def frequencies(self, theta, width, length):
        own = plain(theta, width)
        turns = self.original * own / (2 * math.pi)
        stays = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return own * (stays + (1 - stays) / self.factor), 1.0

    def check(self):
        super().check()
        if self.low >= self.high:
            raise ValueError(f"rope scaling: low={self.low} must be below high={self.high}")


@dataclasses.dataclass(frozen=True)
class LongRope:
    """Every pair is divided by a factor of its own: of one list up to `original` tokens, of another
    beyond (Ding et al. 2024, arXiv 2402.13753, eq 2; Phi-3).
    """

    short: tuple[float, ...] = ()  # a factor for each pair, up to `original` tokens
    long: tuple[float, ...] = ()  # the same beyond
    original: int = 4096  # length that the short factors are meant for
    # of turned queries and keys; 0: sqrt(1 + ln(factor) / ln(original))
    magnitude: float = 0.0
    factor: float = 0.0  # how many times longer sequences become; 0: model.seq_len / original

    def frequencies(self, theta, width, length):
        factor = self.factor or length / self.original
        usual = math.sqrt(1 + math.log(factor) / math.log(self.original)) if factor > 1 else 1.0
        own = self.long if length > self.original else self.short
        return plain(theta, width) / np.array(own), self.magnitude or usual

    def check(self):
        if self.original < 2 or min(self.short + self.long, default=1) <= 0:
            raise ValueError(
                f"rope scaling longrope: original={self.original} must be at least 2, and factors"
                " above 0"
            )

    def check_head(self, width):
        for name in ("short", "long"):
            if (got := len(getattr(self, name))) != width // 2:
                raise ValueError(
                    f"rope scaling longrope: {name} has {got} factors, and {width // 2} pairs are"
                    " rotated"
                )
