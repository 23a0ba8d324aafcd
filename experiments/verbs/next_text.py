"""The answer of `isoflop next` as people read it."""

from experiments.report.labels import number
from experiments.verbs.law_text import big
from experiments.verbs.plan_text import duration
from experiments.verbs.prediction_text import loss
from launch.runs import predictions


def beyond(distance: float) -> str:
    return f"x{predictions.times(distance)} the largest budget of the sweep"


def _where(room) -> str:
    held = room.fit
    said = [f"{room.devices} devices, {room.where.mesh}" if room.devices > 1 else "one device"]
    said += [f"accumulate {room.where.accumulate}"] * (room.where.accumulate > 1)
    said += ["remat"] * room.where.remat
    of = "?" if held.limit is None else f"{held.limit / 1e9:.3g}"
    return f"{', '.join(said)}: {held.bytes / 1e9:.3g} of {of} GB, {duration(room.hours)}"


def text(a: dict, n, room, path: str) -> str:
    """What was chosen by which rule, what is predicted, and what to type."""
    p, run = a["prediction"], n.job.run
    model, o = run.model, run.optimizer
    best = p["optimum"]["n_opt"]
    known = f" ({best['words']})" if best.get("words") else ""
    around = p["parameters_interval"]
    mean = f"[{around[0]:.4f}, {around[1]:.4f}]" if around else "without an end"
    lines = [
        f"next after {p['sweep']} ({p['family']}): {p['flops']:.4g} FLOPs (matmul),"
        f" {beyond(p['distance'])}",
        f"  size       d_model {model.d_model}, {model.n_layers} layers: N {number(p['n'])}"
        f" ({p['conventions']['N']})",
        f"             N_opt {big(best)}{known}",
        f"             {n.rules['shape']}",
        f"  tokens     {number(p['tokens'])} in {p['steps']:,} steps,"
        f" {predictions.times(p['tokens'] / p['n'])} per parameter",
        f"  batch      {run.batch} x {model.seq_len}: {n.rules['batch']}",
        f"  rate       {o.lr:.4g}: {n.rules['rate']}",
        f"  where      {_where(room)}",
        f"  loss       {loss(p)} {p['conventions']['loss']}: {p['level']:.0%} prediction interval",
        f"             of the parameters {mean}, and the noise of one run {p['noise']:.2%}; by"
        f" {p['law']}: {p['formula']}",
        f"             the law: {p['verdict']}",
        "             the interval holds if the law does: the tally says how often it did",
    ]
    lines += [f"  note       {x}" for x in p["notes"]]
    if a["registered_before"]:
        lines.append(
            f"registered before, on {p['date']}: that prediction stands, sha256 {p['sha256'][:12]}"
        )
    elif path:
        lines.append(
            f"registered {p['date']}, sha256 {p['sha256'][:12]}, data"
            f" {p['data']['sha256'][:12]}, commit {(p['commit'] or 'unknown')[:12]}"
        )
    if path:
        folder = path.removesuffix(".py")
        lines.append(f"train it: isoflop train --config={path} --workdir={folder}")
    else:
        lines.append("nothing is registered (--dry_run)")
    return "\n".join(lines)
