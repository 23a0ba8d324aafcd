"""Counts a model exactly; nothing is trained and no device is used.

isoflop count --config=tiny_moe
isoflop count --config=tiny_dense --set model.d_model=768 --set model.n_layers=12 --set model.n_heads=12 --format=json
isoflop count --config=quickstart        every shape of a sweep
"""

import json
import sys

from experiments import cli
from experiments.plan import SweepJob
from experiments.verbs import common
from launch import config, hardware
from model import account
from model.config import check


def describe(model) -> dict:
    """The counts of one model as a JSON-ready dict."""
    return {
        "parameters": account.parameters(model),
        "flops_per_token": {
            name: {"training": n, **({"forward": n // 3} if name.startswith("matmul") else {})}
            for name, n in account.flops_per_token(model).items()
        },
    }


def _text(model, d, steps=None, batch=None) -> str:
    p, lines = d["parameters"], []
    lines.append(
        f"{config.family(model)} model: d_model {model.d_model}, {model.n_layers} layers, {model.n_heads} heads, {model.positions} positions, context {model.seq_len}, vocabulary {model.vocab_size}"
    )
    if model.moe_layers:
        lines.append(
            f"  {model.n_experts} experts, top-{model.top_k}, {model.f_expert} wide each; a token passes {model.top_k} x {model.f_expert} = {model.top_k * model.f_expert} hidden units"
        )
    lines.append("parameters")
    for group, n in p["groups"].items():
        if n:
            lines.append(f"  {group:<22}{n:>18,}   {n / p['total']:6.1%} of total")
    for name, text in (
        ("total", "total"),
        ("active", "active (experts of one token)"),
        ("non_embedding", "non-embedding"),
        ("active_non_embedding", "active non-embedding"),
        ("multiplied", "multiplied: the N of fits"),
    ):
        lines.append(f"  {text:<30}{p[name]:>10,}")
    if model.moe_layers:
        lines.append(
            f"  the router is {p['groups']['router'] / p['active']:.2%} of the active parameters; it is not compensated at equal active parameters"
        )
    lines.append("training FLOPs per token, by convention")
    for name, n in d["flops_per_token"].items():
        lines.append(f"  {name:<30}{n['training']:>10,}")
    if steps:
        tokens = steps * batch * model.seq_len
        lines.append(
            f"training: {steps:,} steps x {batch} sequences x {model.seq_len} = {tokens:,} tokens, {tokens * d['flops_per_token']['matmul']['training']:.4g} FLOPs (matmul)"
        )
    return "\n".join(lines)


def _body(fv) -> int:
    job = common.load(fv)
    if isinstance(job, SweepJob):
        from experiments import plan

        runs = {p.shape: p for p in plan.make(job, hardware.probe()[0]).runs}.values()
        found = [dict(describe(p.run.model), family=p.family, size=p.size) for p in runs]
        text = "\n\n".join(_text(p.run.model, d) for p, d in zip(runs, found))
        answer = {"shapes": found}
    else:
        try:
            check(job.run.model)
        except ValueError as e:
            raise config.ConfigError(str(e)) from None
        answer = describe(job.run.model)
        steps = config.steps(job.run)
        answer["training_tokens"] = steps * job.run.batch * job.run.model.seq_len
        answer["flops"] = {k: v["training"] * answer["training_tokens"] for k, v in answer["flops_per_token"].items()}
        text = _text(job.run.model, answer, steps, job.run.batch)
    print(json.dumps(answer) if fv.format == "json" else text)
    return 0


def main(argv=None) -> int:
    return cli.run("count", __doc__, cli.flag_values("config", "set"), sys.argv[1:] if argv is None else argv, _body)


if __name__ == "__main__":
    sys.exit(main())
