"""The batch of a sweep by a law of the critical batch size, as the recipe `batch` measures it."""

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Sequence

from experiments.planning.grid import SweepJob
from launch import files
from launch.config import ConfigError
from model import account


def law(workdir: str) -> dict:
    """What the folder of a finished `batch` sweep says. Raises ConfigError."""
    path = os.path.join(workdir, "analysis.json")
    if not os.path.exists(path):
        raise ConfigError(
            f"--batch_law={workdir} holds no analysis.json: name the folder of a finished sweep of"
            " the recipe batch"
        )
    found = files.read_json(path, "analysis").get("critical_batch")
    if not isinstance(found, dict) or "parameters" not in found:
        raise ConfigError(f"--batch_law={workdir} has no law of the batch: sweep the recipe batch")
    return found


def middle(job: SweepJob) -> tuple[int, float]:
    """Parameters that a token is multiplied by, and training tokens, of the sweep's middle run."""
    s, run = job.sweep, job.run
    model = s.shape(run, sorted(s.sizes)[len(s.sizes) // 2])

    def mean(values):
        return math.exp(sum(map(math.log, values)) / len(values))

    n = account.parameters(model)["multiplied"]
    if s.budgets:
        return n, mean(s.budgets) / account.flops_per_token(model)["matmul"]
    return n, mean(s.tokens)


def by(workdir: str, pinned: Collection[str] = ()) -> Callable:
    """(job, notes) -> the job with the batch of that folder's law, and the notes with its own in
    the place of the ladder's; as they are without a folder, or where --set pins the batch.
    """
    found = law(workdir) if workdir else None

    def batched(job: SweepJob, notes: Sequence[str] = ()) -> tuple[SweepJob, list[str]]:
        if found is None:
            return job, list(notes)
        if "batch" in pinned:
            return job, [*notes, "batch: as --set has it, not by --batch_law"]
        batch, said = _chosen(job, found)
        run = dataclasses.replace(job.run, batch=batch)
        others = [n for n in notes if not n.startswith("batch:")]
        return dataclasses.replace(job, run=run), [*others, said]

    return batched


def _chosen(job: SweepJob, found: dict) -> tuple[int, str]:
    """The batch that the law allows at the middle run's tokens, a power of two of sequences, and
    that in words.
    """
    p, (n, d), window = found["parameters"], middle(job), job.run.model.seq_len
    critical = p["k"] * (n / 1e6) ** p["a"] * (d / 1e9) ** p["b"]
    allowed = found["overhead"] * critical
    batch = 2 ** math.floor(math.log2(max(1.0, allowed / window)))
    batch = -(-batch // job.run.model.unit) * job.run.model.unit
    beyond = []
    for what, value in (("n", n), ("tokens", d)):
        seen = [c[what] for c in found["cells"]]
        if not min(seen) <= value <= max(seen):
            name = {"n": "parameters", "tokens": "tokens"}[what]
            beyond.append(f"{min(seen):.3g} to {max(seen):.3g} {name}")
    doubt = f"; an extrapolation: measured at {' and '.join(beyond)}" if beyond else ""
    if allowed < window:
        doubt += "; a single sequence is more than that"
    return batch, (
        f"batch: {batch} sequences of {window} tokens by --batch_law: at {n:.3g} parameters and"
        f" {d:.3g} tokens the critical batch is {critical:.3g} tokens, and {allowed:.3g} want"
        f" {found['overhead']:.0%} more tokens than small batches{doubt}"
    )
