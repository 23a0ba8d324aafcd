"""What an implementation of a part states of itself, beside the counts of the part that no
implementation changes.
"""

from typing import NamedTuple

from model.config import Execution

# of training FLOPs per token (model/account.py)
CONVENTIONS = (
    "matmul",
    "matmul_causal",
    "6N",
    "6N_active",
    "6N_nonembedding",
    "6N_active_nonembedding",
)


class Work(NamedTuple):
    """On one batch. Matmul FLOPs that it executes (a multiply and an add are 2; weighted sums over
    experts among them):

    forward    padding and masked pairs included
    backward   two matmuls for each of the forward, and what an implementation adds
    again      of the forward, what a rematerialised layer computes a second time: what its
               gradients are made of
    last       of these, the part's last matmul, which is not computed again where its result is
               only added to the residual stream (`closed`)

    Bytes of activations, as XLA holds them (docs/counting.md):

    kept       from the forward pass for the backward one
    spare      beside those while the part's own backward pass runs
    """

    forward: int
    backward: int
    again: int
    kept: int = 0
    spare: int = 0
    last: int = 0

    def closed(self, ends: bool) -> "Work":
        """In a layer that `ends` with this part."""
        return self._replace(again=self.again - self.last * ends, last=0)

    def training(self, remat: bool) -> int:
        return self.forward + self.backward + self.again * remat


def matmuls(forward: int, last: int = 0, kept: int = 0, spare: int = 0) -> Work:
    """Matmuls with gradients for both sides; `last` FLOPs of them are the part's last matmul."""
    return Work(forward, 2 * forward, forward, kept, spare, last)


def size(ex: Execution) -> int:
    """Bytes of a number in the dtype of the matmuls."""
    return {"float64": 8, "float32": 4, "bfloat16": 2}[ex.dtype]


def total(parts) -> Work:
    return Work(*map(sum, zip(*parts)))


def pairs(length: int, window: int, causal: bool) -> int:
    """Pairs of a token and one that it sees, in a sequence: T x T on the full map, else T (T+1) /
    2, or what a window leaves of them; window 0: all before it.
    """
    if not causal:
        return length**2
    w = min(window or length, length)
    return w * (w + 1) // 2 + (length - w) * w


def per_token(n: int, length: int) -> int | float:
    """A count of a sequence per token; an int wherever it is one."""
    return n // length if n % length == 0 else n / length
