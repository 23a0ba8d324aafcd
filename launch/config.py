"""A Run decides a result; a Where says how it is executed. The run id hashes the Run alone.

Fields at their default are left out of the hash, so that another mesh, or a field added later, is
still the same run.
"""

import dataclasses
import hashlib
import json
import typing
from typing import Any

from data.config import Data
from model import averages, config, optim, optimizers
from model.config import Model
from model.optim import Schedule
from model.optimizers import AdamW, Optimizer


class ConfigError(ValueError):
    """A configuration that cannot be run; the message says what is wrong and what to do."""


VERSION = 2  # of a run as JSON; 1 had a flat model (model/records_version1.py)


def _model() -> Model:
    """The default model. Parts hold their Flax modules: jax is imported where one is made."""
    from model import parts

    return parts.model()


@dataclasses.dataclass(frozen=True)
class Horizon:
    """How long to train: exactly one of the three is set. `flops` counts by the `matmul`
    convention.
    """

    steps: int = 0
    tokens: int = 0
    flops: float = 0.0


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that decides the numbers of one training run."""

    model: Model = dataclasses.field(default_factory=_model)
    data: Data = Data()
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Schedule()
    horizon: Horizon = Horizon()
    batch: int = 8  # sequences per step, over all devices
    seed: int = 0  # of the initial parameters; data.seed orders the data
    # of the weights, evaluated beside the last ones: ema(0.999) | lawa(5,100) (model/averages.py)
    average: str = ""
    # fingerprint of the weights training starts from (isoflop train --init_from); empty: drawn from
    # the seed
    init: str = ""
    max_bad_steps: int = 20  # skipped updates in a row after which a run counts as diverged
    dtype: str = (
        "auto"  # of the matmuls: float32 | bfloat16; auto: float32 on CPU, bfloat16 on accelerators
    )


@dataclasses.dataclass(frozen=True)
class Slurm:
    """What sbatch is told of a job; one job of the array trains one run."""

    partition: str = ""  # empty: the cluster's default
    account: str = ""
    nodes: int = 1  # of one run; several train it together through jax.distributed
    tasks_per_node: int = 1  # processes of one run on a node
    cpus_per_task: int = 1
    gpus_per_node: int = 0
    minutes: int = (
        60  # a job that runs into its limit saves, ends with status 75 and is submitted again
    )
    extra: str = ""  # more options of sbatch: qos=high,constraint=h200


@dataclasses.dataclass(frozen=True)
class Sky:
    """What SkyPilot is told of a task; its nodes share the runs, or train each together."""

    accelerators: str = "H100:1"  # of a node: H100:8, tpu-v5litepod-16; empty: CPUs
    nodes: int = 1
    # all nodes train each run together, through jax.distributed; else each trains runs of its own
    together: bool = False
    infra: str = (
        ""  # aws, gcp/us-central1, k8s, slurm/mycluster; empty: the cheapest that is enabled
    )
    spot: bool = True  # preempted ones are recovered
    bucket: str = ""  # URI of the bucket that holds the workdirs: s3://mine, gs://mine
    launch: bool = True  # call `sky jobs launch`; false: write the task and say the command


@dataclasses.dataclass(frozen=True)
class Where:
    """How a run is executed. Nothing here changes the result beyond rounding."""

    mesh: str = ""  # such as data=2,fsdp=2,tensor=2; unnamed axes are 1; empty: all devices on data
    # one compiled body for all repetitions of the layer pattern: compiles faster when deep
    scan: bool = False
    remat: bool = False  # recompute activations in the backward pass: less memory, more FLOPs
    accumulate: int = (
        1  # micro-batches of a step, at least, one after the other: activations of one at a time
    )
    # the gradient noise scale, of the micro-batches of a step, in metrics and record
    noise_scale: bool = False
    moe: str = "auto"  # auto | block | loop | capacity | ragged | all: see model/mlps/dispatch.py
    steps_per_dispatch: int = (
        0  # updates per call of the compiled program; 0: by device and clock (launch/runs/pace.py)
    )
    log_every: int = 0  # steps between lines of metrics.jsonl; 0: about 50 lines a run
    checkpoint_every: int = 0  # steps between checkpoints; 0: only when told to stop
    # the last step is saved too, for sample, export and further training; sweeps leave it out
    keep_final: bool = True
    # newest checkpoints that are kept, at least two; besides them the one with the lowest training
    # loss ...
    keep: int = 2
    keep_steps: tuple[int, ...] = ()  # ... and these steps, saved and never removed
    init_from: str = ""  # folder in Hugging Face's format whose weights Run.init names
    prediction: str = ""  # file of a prediction of this run, registered by isoflop next
    tensorboard: bool = True
    # also tell wandb, trackio (launch/trackers/): their packages, their variables
    track: tuple[str, ...] = ()
    engine: str = "local"  # what runs a sweep: local | slurm | skypilot (launch/engines/)
    # runs of a sweep that train at once; 0: one per CPU core or per GPU, on a cluster as many as it
    # starts
    workers: int = 0
    # runs of equal shape that a worker trains at once, as one compiled program; 0: by the device
    members: int = 0
    lease: float = (
        60.0  # seconds without a sign of life after which another worker takes a run over
    )
    slurm: Slurm = Slurm()
    sky: Sky = Sky()
    cache: str = ""  # token files and compiled programs; empty: $ISOFLOP_CACHE or ~/.cache/isoflop


@dataclasses.dataclass(frozen=True)
class Job:
    """What `--set` reaches in a single run: the Run's own fields, and `where.*`."""

    run: Run = dataclasses.field(default_factory=Run)
    where: Where = Where()


