"""What the verbs share: reading a configuration, and printing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from data.config import Data
from experiments.cli import UserError
from experiments.console.lazy import Lazy
from experiments.laws import conventions
from launch import config, overrides
from launch.config import ConfigError, Job
from launch.files import RecordError
from launch.runs import valid
from model import work

if TYPE_CHECKING:
    from experiments.planning.grid import SweepJob

arms = Lazy("experiments.planning.arms")
ladder = Lazy("experiments.planning.ladder")
grid = Lazy("experiments.planning.grid")
recipes = Lazy("experiments.recipes")
parts = Lazy("model.parts")


def load(fv, want: type | None = None, change: Callable | None = None) -> Job | SweepJob:
    """The recipe of --config, after `change`, with every --set and --mesh applied. Raises UserError
    or ConfigError.
    """
    if not fv.config:
        raise UserError(
            f"--config is missing: name a recipe ({', '.join(recipes.RECIPES)}) or a FILE.py"
        )
    job = recipes.load(fv.config)
    if want is not None and not isinstance(job, want):
        verb, kind = (
            ("sweep", "a sweep") if isinstance(job, grid.SweepJob) else ("train", "a single run")
        )
        raise UserError(f"recipe {fv.config} is {kind}: use isoflop {verb} --config={fv.config}")
    job = change(job) if change else job
    before = job.run.optimizer
    for text in getattr(fv, "set"):
        job = _apply(job, text)
    job = _rates_follow(job, before, getattr(fv, "set"))
    if "mesh" in fv and fv.mesh:
        from launch.devices import mesh

        mesh.parse(fv.mesh)
        job = dataclasses.replace(job, where=dataclasses.replace(job.where, mesh=fv.mesh))
    return job


def _rates_follow(job, before, settings: list[str]):
    """A recipe's rates of embedding and head keep their ratio to a learning rate that --set
    changes, unless they are set themselves.
    """
    now = job.run.optimizer
    if now.lr == before.lr or now.lr <= 0 or before.lr <= 0:  # the last are refused later
        return job
    given = " ".join(t for t in settings if t.strip().startswith("optimizer"))
    moved = {
        name: getattr(now, name) * now.lr / before.lr
        for name in ("embed_lr", "head_lr")
        if name not in given
    }
    now = dataclasses.replace(now, **moved)
    return dataclasses.replace(job, run=dataclasses.replace(job.run, optimizer=now))


def _apply(job, text: str):
    key = text.partition("=")[0].strip()
    if not isinstance(job, grid.SweepJob):
        if key.startswith("sweep."):
            raise ConfigError(f"{key}: this recipe is a single run, it has no sweep")
        if key.startswith(
            "horizon."
        ):  # the horizon is one choice of three: setting one clears the others
            job = dataclasses.replace(
                job, run=dataclasses.replace(job.run, horizon=config.Horizon())
            )
        return overrides.set_fields(job, [text])
    value = text.partition("=")[2].strip()
    ladder.check_free(key, value)
    if key.startswith("sweep."):
        return dataclasses.replace(job, sweep=_sweep(job.sweep, key, value))
    last = key.rpartition(".")[2]
    if key.startswith("model.") and last in ladder.OWNED_IN_PARTS:
        raise ConfigError(
            f"{key} is not free in a sweep: set {ladder.OWNED_IN_PARTS[last]} instead"
        )
    if key.startswith("model.") and not parts.places(job.run.model, key.removeprefix("model.")):
        if new := _in_arms(job, key.removeprefix("model."), value):
            return dataclasses.replace(job, sweep=dataclasses.replace(job.sweep, arms=new))
    single = overrides.set_fields(Job(job.run, job.where), [text])
    return dataclasses.replace(job, run=single.run, where=single.where)


def _sweep(sweep, key: str, value: str):
    """The sweep with one of its fields set; an arm by ``sweep.arms.NAME``, the shapes from a
    file.
    """
    name = key.removeprefix("sweep.")
    if name.startswith("arms."):
        arm = name.removeprefix("arms.")
        arms.apply(parts.model(), value)  # says what is wrong with it
        families = sweep.families if arm in sweep.families else (*sweep.families, arm)
        own = {**dict(sweep.arms), arm: value}
        return dataclasses.replace(sweep, arms=own, families=families)
    if name == "arms":
        raise ConfigError(
            "name the arm: --set sweep.arms.NAME=attention/dense(d_ff=512); or arms that have a"
            " name: --set sweep.families=dense,jamba,mamba2"
        )
    if name == "shapes":
        return dataclasses.replace(sweep, shapes=ladder.table(value))
    return overrides.override(sweep, name, value, key)


def _in_arms(job, key: str, value: str) -> tuple:
    """The arms with a field of a part set that the base model does not have; empty where none of
    them has it.
    """
    sweep, named = job.sweep, {*dict(job.sweep.arms), *arms.ARMS}
    known = [f for f in sweep.families if f in named or arms.registered(f)]
    old = {f: arms.named(sweep.arm(f), job.run.model) for f in known}
    new = {name: text for name, arm in old.items() if (text := arms.set_field(arm, key, value))}
    return tuple({**dict(sweep.arms), **new}.items()) if new else ()


def data(settings: list[str], base: Data | None = None) -> Data:
    """What --set data.FIELD=value names, for verbs that know no model; base: what holds where
    nothing is named. Raises UserError or ConfigError.
    """
    d = base or Data()
    for text in settings:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key.startswith("data."):
            raise UserError(f"--set {text}: this verb has only the fields data.FIELD=value")
        d = overrides.override(d, key.removeprefix("data."), value.strip(), key)
    return d


def check_out(path: str) -> None:
    """Raises UserError where the file of --out cannot be written: before minutes of work."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK) or os.path.isdir(path):
        raise UserError(f"--out={path} cannot be written: name a file in a folder that exists")


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns: names on the left, numbers on the right."""
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([name.ljust(wide[0]), *map(str.rjust, numbers, wide[1:])]).rstrip()
        for name, *numbers in rows
    ]


@contextlib.contextmanager
def stdout_to_stderr(active: bool):
    """Keeps stdout clean for one JSON object."""
    if active:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    else:
        yield


@contextlib.contextmanager
def complete(results: list[dict] = ()):
    """Records that lack what is asked of them, or contradict each other, as one line with the place
    in the code. A record is blamed for a name that it lacks, not for a slip of the code.
    """
    try:
        yield
    except (KeyError, TypeError, ZeroDivisionError, OverflowError) as e:
        at = traceback.extract_tb(e.__traceback__)[-1]
        place = f"{os.path.basename(at.filename)}:{at.lineno}"
        if isinstance(e, KeyError) and (lacks := _lacking(e.args[0], results)):
            raise RecordError(
                f"{lacks}/result.json lacks {e}, at {place}: it was written by another version, or"
                " is damaged"
            ) from e
        raise RecordError(
            f"the analysis failed ({type(e).__name__}: {e}, at {place}): if isoflop wrote these"
            " records, it is a slip of isoflop: please report it"
        ) from e


def _lacking(key, results: list[dict]) -> str | None:
    """The first run whose result lacks a field of that name: one that records have by their form,
    or that another result has in the same place.
    """
    places = set(_places(valid.RESULT, key)) | set(_places(valid.RESULT, f"{key}?"))
    places |= {("parameters", key)} if key in conventions.N_CONVENTIONS else set()
    places |= {("flops", key)} if key in work.CONVENTIONS else set()
    for r in results:
        places |= set(_places(r, key))
    return next((r["id"] for r in results if places - set(_places(r, key))), None)


def _places(value, key, path: tuple = ()):
    """The paths of an object's fields of that name; a ? at a name's end is no part of it."""
    for k, v in value.items() if isinstance(value, dict) else ():
        if k == key:
            yield *path, k.rstrip("?")
        yield from _places(v, key, (*path, k.rstrip("?")))


__all__ = ["check_out", "columns", "complete", "data", "load", "stdout_to_stderr"]
