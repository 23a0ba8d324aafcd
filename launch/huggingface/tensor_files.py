"""Reads `.safetensors` files one tensor at a time: eight bytes with the length of a header, the
header in JSON, the numbers (github.com/huggingface/safetensors, README, "Format"). Nothing that a
file says of itself is believed before it is held against the size of the file.
"""

import json
import math
import os
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from launch.config import ConfigError

INDEX = "model.safetensors.index.json"
MOST = 100 * 2**20  # bytes of a header: what the format's own reader allows
DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
}


class Tensor(NamedTuple):
    """Where a tensor lies: `at` bytes from the start of a file."""

    path: str
    at: int
    dtype: str
    shape: tuple[int, ...]

    def check(self) -> None:
        """Raises ConfigError where `read` knows no such numbers."""
        if self.dtype not in DTYPES:
            raise ConfigError(
                f"{self.path}: a tensor of dtype {self.dtype} is not read, only {', '.join(DTYPES)}"
            )

    def read(self) -> np.ndarray:
        """Its numbers as they are stored."""
        kind = np.dtype(DTYPES[self.dtype])
        raw = np.empty(math.prod(self.shape) * kind.itemsize, np.uint8)
        with open(self.path, "rb") as f:
            f.seek(self.at)
            f.readinto(raw)  # `header` has held its size against the file
        return raw.view(kind).reshape(self.shape)


def header(path: str) -> dict[str, Tensor]:
    """{name: Tensor} of a file. Raises ConfigError in one line."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if size < 8 or length > min(size - 8, MOST):
                raise ValueError(f"its header claims {length:,} bytes, the file has {size:,}")
            held = json.loads(f.read(length))
        if not isinstance(held, dict):
            raise ValueError("its header is no JSON object")
        held.pop("__metadata__", None)
        return {name: _tensor(path, 8 + length, size, name, own) for name, own in held.items()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise ConfigError(f"{path} is not a readable safetensors file ({e})") from None


def _tensor(path: str, start: int, size: int, name: str, own: Any) -> Tensor:
    dtype, shape, (first, last) = own["dtype"], own["shape"], own["data_offsets"]
    numbers = (*shape, first, last)
    if not all(type(n) is int and n >= 0 for n in numbers) or not isinstance(dtype, str):
        raise ValueError(f"tensor {name}: shape {shape} and offsets {[first, last]} are no sizes")
    if first > last or start + last > size:
        raise ValueError(
            f"tensor {name} lies in bytes {first:,} to {last:,}, the file has {size - start:,}"
        )
    if dtype in DTYPES and math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize != last - first:
        raise ValueError(f"tensor {name}: shape {shape} of {dtype} is not {last - first:,} bytes")
    return Tensor(path, start + first, dtype, tuple(shape))


def shards(hf_dir: str) -> list[str] | None:
    """The files that the folder's index names, in order; None without an index. Raises
    ConfigError.
    """
    path = os.path.join(hf_dir, INDEX)
    if not os.path.isfile(path):
        return None
    try:
        with open(path) as f:
            names = sorted(set(json.load(f)["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise ConfigError(f"{path} is not a readable index ({type(e).__name__}: {e})") from None
    for name in names:
        if os.path.basename(name) != name or not os.path.isfile(os.path.join(hf_dir, name)):
            raise ConfigError(f"{path} names {name}, which does not lie beside it")
    return [os.path.join(hf_dir, name) for name in names]
