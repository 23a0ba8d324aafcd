"""Turns per-step metrics into lines of metrics.jsonl."""

import math
import time

import jax
import numpy as np

from launch import config
from launch.runs.divergence import Watch
from launch.runs.record import Metrics
from model import account, noise_scale


def _numbers(v) -> list | float | None:
    """Ready for JSON."""
    v = np.asarray(v).tolist()
    if isinstance(v, list):
        return [_numbers(x) for x in v]
    return v if math.isfinite(v) else None


class Meter:
    """One line every `every` steps and one at the end: means over the steps since the last line,
    skipped ones left out.

    `state()` holds what stands between two lines, so that a run resumed anywhere writes the same
    lines; up to update `fork` it holds every step, of which a run of another length makes its own.
    """

    def __init__(self, run, where, total: int, out: Metrics, watch: Watch, state=None, fork=0):
        self._run, self._total, self._out, self._watch = run, total, out, watch
        self.every = where.log_every or max(1, total // 50)
        self._per_step = run.batch * run.model.seq_len
        self._flops = account.flops_per_token(run.model)["matmul"] * self._per_step
        state = state or {"kept": [], "last_loss": None}
        self._fork, self._noise = fork, state.get("noise") or [0.0, 0.0, 0]
        self._history: dict[str, list] = state.get("history") or {}  # a value of every step by name
        self.last_loss = float("nan") if state["last_loss"] is None else state["last_loss"]
        self.waited = 0.0  # seconds for batches, since the run began
        self._bytes, self._mark, self._since, self._kept = 0, time.perf_counter(), 0, []
        for step_bytes, metrics in state["kept"]:
            self._bytes += step_bytes
            self._kept.append(
                (step_bytes, {k: np.asarray(v, np.float32) for k, v in metrics.items()})
            )

    def state(self) -> dict:
        """Ready for JSON: float32 values are exact in it, and None stands for what is not
        finite.
        """

        kept = [[n, {k: _numbers(v) for k, v in m.items()}] for n, m in self._kept]
        return {
            "kept": kept,
            "last_loss": _numbers(self.last_loss),
            "history": self._history,
            "noise": self._noise,
        }

    def add(self, first: int, bytes_by_step, metrics) -> None:
        """Metrics of the steps after `first`, with a leading axis of at least as many steps as
        `bytes_by_step` is long.
        """
        host = jax.tree.map(np.asarray, metrics)
        for i, n_bytes in enumerate(bytes_by_step):
            self._since += 1
            self._step(first + i + 1, int(n_bytes), jax.tree.map(lambda a, i=i: a[i], host))

    def tell_again(self, history: dict) -> None:
        """All steps of a run that this one is up to there."""
        names = [k for k in history if k != "bytes"]
        for i, n_bytes in enumerate(history["bytes"]):
            m = {k: np.asarray(history[k][i], np.float32) for k in names}
            self._step(i + 1, n_bytes, m)

    def _step(self, n: int, n_bytes: int, m: dict) -> None:
        """The `n`-th update from 1 on."""
        self._kept.append((n_bytes, m))
        self._bytes += n_bytes
        self._watch.add(float(m["loss"]), bool(m["skipped"]))
        if noise_scale.SIGNAL in m and not m["skipped"] and 2 * n > self._total:
            values = float(m[noise_scale.SIGNAL]), float(m[noise_scale.NOISE]), 1
            self._noise = [a + b for a, b in zip(self._noise, values, strict=True)]
        if n <= self._fork:
            for k, v in (("bytes", n_bytes), *m.items()):
                self._history.setdefault(k, []).append(v if k == "bytes" else _numbers(v))
        else:
            self._history = {}
        if n % self.every == 0 or n == self._total:
            self._line(n)

    def noise_scale(self) -> dict | None:
        """Means over the second half of the run, and their ratio; None where nothing was read."""
        signal, noise, steps = self._noise
        if not steps:
            return None
        signal, noise = signal / steps, noise / steps
        scale = noise_scale.tokens(signal, noise, self._run.model.seq_len)
        return {"tokens": scale, "signal": signal, "noise": noise, "steps": steps}

    def _line(self, n: int) -> None:
        now, tokens = time.perf_counter(), len(self._kept) * self._per_step
        used = [m for _, m in self._kept if not m["skipped"]]
        mean = {
            k: np.mean([m[k] for m in used], 0) if used else np.float32("nan")
            for k in self._kept[0][1]
            if k != "skipped"
        }
        self.last_loss, rate = float(mean["loss"]), config.rate(self._run, n - 1, self._total)
        self._out.write(
            {
                "step": n,
                "loss": self.last_loss,
                "bits_per_byte": (
                    self.last_loss * tokens / math.log(2) / self._bytes if self._bytes else None
                ),
                "learning_rate": rate * self._run.optimizer.lr,
                "embed_learning_rate": rate * self._run.optimizer.peaks()["embed_lr"],
                "grad_norm": float(mean["grad_norm"]),
                "tokens": n * self._per_step,
                "flops_matmul": float(n * self._flops),
                "tokens_per_s": (
                    self._since * self._per_step / max(1e-9, now - self._mark)
                    if self._since
                    else None  # told again
                ),
                "waited_s": self.waited,
                "skipped": len(self._kept) - len(used),
                **{k: v.tolist() for k, v in mean.items() if k not in ("loss", "grad_norm")},
            }
        )
        self._kept, self._bytes, self._mark, self._since = [], 0, now, 0


class Clock:
    """Seconds of the phases of a run, on the clock and of this process's CPU, which does not count
    what others take of a busy core. All sittings of the run are added up, each to its last
    checkpoint. `share`: of this sitting, how many runs the process trained at once, in the mean of
    the run's calls; the run is told one part in so many.
    """

    def __init__(self):
        self._last, self.share = self._now(), 1.0
        self._own: list[dict[str, float]] = [{}, {}]  # of this sitting, on the clock and of the CPU
        self._before: list[dict[str, float]] = [{}, {}]

    def lap(self, phase: str) -> None:
        """`phase` ends here; it began where the last one ended."""
        self._last, self._own = self._now(), self._laps(phase)

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def _laps(self, phase: str) -> list[dict[str, float]]:
        """Of this sitting, with `phase` up to now."""
        since = [a - b for a, b in zip(self._now(), self._last)]
        return [{**own, phase: own.get(phase, 0.0) + s} for own, s in zip(self._own, since)]

    def _told(self, laps: list[dict[str, float]]) -> list[dict[str, float]]:
        return [
            {k: before.get(k, 0.0) + own.get(k, 0.0) / self.share for k in {**before, **own}}
            for before, own in zip(self._before, laps)
        ]

    @property
    def wall(self) -> dict[str, float]:
        return self._told(self._own)[0]

    @property
    def cpu(self) -> dict[str, float]:
        return self._told(self._own)[1]

    def state(self, phase: str) -> dict:
        """What a checkpoint keeps, taken in the middle of `phase`."""
        return dict(zip(("wall", "cpu"), self._told(self._laps(phase))))

    def go_on(self, state: dict) -> None:
        """Adds what earlier sittings took, each of them as it was told."""
        self._before = [state["wall"], state["cpu"]]

    def record(self, train: float) -> dict:
        """The `seconds` of a result."""
        return {
            "train": train,
            "setup": self.wall["setup"],
            "evaluate": self.wall["evaluate"],
            "total": sum(self.wall.values()),
        }
