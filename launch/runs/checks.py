"""What a run is, to the last default, and whether it can be trained: asked before anything
compiles or is written.
"""

import dataclasses

import jax

from data import pipeline
from launch import config
from launch.config import ConfigError, Run, Where
from launch.devices import choice
from launch.devices import mesh as meshes
from launch.trackers import chosen

MOST_STEPS = 1000  # of one call of the compiled program


def resolve(run: Run, platform: str) -> Run:
    """`run` with dtype `auto` replaced by the platform's: the dtype decides the result, so it is
    part of the identity.
    """
    return (
        dataclasses.replace(run, dtype=choice.choice(platform).dtype)
        if run.dtype == "auto"
        else run
    )


def identified(run: Run, where: Where, dataset=None) -> Run:
    """`run` with the content of its text and tokenizer named, which decides the result: its files
    may move, and may not change. Raises DataError where they are others than those named.
    """
    if run.data.source == "synthetic":  # its fields say everything
        return run
    dataset = dataset or pipeline.load(run.data, run.model.seq_len, where.cache)
    named = dataclasses.replace(run.data, content=pipeline.content(dataset))
    return dataclasses.replace(run, data=named)


def check(run: Run, where: Where, dataset=None, devices: int | None = None) -> None:
    """Raises ConfigError or DataError for anything that would stop the run, before anything
    compiles or is written.

    devices: how many the process that trains will see; those of this process if None.
    """
    config.check(run)
    config.check_moe(run.model, where)
    chosen.check(where)
    if not 1 <= where.lease <= 86400:
        raise ConfigError(f"where.lease={where.lease:g} must lie in 1 .. 86400 seconds")
    for name in (
        "steps_per_dispatch",
        "log_every",
        "checkpoint_every",
        "keep",
        "workers",
        "members",
    ):
        if getattr(where, name) < 0:
            raise ConfigError(f"where.{name}={getattr(where, name)} cannot be negative")
    if where.steps_per_dispatch > MOST_STEPS:  # all their batches are handed over at once
        raise ConfigError(
            f"where.steps_per_dispatch={where.steps_per_dispatch} is more than {MOST_STEPS}: leave"
            " it 0, or give fewer"
        )
    member = meshes.parse(where.mesh).get(meshes.MEMBER, 1)
    if where.members > 1 and where.moe == "ragged":
        raise ConfigError(
            "where.moe=ragged is not mapped over the members of a pack on a TPU: leave where.moe"
            " out, or set where.members=1"
        )
    if member > 1 and (not where.members or where.members % member):
        raise ConfigError(
            f"mesh axis {meshes.MEMBER}={member} shares out runs that are trained together: set"
            f" where.members to a multiple of {member}"
        )
    if run.init or where.init_from:
        _check_init(run, where)
    if where.accumulate < 1:
        raise ConfigError(
            f"where.accumulate={where.accumulate} must be at least 1 micro-batch a step"
        )
    if where.noise_scale and where.accumulate < 2:
        raise ConfigError(
            "where.noise_scale=true compares the micro-batches of a step: set where.accumulate=2 or"
            " more"
        )
    devices = jax.device_count() if devices is None else devices
    meshes.check(meshes.parse(where.mesh), run.model, run.batch, devices, where.accumulate)
    dataset = dataset or pipeline.load(run.data, run.model.seq_len, where.cache)
    if dataset.vocab_size > run.model.vocab_size:
        raise ConfigError(
            f"the tokenizer has {dataset.vocab_size} ids, model.vocab_size is"
            f" {run.model.vocab_size}: set model.vocab_size={dataset.vocab_size}"
        )


def _check_init(run: Run, where: Where) -> None:
    """Raises ConfigError unless `where.init_from` holds the weights that `run.init` names, in the
    shapes of `run.model`.
    """
    from launch.huggingface import folder

    if not where.init_from:
        raise ConfigError(
            f"the run starts from imported weights {run.init}: say where they are with"
            " --init_from=HF_DIR"
        )
    found = folder.fingerprint(where.init_from)
    if found != run.init:
        raise ConfigError(
            f"--init_from={where.init_from} holds the weights {found}, the run starts from"
            f" {run.init}: give another folder or --workdir"
        )
    folder.load(where.init_from, run.model)
