"""Checkpoints of one run through Orbax: written in the background, verified before they are used.

    FOLDER/checkpoints/STEP/                 an Orbax checkpoint: state, and the counters that the
                                             host keeps (meta)
    FOLDER/checkpoints/STEP/complete.json    written last: format version, run id, size and SHA-256
                                             of every file

A checkpoint without complete.json does not exist. One that disagrees with it is set aside, with a
warning, and the one before is used. Kept are the last `keep`, the one with the lowest training
loss, and the steps that were named.
"""

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable

import jax
import numpy as np

from launch import files
from launch.config import Where
from launch.files import RecordError

VERSION, FOLDER, MARK, ASIDE = 2, "checkpoints", "complete.json", "damaged"


def _files(folder: str) -> dict[str, list]:
    """{path below `folder`: [size, SHA-256]} of every file except the mark."""
    out = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            key = os.path.relpath(path, folder)
            if key != MARK:
                with open(path, "rb") as f:
                    out[key] = [os.path.getsize(path), hashlib.file_digest(f, "sha256").hexdigest()]
    return out


def steps(folder: str) -> list[int]:
    """Steps of the complete checkpoints of a run, oldest first. Their content is not verified."""
    root = os.path.join(folder, FOLDER)
    names = os.listdir(root) if os.path.isdir(root) else []
    return sorted(int(n) for n in names if n.isdigit() and stands(folder, int(n)))


def stands(folder: str, step: int) -> bool:
    """Whether the checkpoint at `step` is complete. Its content is not verified."""
    return os.path.exists(os.path.join(folder, FOLDER, str(step), MARK))


def adopt(source: str, owner: str, step: int, folder: str, identity: str, scan: bool) -> bool:
    """Copies a checkpoint of the run `owner` in `source`, for the run `identity` in `folder` to go
    on from; its mark comes last. False where it is gone, damaged or of another layout. Raises
    OSError where the disk is full.
    """
    theirs, mine = (os.path.join(os.path.abspath(f), FOLDER, str(step)) for f in (source, folder))
    try:
        mark = files.read_json(os.path.join(theirs, MARK), "checkpoint")
        if [mark.get(k) for k in ("version", "run", "scan")] != [VERSION, owner, scan]:
            return False
        shutil.rmtree(mine, ignore_errors=True)
        shutil.copytree(theirs, mine, ignore=shutil.ignore_patterns(MARK))
        if whole := mark.get("files") == _files(mine):
            files.write_json(os.path.join(mine, MARK), {**mark, "run": identity})
    except (OSError, RecordError) as e:
        if any(os.strerror(n) in str(e) for n in (errno.ENOSPC, errno.EDQUOT)):
            raise
        whole = False
    if not whole:
        shutil.rmtree(mine, ignore_errors=True)
    return whole


def remove(folder: str, step: int) -> None:
    """One checkpoint, and the folder of all if it was the only one."""
    root = os.path.join(folder, FOLDER)
    shutil.rmtree(os.path.join(root, str(step)), ignore_errors=True)
    with contextlib.suppress(OSError):  # others are left
        os.rmdir(root)


def newest(
    folder: str, identity: str, scan: bool | None, say: Callable[[str], None], mend: bool = True
) -> int | None:
    """The newest step whose checkpoint is whole; newer ones are removed (unfinished) or set aside
    (damaged), unless `mend` is False: another process may be writing here.

    Raises RecordError for a checkpoint of another format or run, or with other shapes (scanned
    layers are stacked; scan None: any).
    """
    root = os.path.join(folder, FOLDER)
    if not os.path.isdir(root):
        return None
    for name in os.listdir(root) if mend else ():
        path = os.path.join(root, name)
        if name != ASIDE and not os.path.exists(
            os.path.join(path, MARK)
        ):  # what a killed process left
            shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.remove(path)
    for step in reversed(steps(folder)):
        path = os.path.join(root, str(step))
        try:
            mark = files.read_json(os.path.join(path, MARK), "checkpoint")
        except RecordError:
            mark = None
        if mark and mark.get("version") != VERSION:
            raise RecordError(
                f"checkpoint {path} has format {mark.get('version')}, this isoflop reads format"
                f" {VERSION}: use the isoflop that wrote it, or another --workdir"
            )
        if mark and mark.get("run") != identity:
            raise RecordError(
                f"checkpoint {path} belongs to run {mark.get('run')}, not to {identity}: give"
                " another --workdir"
            )
        if mark and mark.get("files") == _files(path):
            if scan is not None and mark.get("scan") != scan:
                raise RecordError(
                    f"checkpoint {path} was written with"
                    f" where.scan={str(mark.get('scan')).lower()}: go on with that"
                )
            return step
        say(
            f"checkpoint {path} is damaged: {'set aside, ' if mend else ''}the one before it is"
            " used"
        )
        if mend:
            _set_aside(root, str(step))
    return None


def peek(folder: str, step: int, like) -> tuple[dict, bool]:
    """(state as host arrays in the tree of `like(scan)`, whether its layers are scanned) of one
    whole checkpoint, for reading alone.
    """
    import orbax.checkpoint as ocp

    path = os.path.join(os.path.abspath(folder), FOLDER, str(step))
    scan = files.read_json(os.path.join(path, MARK), "checkpoint")["scan"]
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    spec = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), like(scan)
    )
    with ocp.StandardCheckpointer() as c:
        found = c.restore(os.path.join(path, "state"), _stored(spec))
    return jax.tree.map(np.asarray, _again(found, spec)), scan


