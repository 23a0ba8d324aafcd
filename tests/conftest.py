"""8 simulated devices, and a persistent compilation cache: the second run of the suite compiles
nothing.

XLA does not optimise here, which halves the time, and makes its loops in LLVM without MLIR, which
halves it again; tests that start processes of their own run them as a user would.
"""

import os

QUICK = (
    "--xla_backend_optimization_level=0"
    # a version of XLA that does not know the word passes over it
    " --xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
)
FLAGS = f"--xla_force_host_platform_device_count=8 {QUICK}"
if FLAGS not in os.environ.get(
    "XLA_FLAGS", ""
):  # pytest-xdist's workers inherit what its driver has set
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()
os.environ["ISOFLOP_XLA_FLAGS"] = os.environ["XLA_FLAGS"]  # known to be good
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["ISOFLOP_STRICT"] = (
    "1"  # a slip of an analysis fails a test, see laws/failed_analyses.py
)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.environ.setdefault("ISOFLOP_CACHE", os.path.join(ROOT, ".cache"))

import jax  # noqa: E402

jax.config.update("jax_compilation_cache_dir", os.path.join(os.environ["ISOFLOP_CACHE"], "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
assert jax.device_count() == 8  # brings the backend up before a verb can ask for another number
