"""What is known of devices: peaks for MFU, the fastest implementation, speed on CPU. What is not
known stays unknown.
"""

import dataclasses
import functools
import os
import subprocess
from typing import NamedTuple

import jax

from launch.config import ConfigError
from launch.devices import child_process
from launch.devices.accelerators import TWO_CORES, device
from launch.files import RecordError
from model import account, xla_cpu
from model.config import Execution, Model


class Choice(NamedTuple):
    """The implementations that `auto` stands for on a platform."""

    dtype: str
    moe: str
    steps_per_dispatch: int  # at most
    attention: tuple[
        int, int, int
    ]  # from so many queries on, chunks of an eighth of them within two bounds; 0: the whole map
    # from so many logits a device on, chunks of about so many tokens, or of so many logits if that
    # is more; 0: all
    loss: tuple[int, int, int]
    kernel: str = "xla"  # Execution.attention
    rows: int = 256  # of a block of an expert's assignments, at most
    micro: tuple[int, int] = (
        0,
        0,
        # beyond so many bytes of activations: micro-batches of so many tokens or more; 0: as asked
    )
    # a residual stream of so many numbers or more: Execution.settle, on one device and in unrolled
    # layers; 0: never
    settle: int = 0
    # an expert's matrix of so many numbers or more: "loop" in place of "block", where one device
    # holds all; 0: never
    loop: int = 0
    options: tuple[tuple[str, bool | int], ...] = ()  # of XLA
    chunk: int = 64  # Execution.chunk; measured on a CPU alone
    turn: int = 0  # numbers of so many tokens' residual stream: Execution.turn, on one device


# cpu, gpu (one H200): measured (docs/benchmarks.md); XLA on GPU computes ragged_dot as all experts,
# masked. tpu: not measured yet.
CHOICES = {
    "cpu": Choice(
        "float32",
        "block",
        20,
        attention=xla_cpu.QUERIES,
        loss=xla_cpu.LOGITS,
        micro=xla_cpu.MICRO_BATCHES,
        settle=xla_cpu.SETTLE,
        loop=xla_cpu.LOOP,
        turn=xla_cpu.TURN,
        options=xla_cpu.OPTIONS,
    ),
    "gpu": Choice(
        "bfloat16",
        "block",
        20,
        attention=(0, 0, 0),
        kernel="cudnn",
        rows=2048,
        loss=(2**28, 8192, 0),
    ),
    "tpu": Choice("bfloat16", "ragged", 1, attention=(0, 0, 0), loss=(2**28, 8192, 0)),
}


def choice(platform: str) -> Choice:
    return CHOICES.get({"cuda": "gpu", "rocm": "gpu"}.get(platform, platform), CHOICES["gpu"])


def compiled(lowered, platform: str):
    """The program of a lowered function, with the platform's options of XLA; one that this XLA does
    not take is left out.
    """
    options = dict(choice(platform).options)
    while options:
        try:
            return lowered.compile(compiler_options=options)
        # type and words differ between versions; what names none of ours is another matter
        except Exception as error:
            refused = [name for name in options if name in str(error)]
            if not refused:
                raise
            options = {name: value for name, value in options.items() if name not in refused}
    return lowered.compile()


@functools.lru_cache(maxsize=1)
def has_cudnn() -> bool:
    """Whether the device of this process takes cuDNN's attention: NVIDIA's from Ampere on."""
    if jax.default_backend() != "gpu":
        return False
    x_BTHK = jax.ShapeDtypeStruct((1, 2, 1, 64), "bfloat16")
    try:
        jax.eval_shape(
            lambda x: jax.nn.dot_product_attention(x, x, x, is_causal=True, implementation="cudnn"),
            x_BTHK,
        )
    except Exception:  # types and words differ between versions and devices; what it says is no
        return False
    return True


def able(ex: Execution) -> Execution:
    """`ex` without a kernel that the device of this process does not have."""
    if ex.attention == "cudnn" and not has_cudnn():
        return dataclasses.replace(ex, attention="xla")
    return ex


