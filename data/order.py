"""The order in which windows are read: computed from (seed, epoch), not looked up."""

import numpy as np

# made once: a batch is a few numbers, and what it costs is calls
_A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_31, _29 = np.uint64(31), np.uint64(29)
_ROUNDS = [np.uint64(r * 0x632BE59BD9B4E019 % 2**63) for r in range(4)]


def _mix(x: np.ndarray, key: int) -> np.ndarray:
    return _mixed(x + np.uint64(key))


def _mixed(z: np.ndarray) -> np.ndarray:
    z = z * _A
    z ^= z >> _31
    z *= _B
    z ^= z >> _29
    return z


def _key(seed: int, epoch: np.ndarray, order: int) -> np.ndarray:
    """One number for each (seed, epoch)."""
    if order == 1:
        return _mix(epoch, (seed * 2 + 1) % 2**63)
    return _mix(epoch, int(_mix(np.array(seed, np.uint64), 0x2545F4914F6CDD1D)))


@np.errstate(over="ignore")
def permute(i: np.ndarray, n: int, seed: int, epoch: np.ndarray, order: int = 2) -> np.ndarray:
    """Position of items `i` under a pseudo-random permutation of range(n), one per (seed, epoch).
    Four Feistel rounds on the next even power of two; items that fall outside are walked on until
    they fall inside. `order`: see Data; with 1, (seed, epoch) and (seed + 1, epoch - 2) are the
    same.
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    low = np.uint64(2**half - 1)
    wide = np.uint64(half)
    key = _key(seed, np.asarray(epoch, np.uint64), order)
    keys = [key + r for r in _ROUNDS]
    x = np.asarray(i, np.uint64).copy()
    todo = np.ones(x.shape, bool)
    while todo.any():
        a, b = x >> wide, x & low
        for k in keys:
            a, b = b, a ^ (_mixed(b + k) & low)
        x = np.where(todo, (a << wide) | b, x)
        todo = x >= n
    return x.astype(np.int64)
