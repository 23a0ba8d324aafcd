"""Fits the runs of a sweep: isoFLOP minima, exponents, and L = E + A/N^alpha + B/D^beta where the runs identify it.

isoflop fit --workdir=runs/quickstart
isoflop fit --workdir=runs/quickstart --n=total --c=matmul_causal --format=json
"""

import json
import os
import sys

from absl import flags

from experiments import cli, sweep
from experiments.cli import UserError
from experiments.laws import analysis as laws
from experiments.verbs import common
from launch import record
from model import account


def analyse(results, resamples: int, n: str = "multiplied", c: str = "matmul") -> dict:
    """experiments.laws.analysis.analyse of results, ready for JSON."""
    return record.finite(laws.analyse(results, n, c, resamples))


def text(a: dict) -> str:
    """The answers in a few lines."""
    lines = [f"N: {a['n_means']}; C: {a['c_convention']} FLOPs; loss: {a['loss_unit']}; 95% intervals from {a['resamples']} resamples"]
    for family, f in a["families"].items():
        inside = sum(q["interior"] for q in f["parabolas"])
        lines.append(
            f"{family:<6} N_opt ~ C^{common.spread(f['n_exponent'], f.get('n_exponent_interval'))}   D_opt ~ C^{common.spread(f['d_exponent'], f.get('d_exponent_interval'))}"
            f"   ({inside} of {len(f['parabolas'])} minima interior)"
        )
        for q in f["parabolas"]:
            if q["interior"]:
                lines.append(
                    f"       C {q['flops']:.3g}: N_opt {common.number(q['n_opt'])}{_range(q.get('n_opt_interval'))}, D_opt {common.number(q['d_opt'])}, loss {common.spread(q['loss_opt'], q.get('loss_opt_interval'))}"
                )
        p = f["parametric"]
        fitted = (
            ""
            if "parameters" not in p
            else ": " + ", ".join(f"{k} {common.spread(p['parameters'][k], p['intervals'][k])}" for k in ("E", "alpha", "beta"))
        )
        lines.append(f"       E + A/N^alpha + B/D^beta: {p['verdict']}{fitted}")
    for g in a["gaps"]:
        if g["seeds"] > 1:
            lines.append(
                f"MoE - dense at equal active parameters and tokens, d_model {g['size']}, {common.number(g['tokens'])} tokens, {g['seeds']} seeds: {common.spread(g['gap'], g['interval'])} nats/token"
            )
    for e in a["equal_flops"]:
        lines.append(f"MoE - dense, best of each at {e['budget']:.3g} FLOPs: {common.spread(e['difference'], e['interval'])} nats/token")
    for e in a["known_entropy"]:
        if e["exponent"] is not None:
            lines.append(
                f"above the source's entropy, {e['family']} d_model {e['size']}: {', '.join(f'{x:.4f}' for x in e['excess'])} nats/token; falls as D^-{e['exponent']:.3f} (derived: D^-{e['derived']:.3f})"
            )
    edges = [v for v in a["learning_rates"] if v["edge"]]
    if a["learning_rates"]:
        lines.append(f"learning-rate brackets: {len(a['learning_rates'])}, best at the edge in {len(edges)}")
        lines += [
            f"  {v['family']:<6} d_model {v['size']}: best x{v['best_multiplier']:g} of {', '.join(f'{k}: {x:.4f}' for k, x in v['losses'].items())}{'  EDGE' if v['edge'] else ''}"
            for v in a["learning_rates"]
        ]
    lines += [f"flagged: {e['what']}: {e['why']}" for e in a["flagged"]]
    lines += [f"excluded: {e['what']}: {e['why']}" for e in a["excluded"]]
    return "\n".join(lines)


def _range(interval) -> str:
    return f" [{common.number(interval[0])}, {common.number(interval[1])}]" if interval else ""


def load(fv) -> list[dict]:
    """Results of --workdir. Raises UserError or RecordError."""
    if not fv.workdir:
        raise UserError("--workdir is missing: name the folder of a sweep")
    if not os.path.isdir(fv.workdir):
        raise UserError(f"--workdir={fv.workdir} does not exist: run isoflop sweep first")
    results = sweep.results(fv.workdir)
    if not results:
        raise UserError(f"--workdir={fv.workdir} holds no finished runs: run isoflop sweep --workdir={fv.workdir} first")
    return results


def conventions(fv) -> None:
    """Adds --n, --c and --bootstrap to the flags of fit and report."""
    flags.DEFINE_enum("n", "multiplied", list(laws.N_CONVENTIONS), "which parameters are N", flag_values=fv)
    flags.DEFINE_enum("c", "matmul", list(account.CONVENTIONS), "which FLOPs are C", flag_values=fv)
    flags.DEFINE_integer("bootstrap", 1000, "resamples behind the intervals", lower_bound=20, flag_values=fv)


def _body(fv) -> int:
    a = analyse(load(fv), fv.bootstrap, fv.n, fv.c)
    print(json.dumps(a) if fv.format == "json" else text(a))
    return 0


def main(argv=None) -> int:
    fv = cli.flag_values("workdir")
    conventions(fv)
    return cli.run("fit", __doc__, fv, sys.argv[1:] if argv is None else argv, _body)


if __name__ == "__main__":
    sys.exit(main())