def execution(
    model: Model, where, dtype: str, platform: str, groups: int, tokens: int, apart: bool = False
) -> Execution:
    """The Execution that a Where asks for, with `auto` resolved. `groups` divides the micro-batch;
    `tokens` are those of a batch; `apart`: documents are, which no kernel does.
    """
    asked = _execution(model, where, dtype, platform, groups, tokens, apart)
    (most, least), sequences = choice(platform).micro, tokens // model.seq_len
    whole = groups * model.unit  # sequences that no micro-batch may cut
    while (
        most and account.activations(model, asked, sequences // asked.accumulate // groups) > most
    ):
        where = dataclasses.replace(where, accumulate=2 * asked.accumulate)
        if sequences % (where.accumulate * whole) or tokens // where.accumulate // groups < least:
            break
        asked = _execution(model, where, dtype, platform, groups, tokens, apart)
    return asked


def _execution(
    model: Model, where, dtype: str, platform: str, groups: int, tokens: int, apart: bool
) -> Execution:
    here = choice(platform)
    local = max(1, tokens // where.accumulate // groups)
    narrow = min((p.width(model) for p in model.routed), default=0)
    wide = here.loop and groups == 1 and model.d_model * narrow >= here.loop
    bounded = model.routed and all(p.capacity_factor for p in model.routed)
    best = "capacity" if bounded else "loop" if wide else here.moe
    name = best if where.moe == "auto" else where.moe
    shares = [local * p.top_k // p.n_experts for p in model.routed]
    per_expert = max(1, min(shares, default=1))
    # a block holds about a quarter of an expert's mean load: padding stays near an eighth, matmuls
    # stay wide
    eighth = 2 ** max(0, (per_expert // 8).bit_length() - 1)
    rows = xla_cpu.loop_rows(eighth) if name == "loop" else min(here.rows, max(16, 2 * eighth))
    chunk = _loss_chunk(here, model, local)
    return Execution(
        dtype,
        where.scan,
        where.remat,
        name,
        rows,
        groups,
        attention="xla" if apart else here.kernel,
        attention_chunk=_attention_chunk(here, model.seq_len),
        chunk=here.chunk,
        turn=max(here.chunk, here.turn // model.d_model) if here.turn and groups == 1 else 0,
        loss_chunk=chunk,
        loss_groups=groups if chunk else 1,
        settle=bool(here.settle)
        and local * model.d_model >= here.settle
        and groups == 1
        and not where.scan,
        accumulate=where.accumulate,
        noise=where.noise_scale,
        apart=apart,
    )


def evaluation(model: Model, ex: Execution, platform: str, local: int) -> Execution:
    """How `local` sequences a device are evaluated where training is executed by `ex`."""
    chunk = _loss_chunk(choice(platform), model, local * model.seq_len)
    return dataclasses.replace(ex, loss_chunk=chunk, loss_groups=1, accumulate=1)


EVAL_BATCH = 32  # sequences that are evaluated at a time, at most


def evaluated(model: Model, ex: Execution, platform: str, groups: int, batch: int) -> int:
    """Sequences that are evaluated at a time: as many as take no more room than the activations of
    a training micro-batch, so that whatever trains can be evaluated. `groups`: the devices that a
    batch is split over.
    """
    unit = groups * model.unit
    room = account.activations(model, ex, batch // ex.accumulate // groups)
    rows = -(-EVAL_BATCH // unit) * unit
    while rows > unit:
        local = rows // groups
        if account.evaluation(model, evaluation(model, ex, platform, local), local) <= room:
            break
        rows = halved(rows, unit)
    return rows


def halved(rows: int, unit: int) -> int:
    """Half as many sequences, in whole units."""
    return -(-rows // (2 * unit)) * unit


def out_of_memory(e: BaseException) -> bool:
    """Whether the device or the host had no room for the arrays. A full disk says
    RESOURCE_EXHAUSTED too, but as an OSError or RecordError.
    """
    if isinstance(e, (OSError, RecordError)):
        return False
    text = str(e)
    return (
        isinstance(e, MemoryError)
        or "RESOURCE_EXHAUSTED" in text
        or "out of memory" in text.lower()
    )


def _attention_chunk(here: Choice, length: int) -> int:
    least, small, large = here.attention
    return min(large, max(small, length // 8)) if length >= least else 0


def _loss_chunk(here: Choice, model: Model, tokens: int) -> int:
    """Positions whose logits stand at a time: the most that stay within the table's tokens on a
    device and divide the context. Where these are few, as for a prime length, equal chunks with
    the last one filled up.
    """
    least, wanted, logits = here.loss
    if tokens * model.vocab_size < least:
        return 0
    most = max(1, max(wanted, logits // model.vocab_size) * model.seq_len // tokens)
    most = min(most, model.seq_len)
    whole = max(n for n in range(1, most + 1) if model.seq_len % n == 0)
    return whole if 2 * whole >= most else -(-model.seq_len // -(-model.seq_len // most))


def _wanted() -> str:
    """The platforms that JAX_PLATFORMS asks for; empty where a CPU will do."""
    wanted = os.environ.get("JAX_PLATFORMS", "")
    return "" if "cpu" in wanted.split(",") else wanted


@functools.lru_cache(maxsize=1)
def probe() -> tuple[str, int]:
    """(platform, local devices) without taking an accelerator in this process: asked of a child
    where one may be present. Raises ConfigError where JAX_PLATFORMS asks for one that is not.
    """
    found = _probe()
    if found[0] == "cpu" and _wanted():
        raise ConfigError(
            f"JAX_PLATFORMS={_wanted()}, but jax finds no such device here: unset JAX_PLATFORMS,"
            " or set JAX_PLATFORMS=cpu"
        )
    return found


def _probe() -> tuple[str, int]:
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return "cpu", 1
    signs = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/accel0", "/dev/vfio/0")
    if not any(os.path.exists(s) for s in signs) and "TPU_NAME" not in os.environ:
        return "cpu", 1
    return _asked()[:2]


@functools.lru_cache(maxsize=1)
def _asked() -> tuple[str, int, str]:
    code = (
        "import jax; print(jax.default_backend(), jax.local_device_count(),"
        " jax.devices()[0].device_kind, sep='\\n')"
    )
    answer = subprocess.run(child_process.command("-c", code), capture_output=True, text=True)
    lines = answer.stdout.strip().splitlines()
    return (
        (lines[-3], int(lines[-2]), lines[-1])
        if answer.returncode == 0 and len(lines) >= 3
        else ("cpu", 1, "cpu")
    )


def kind() -> str:
    """jax's name of the devices here; `cpu` where there is none."""
    return "cpu" if probe()[0] == "cpu" else _asked()[2]


def cores() -> list[int]:
    """CPU cores this process may use."""
    return (
        sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count() or 1))
    )


def cpu_name() -> str:
    """The processor as the system calls it."""
    try:
        with open("/proc/cpuinfo") as f:
            return next(
                (line.partition(":")[2].strip() for line in f if line.startswith("model name")),
                "cpu",
            )
    except OSError:
        return "cpu"


# GFLOP/s (matmul convention) of one pinned core of two by d_model, and seconds to trace and compile
# one shape; measured on 2 AMD EPYC vCPUs on 2026-11-24 and 25 (docs/benchmarks.md)
CPU_RATE: dict[str, dict[int, float]] = {
    "dense": {16: 13, 24: 17, 32: 24, 48: 29, 64: 32},
    "moe": {16: 10.5, 24: 15, 32: 18, 48: 20, 64: 23},
}
CPU_COMPILE = {"dense": 3.2, "moe": 5.0}
CPU_SOURCE = (
    "table: measured on 2 AMD EPYC vCPUs, one core a worker, 2026-11-24; another CPU differs"
    " (--calibrate measures this one)"
)


def mfu(
    model: Model, tokens_per_s: float, kind: str, devices: int, convention: str = "matmul"
) -> float | None:
    """Model FLOP/s by `convention` over the bf16 peak of the devices; None where the peak is
    unknown.
    """
    d = device(kind)
    if d is None or d.peak is None:
        return None
    return (
        account.flops_per_token(model)[convention]
        * tokens_per_s
        / (d.peak * devices / (1 + (d.name in TWO_CORES)))
    )