def field_types(cls):
    return typing.get_type_hints(cls)


def to_dict(value) -> dict:
    """A dataclass as JSON-ready nested dicts, every field; parts of a model as text."""
    return json.loads(json.dumps(_fields(value, full=True)))


def _fields(value, full: bool) -> dict:
    """Of a dataclass; every field, or those that differ from their defaults."""
    if isinstance(value, Model):
        from model import parts

        return parts.to_dict(value, full)
    out: dict[str, Any] = {"version": VERSION} if isinstance(value, Run) else {}
    if isinstance(value, Optimizer) and type(value) is not AdamW:
        out["name"] = optimizers.name(value)
    for f in dataclasses.fields(value):
        v = getattr(value, f.name)
        if dataclasses.is_dataclass(v):
            v = _fields(v, full)
            if full or v:
                out[f.name] = v
        elif full or v != f.metadata.get("before", f.default):
            out[f.name] = v
    return out


def brief(run: Run) -> dict:
    """The fields that differ from their defaults: what the id hashes."""
    return json.loads(json.dumps(_fields(run, full=False)))


def run_id(run: Run) -> str:
    """Twelve hex digits of the SHA-256 of `brief(run)`; where the content of text and tokenizer is
    named, their paths are left out.
    """
    if run.data.content:
        run = dataclasses.replace(
            run,
            data=dataclasses.replace(
                run.data, path="", validation_path="", tokenizer_path="", sources=""
            ),
        )
    return hashlib.sha256(json.dumps(brief(run), sort_keys=True).encode()).hexdigest()[:12]


def from_dict(cls, d: dict):
    """The inverse of `to_dict` and `brief`. A missing field takes its default, or what records
    meant before it existed (`before` in its metadata). Raises ConfigError
    on a field that is unknown.
    """
    if cls is Optimizer:
        cls, d = _optimizer(d)
    hints, out = field_types(cls), {}
    if cls is Run:
        d = {**d, "model": _read_model(d.get("model", {}), d.get("version", 1))}
        d.pop("version", None)
    for name, v in d.items():
        if name not in hints:
            raise ConfigError(
                f"{cls.__name__} has no field {name!r}: the record was written by another version"
            )
        kind = hints[name]
        if dataclasses.is_dataclass(kind) and isinstance(v, dict):
            out[name] = from_dict(kind, v)
        else:
            out[name] = tuple(v) if isinstance(v, list) else v
    for f in dataclasses.fields(cls):
        if f.name not in d and "before" in f.metadata:
            out[f.name] = f.metadata["before"]
        elif f.name not in d and dataclasses.is_dataclass(hints[f.name]):
            out[f.name] = from_dict(hints[f.name], {})
    return cls(**out)


def earlier(kept) -> str:
    """In words that the record of a run was written by an earlier version, if it was."""
    if not isinstance(kept, dict) or kept.get("version", 1) == VERSION:
        return ""
    return (
        ": an earlier version of isoflop began it, whose ids differ; status, fit, report and sample"
        " read it, but it is not continued"
    )


