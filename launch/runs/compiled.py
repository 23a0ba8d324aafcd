"""Compiled programs are kept on disk, so that a second start skips XLA."""

import os

import jax

from data import cache


def use_cache(folder: str = "") -> None:
    """Of this process, from now on. folder: of caches, if not the usual one (data/cache.py)."""
    jax.config.update("jax_compilation_cache_dir", os.path.join(cache.root(folder), "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