def _stored(state):
    """A state as it is stored: without the average of a run that has none, as earlier versions
    wrote it.
    """
    if getattr(state, "average", None) != ():
        return state
    return {k: v for k, v in state._asdict().items() if k != "average"}


def _again(stored, like):
    """The state in the form of `like`."""
    return type(like)(**stored) if isinstance(stored, dict) and hasattr(like, "_asdict") else stored


def _set_aside(root: str, name: str) -> None:
    os.makedirs(os.path.join(root, ASIDE), exist_ok=True)
    taken = set(os.listdir(os.path.join(root, ASIDE)))
    free = next(n for n in (name, *(f"{name}-{i}" for i in range(2, 10**6))) if n not in taken)
    os.rename(os.path.join(root, name), os.path.join(root, ASIDE, free))


class Checkpoints:
    """``with Checkpoints(...) as c``: `restore` a step, `save` in the background. Only process 0
    marks and removes, and marks nothing once `guard` raises RecordError: the run has another
    holder.
    """

    def __init__(
        self, folder: str, identity: str, where: Where, guard: Callable[[], None] = lambda: None
    ):
        import orbax.checkpoint as ocp  # a second of import time, paid only by runs that checkpoint
        from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

        self._ocp, self._about, self._guard = (
            ocp,
            {"version": VERSION, "run": identity, "scan": where.scan},
            guard,
        )
        self._root = os.path.abspath(os.path.join(folder, FOLDER))
        for name in ("asyncio", "absl"):  # what goes wrong in a write is raised by `wait`, once
            logging.getLogger(name).setLevel(logging.CRITICAL)

        def score(m):
            return -m["loss"]

        kept = [
            policies.LatestN(max(2, where.keep)),  # of two, one is complete at any moment
            policies.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False),
            policies.CustomSteps(list(where.keep_steps)),
        ]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept),
            best_fn=score,
            enable_async_checkpointing=True,
        )
        self._manager = ocp.CheckpointManager(
            self._root, options=options, item_names=("state", "meta")
        )
        self._marking, self._error, self.last = None, None, None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.wait()
            self._manager.close()
        except Exception:
            if kind is None:
                raise
            with contextlib.suppress(Exception):  # the first error is the one to tell
                self._manager.close()

    def restore(self, step: int, state, shardings):
        """(state, meta) of the checkpoint at `step`, laid out by `shardings`, whatever layout wrote
        it.
        """
        like = jax.tree.map(
            lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, shardings
        )
        like, args = _stored(like), self._ocp.args
        r = self._manager.restore(
            step, args=args.Composite(state=args.StandardRestore(like), meta=args.JsonRestore())
        )
        self.last = step
        return _again(r["state"], state), r["meta"]

    def save(self, step: int, state, meta: dict, loss: float) -> None:
        """Copies the state and returns; writing goes on in the background. Raises RecordError if
        the save before this one failed.
        """
        self.wait()
        args = self._ocp.args
        need, free = (
            sum(a.nbytes for a in jax.tree.leaves(state)),
            shutil.disk_usage(self._root).free,
        )
        if free < 1.05 * need + 2**18:
            raise self._failed(step, OSError(errno.ENOSPC, f"{need} bytes wanted, {free} free"))
        try:
            self._manager.save(
                step,
                args=args.Composite(
                    state=args.StandardSave(_stored(state)), meta=args.JsonSave(meta)
                ),
                metrics={"loss": loss},
                force=True,
            )
        except Exception as e:
            raise self._failed(step, e) from None
        self._marking = threading.Thread(target=self._mark, args=(step,), daemon=True)
        self._marking.start()

    def _mark(self, step: int) -> None:
        try:
            self._manager.wait_until_finished()
            path = os.path.join(self._root, str(step))
            if jax.process_index() == 0:
                self._guard()
                files.write_json(os.path.join(path, MARK), {**self._about, "files": _files(path)})
            self.last = step
        except RecordError as e:  # the run was taken over
            self._error = e
        except Exception as e:
            self._error = self._failed(step, e)

    def _failed(self, step: int, e: Exception) -> RecordError:
        causes, cause = [], e
        while cause is not None:
            causes.append(cause)
            cause = cause.__cause__ or cause.__context__
        full = any(
            getattr(c, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
            or "No space left" in str(c)
            or "RESOURCE_EXHAUSTED" in str(c)
            for c in causes
        )
        what = "no space left on the disk" if full else f"{type(e).__name__}: {str(e)[:200]}"
        safe = (
            f"the one at step {self.last} is whole"
            if self.last is not None
            else "there is none before it"
        )
        return RecordError(
            f"the checkpoint at step {step} could not be written to {self._root} ({what}); {safe}:"
            " make room, and the same command goes on"
        )

    def check(self) -> None:
        """Raises RecordError if the last save has failed by now."""
        if self._error:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Until the last save is on the disk and marked. Raises RecordError if it failed."""
        if self._marking:
            self._marking.join()
            self._marking = None
        self.check()
