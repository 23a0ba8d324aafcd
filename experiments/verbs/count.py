"""Counts a model exactly: parameters, FLOPs, bytes; nothing is trained, and no device is used but
by --compile.

isoflop count --config=tiny_moe
isoflop count --config=tiny_dense --set model.d_model=768 --set model.n_layers=12 \\
    --set model.attention.n_heads=12 --format=json
isoflop count --config=quickstart    every shape of a sweep
isoflop count --hf_dir=DIR --context=8192 --set batch=8 --set dtype=bfloat16
    a config.json in Hugging Face's format is enough
isoflop count --hf_dir=DIR --elsewhere    how other codebases and papers count the same model
isoflop count --config=tiny_moe --compile
isoflop count --config=tiny_moe --mesh=data=2,expert=4 --set batch=8 --compile
    what each device holds and sends; on CPU simulated
isoflop count --config=tiny_moe --mesh=fsdp=4,expert=4 --set batch=16 --compile \\
    --topology=v5e:4x4
    the same for chips that are not here
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
from typing import TYPE_CHECKING

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.console.lazy import Lazy
from experiments.verbs import common
from launch import config, overrides
from launch.config import Job, Run
from model import optimizers
from model.config import Execution, Model
from model.optimizers import AdamW, Optimizer

if TYPE_CHECKING:
    from experiments.planning.grid import SweepJob

count_elsewhere = Lazy("experiments.verbs.count_elsewhere")
count_text = Lazy("experiments.verbs.count_text")
plans = Lazy("experiments.planning.grid")
choice = Lazy("launch.devices.choice")
mesh = Lazy("launch.devices.mesh")
account = Lazy("model.account")


def execution(run: Run, where, platform: str = "") -> Execution:
    """How the run would be executed on `platform`, that of this machine if empty: on one device, or
    on the mesh of `where`.
    """
    platform = platform or choice.probe()[0]
    dtype = choice.choice(platform).dtype if run.dtype == "auto" else run.dtype
    groups = mesh.rows(mesh.resolve(mesh.parse(where.mesh), 1))
    tokens, apart = run.batch * run.model.seq_len, run.data.documents == "apart"
    return choice.execution(run.model, where, dtype, platform, groups, tokens, apart)


def describe(c: Model, ex: Execution, batch: int, optimizer: Optimizer = AdamW()) -> dict:
    """The counts of one model as a JSON-ready dict; docs/counting.md defines every name."""
    micro = batch // ex.accumulate
    work, tokens = account.work(c, ex, micro), micro * c.seq_len

    update = optimizer.update_flops(account.inventory(c)) / (batch * c.seq_len)

    def third(n):
        return n // 3 if n % 3 == 0 else n / 3

    return {
        "family": config.family(c),
        "context": c.seq_len,
        "parameters": account.parameters(c),
        "flops_per_token": {
            name: {"forward": third(n), "training": n}
            for name, n in account.flops_per_token(c).items()
        },
        "executed_flops_per_token": {
            "forward": work.forward / tokens,
            "training": work.training(ex.remat) / tokens,
            **({"update": update} if update else {}),
        },
        "forward_shares": account.shares(c),
        "bytes": account.memory(c, ex, batch, optimizer),
        "assumed": {
            "batch": batch,
            "dtype": ex.dtype,
            "remat": ex.remat,
            "scan": ex.scan,
            "accumulate": ex.accumulate,
            **({"moe": ex.moe} if c.routed else {}),
            **({} if type(optimizer) is AdamW else {"optimizer": optimizers.name(optimizer)}),
        },
    }


def _checked(job: Job) -> Job:
    """`job` itself. Raises ConfigError; a run without a horizon is counted as well."""
    h = job.run.horizon
    config.check(
        job.run
        if h.steps or h.tokens or h.flops
        else dataclasses.replace(job.run, horizon=config.Horizon(steps=1))
    )
    config.check_moe(job.run.model, job.where)
    return job


def _load(fv) -> tuple[Job | SweepJob, dict]:
    """What is to be counted, and what is to be said of where it came from. Raises UserError or
    ConfigError.
    """
    if bool(fv.config) == bool(fv.hf_dir):
        raise UserError(
            "give one of --config (a recipe or FILE.py) and --hf_dir (a folder with config.json);"
            " --config is missing, or both are set"
        )
    if fv.hf_dir:
        from launch.huggingface import folder

        family, model, ignored = folder.read_config(fv.hf_dir, counting=True)
        job, said = Job(run=Run(model=model, batch=1)), {"hf_family": family, "ignored": ignored}
        job = overrides.set_fields(job, fv.set)
    else:
        job, said = common.load(fv), {}
    if fv.context is None:
        return job, said
    if fv.context < 1:
        raise UserError(f"--context={fv.context} must be at least 1 token")
    model = dataclasses.replace(job.run.model, seq_len=fv.context)
    return dataclasses.replace(job, run=dataclasses.replace(job.run, model=model)), said


def _compiled(run: Run, where, ex: Execution, topology: str) -> dict:
    """The compiler's figures: of one device, or of the mesh of `where`, over devices of this
    process or of a described topology; of a pack where `where.members` asks for one.
    """
    from launch.devices import compiled
    from launch.devices import members as packs

    sizes, members = mesh.parse(where.mesh), where.members if where.members > 1 else 0
    ex = packs.mapped(ex, "tpu" if topology else "") if members else ex
    over = functools.partial(compiled.over, run.model, ex, run.batch)
    if topology:
        return over(compiled.described(topology, sizes), run.optimizer, members)
    if not sizes:
        return compiled.figures(run.model, ex, run.batch, run.optimizer)
    mesh.simulate(sizes)
    import jax

    mesh.check(sizes, run.model, run.batch, jax.device_count(), where.accumulate)
    return over(mesh.make(sizes), run.optimizer, members)


def _single(job: Job, said: dict, fv) -> tuple[dict, str]:
    run, sizes = _checked(job).run, mesh.parse(job.where.mesh)
    if sizes:
        mesh.check(sizes, run.model, run.batch, math.prod(sizes.values()), job.where.accumulate)
    if sizes.get(mesh.MEMBER, 1) > 1 and job.where.members % sizes[mesh.MEMBER]:
        raise UserError(
            f"mesh axis member: set where.members to a multiple of {sizes[mesh.MEMBER]}"
        )
    if fv.topology and not (sizes and fv.compile):
        raise UserError(
            f"--topology={fv.topology} is compiled for: give --compile, and --mesh for how its"
            " chips are used"
        )
    ex = execution(run, job.where, "tpu" if fv.topology else "")
    answer = {**said, **describe(run.model, ex, run.batch, run.optimizer)}
    horizon = run.horizon
    if horizon.steps or horizon.tokens or horizon.flops:
        answer["steps"] = config.steps(run)
        answer["training_tokens"] = answer["steps"] * run.batch * run.model.seq_len
        answer["flops"] = {
            k: v["training"] * answer["training_tokens"]
            for k, v in answer["flops_per_token"].items()
        }
    if fv.elsewhere:
        answer["elsewhere"] = count_elsewhere.compare(run.model)
    if fv.compile:
        answer["compiler"] = _compiled(run, job.where, ex, fv.topology)
    return answer, count_text.text(run.model, answer)


def _sweep(job: SweepJob) -> tuple[dict, str]:
    from experiments.planning import grid

    config.check_moe(job.run.model, job.where)
    found, texts = [], []
    for p in {p.shape: p for p in grid.make(job, choice.probe()[0]).runs}.values():
        d = describe(p.run.model, execution(p.run, job.where), p.run.batch, p.run.optimizer)
        found.append({**d, "size": p.size})
        texts.append(count_text.text(p.run.model, d))
    return {"shapes": found}, "\n\n".join(texts)


def _body(fv) -> int:
    job, said = _load(fv)
    if isinstance(job, plans.SweepJob):
        if fv.compile or fv.elsewhere:
            raise UserError(
                f"--compile and --elsewhere count one model, {fv.config} is a sweep: give a recipe"
                " of a single run"
            )
        answer, text = _sweep(job)
    else:
        answer, text = _single(job, said, fv)
    print(json.dumps(answer) if fv.format == "json" else text)
    return 0


def main(argv=None) -> int:
    fv = cli.flag_values("config", "set", "mesh")
    flags.DEFINE_string(
        "hf_dir",
        "",
        "folder in Hugging Face's format, of which config.json is read",
        flag_values=fv,
    )
    flags.DEFINE_integer(
        "context", None, "tokens of a sequence, instead of the model's own", flag_values=fv
    )
    flags.DEFINE_bool(
        "compile",
        False,
        "also compile the training step for this machine's device and print the compiler's figures",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "topology",
        "",
        "TPU slice to compile for, such as v5e:4x4 or v5p:2x2x4; needs isoflop[tpu]",
        flag_values=fv,
    )
    flags.DEFINE_bool(
        "elsewhere",
        False,
        "also how other codebases and papers count the same model",
        flag_values=fv,
    )
    return cli.run("count", __doc__, fv, sys.argv[1:] if argv is None else argv, _body)


if __name__ == "__main__":
    sys.exit(main())