def _read_model(d: dict, version: int) -> Model:
    """The model of a record. Raises ConfigError."""
    from model import parts, records_version1

    if version not in (1, VERSION):
        raise ConfigError(f"the record has version {version}: it was written by a newer isoflop")
    try:
        plain = {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}
        return records_version1.model(**plain) if version == 1 else parts.model(**plain)
    except (TypeError, ValueError) as e:
        raise ConfigError(f"{e}: the record was written by another version") from None


def _optimizer(d: dict) -> tuple[type, dict]:
    """(class, fields) of an optimizer in a record. Raises ConfigError."""
    d = dict(d)
    try:
        return config.choose(optimizers.OPTIMIZERS, d.pop("name", "adamw"), "optimizer"), d
    except ValueError as e:
        raise ConfigError(f"{e}: the record was written by another version") from None


def steps(run: Run) -> int:
    """Updates of the run: its horizon rounded to whole batches. Raises ConfigError if that is
    none.
    """
    from model import account

    h, per_step = run.horizon, run.batch * run.model.seq_len
    if sum(x > 0 for x in (h.steps, h.tokens, h.flops)) != 1 or min(h.steps, h.tokens, h.flops) < 0:
        raise ConfigError(
            "set exactly one of horizon.steps, horizon.tokens and horizon.flops to a positive"
            f" number (now {h.steps}, {h.tokens}, {h.flops:g})"
        )
    n = h.steps or (h.tokens or h.flops / account.flops_per_token(run.model)["matmul"]) / per_step
    if round(n) < 1:
        raise ConfigError(
            f"the horizon is {n:.2g} of one batch of {per_step} tokens: raise it, or lower batch or"
            " model.seq_len"
        )
    return round(n)


def rate(run: Run, step: int, total: int) -> float:
    """Share of the peak learning rate at 0-based `step` of `total`."""
    return optim.factor(run.schedule, step, total, run.batch * run.model.seq_len)


def check(run: Run) -> None:
    """Raises ConfigError, in words that say what to change, if `run` cannot be trained."""
    from model import parts

    try:
        config.check(run.model)
        parts.check_transfer(run.model)
        if run.data.documents == "apart":
            parts.check_apart(run.model)
        optimizers.check(run.optimizer, run.model)
        optim.check(run.schedule)
    except ValueError as e:
        raise ConfigError(str(e)) from None
    if run.batch < 1 or run.batch % run.model.unit:
        raise ConfigError(
            f"batch={run.batch} must be a positive multiple of"
            f" model.moe.routing_group={run.model.unit}"
        )
    if run.dtype not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"dtype={run.dtype!r}: choose from auto, float32, bfloat16")
    if run.max_bad_steps < 1:
        raise ConfigError(f"max_bad_steps={run.max_bad_steps} must be at least 1")
    for name, seed in (("seed", run.seed), ("data.seed", run.data.seed)):
        if not 0 <= seed < 2**31:
            raise ConfigError(f"{name}={seed} must lie in 0 .. 2^31 - 1")
    try:
        averages.check(run.average, steps(run))
    except ValueError as e:
        raise ConfigError(str(e)) from None
    total, step_tokens = steps(run), run.batch * run.model.seq_len
    warm, cool = (
        optim.warmup_of(run.schedule, total, step_tokens),
        optim.cooldown_of(run.schedule, total),
    )
    given = run.schedule.warmup_steps or run.schedule.warmup_tokens or cool
    if given and warm + cool > total:
        raise ConfigError(
            f"the run has {total} steps of {step_tokens} tokens, fewer than its warm-up of {warm}"
            + (f" and its cooldown of {cool}" if cool else "")
            + ": raise the horizon, or shorten the warm-up"
        )


def check_moe(model: Model, where: Where) -> None:
    """Raises ConfigError if `where` names no implementation of the experts that `model` can
    have.
    """
    from model.mlps.dispatch import IMPLEMENTATIONS

    if where.moe not in ("auto", *IMPLEMENTATIONS):
        raise ConfigError(
            f"where.moe={where.moe!r}: choose from auto, {', '.join(IMPLEMENTATIONS)}"
        )
    if where.moe == "capacity" and not all(p.capacity_factor for p in model.routed):
        raise ConfigError(
            "where.moe=capacity drops assignments, which is the model's to decide: set"
            " model.moe.capacity_factor, such as 1.25"
        )


def family(model: Model) -> str:
    """`moe` if any layer has experts, else `dense`."""
    return "moe" if model.routed else "dense"
