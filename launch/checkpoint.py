"""Checkpoints of one run through Orbax: the state, and the counters that the host keeps."""

import os

import jax


class Checkpoints:
    """``with Checkpoints(folder) as c``: `restore` the newest, `save` every `every` steps. Keeps the last two."""

    def __init__(self, folder: str, every: int):
        import orbax.checkpoint as ocp  # a second of import time, paid only by runs that checkpoint

        self._ocp, self._every = ocp, every
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(
            os.path.abspath(os.path.join(folder, "checkpoints")), options=options, item_names=("state", "meta")
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.close()

    def restore(self, state, shardings):
        """(state, meta) of the newest checkpoint, laid out by `shardings`; None if there is none."""
        latest = self._manager.latest_step()
        if latest is None:
            return None
        like = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, shardings)
        args = self._ocp.args
        r = self._manager.restore(latest, args=args.Composite(state=args.StandardRestore(like), meta=args.JsonRestore()))
        return r["state"], r["meta"]

    def due(self, before: int, after: int) -> bool:
        """Whether a multiple of `every` lies in (before, after]."""
        return after // self._every > before // self._every

    def save(self, step: int, state, meta: dict) -> None:
        args = self._ocp.args
        self._manager.save(step, args=args.Composite(state=args.StandardSave(state), meta=args.JsonSave(meta)))
