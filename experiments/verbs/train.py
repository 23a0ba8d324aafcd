"""Trains one model in a folder: metrics.jsonl and TensorBoard events on the way, result.json last.

isoflop train --config=tiny_dense --workdir=runs/dense
isoflop train --config=tiny_moe --workdir=runs/moe8 --mesh=data=2,fsdp=2,tensor=2 --set batch=8
isoflop train --config=tiny_dense --workdir=runs/text --set data.source=text \\
    --set "data.path=notes/*.md"
isoflop train --config=tiny_dense --workdir=runs/tuned --init_from=HF_DIR \\
    --set optimizer.lr=1e-4 --set model.seq_len=128

With --init_from the model is the one of a Hugging Face folder, weights included; the recipe gives
the rest. On a CPU a mesh of several devices is simulated. A finished folder is recognised and
nothing is trained again.
"""

import dataclasses
import json
import os
import sys

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.console import terminal
from experiments.console.lazy import Lazy
from experiments.verbs import common
from launch import config
from launch.config import Job
from launch.runs import predictions, record

choice = Lazy("launch.devices.choice")
environment_check = Lazy("launch.devices.environment_check")
checks = Lazy("launch.runs.checks")
compiled = Lazy("launch.runs.compiled")


def summary(r: dict) -> str:
    """A finished run in a few lines."""
    p, v = r["parameters"], r["validation"]
    bpb = f", {v['bits_per_byte']:.4f} bits per byte" if v["bits_per_byte"] else ""
    excess = (
        f"\nabove the source's own -log p: {v['excess']:.4f} +- {v['excess_se']:.4f} nats/token"
        if v["excess"] is not None
        else ""
    )
    said = r.get("prediction")
    held = f"\n{predictions.words(said)}" if said else ""
    return (
        f"run {r['id']} ({r['family']}): {p['total']:,} parameters, {p['active']:,} active,"
        f" {p['non_embedding']:,} non-embedding\n{r['training_tokens']:,} training tokens"
        f" ({r['epochs']:.2f} epochs), {r['flops']['matmul']:.4g} FLOPs (matmul)\nvalidation loss"
        f" {v['loss']:.4f} +- {v['se']:.4f} nats/token over {v['tokens']:,}"
        f" tokens{bpb}{excess}\n{r['seconds']['train']:.1f} s of training at"
        f" {r['tokens_per_s']:,.0f} tokens/s, {r['seconds']['setup']:.1f} s before it\n{_rates(r)}"
        f"{held}"
    )


def _rates(r: dict) -> str:
    o = r["run"]["optimizer"]
    return f"peak learning rate {o['lr']:.4g}, of the embedding {o['embed_lr'] or o['lr']:.4g}"


def _imported(job: Job, hf_dir: str) -> Job:
    """`job` with the model and the weights of a folder in Hugging Face's format."""
    from launch.huggingface import folder

    _, model, _ = folder.read_config(hf_dir)
    run = dataclasses.replace(job.run, model=model, init=folder.fingerprint(hf_dir))
    return dataclasses.replace(job, run=run, where=dataclasses.replace(job.where, init_from=hf_dir))


def own_tokenizer(job: Job, hf_dir: str, settings: list[str]) -> Job:
    """`job` with the tokenizer of the folder, where text is read, no --set and no recipe names one,
    and the model's vocabulary is not that of bytes.
    """
    from data.sources.registry import OTHERS
    from data.tokenizers import TOKENIZERS
    from launch.huggingface import tokenizer

    d, plain = job.run.data, type(job.run.data)()
    named = any(s.strip().startswith("data.tokenizer") for s in settings)
    bytes_fit = job.run.model.vocab_size == TOKENIZERS[plain.tokenizer](plain).vocab_size
    if named or d.tokenizer != plain.tokenizer or bytes_fit or d.source in OTHERS:
        return job
    found = tokenizer.beside(hf_dir)
    if found:
        print(f"isoflop train: text is read by {found['tokenizer_path']}", file=sys.stderr)
    run = dataclasses.replace(job.run, data=dataclasses.replace(d, **found))
    return dataclasses.replace(job, run=run)


def _prepared(fv) -> tuple[Job, dict]:
    """The job, and the sizes of its mesh, before jax is used."""
    from launch.devices import mesh

    change = (lambda job: _imported(job, fv.init_from)) if fv.init_from else None
    job = common.load(fv, Job, change)
    if fv.init_from:
        job = own_tokenizer(job, fv.init_from, getattr(fv, "set"))
    if not fv.workdir:
        raise UserError(
            "--workdir is missing: name the folder of the run, such as --workdir=runs/first"
        )
    return job, mesh.parse(job.where.mesh)


def _checked(job: Job) -> tuple[Job, dict]:
    """The job as it will run, and what must be equal in all processes that run it."""

    if job.where.members > 1:
        raise UserError(
            f"where.members={job.where.members} is for the runs of a sweep: leave it out"
        )
    run = checks.resolve(job.run, choice.probe()[0])
    checks.check(run, job.where)
    run = checks.identified(run, job.where)
    predictions.of(job.where.prediction, config.run_id(run))
    where = {
        k: v
        for k, v in config.to_dict(job.where).items()
        if k not in ("cache", "init_from", "prediction", "tensorboard", "track")
    }
    same = {"the run": config.run_id(run), **{f"where.{k}": v for k, v in where.items()}}
    return dataclasses.replace(job, run=run), {
        **same,
        "the commit": record.commit(),
        "the version of jax": record.versions()["jax"],
    }


def _body(fv) -> int:
    from launch.devices import mesh, multi_process

    environment_check.check()
    place = multi_process.flags(
        fv.coordinator, fv.processes, fv.process_id
    ) or multi_process.detect(os.environ)
    if place:
        job = multi_process.together(place, lambda: _prepared(fv), _checked)
    else:
        job, sizes = _prepared(fv)
        mesh.simulate(sizes)
        job, _ = _checked(job)
    run, folder = job.run, os.path.abspath(fv.workdir)
    done = record.result(folder)
    with common.stdout_to_stderr(fv.format == "json"):
        if done and done["id"] == config.run_id(run):
            print(f"{fv.workdir} holds this run, finished; nothing to do")
        compiled.use_cache(job.where.cache)
        result = _train(run, job.where, folder)
    if place and place.process:
        return 0  # process 0 speaks for all
    print(
        json.dumps(result)
        if fv.format == "json"
        else f"{summary(result)}\n{os.path.join(fv.workdir, record.RESULT)}"
    )
    if result.get("unlearned") and result["status"] == "finished":
        print(
            "isoflop train: not yet learned: the validation loss"
            f" {result['validation']['loss']:.2f} is above the unigram entropy"
            f" {result['unigram_entropy']:.2f} of the corpus, which the frequencies of its tokens"
            " alone give; train for longer, or try another optimizer.lr",
            file=sys.stderr,
        )
    if result["status"] != "finished":
        print(f"isoflop train: {result['status']}: {result['why']}", file=sys.stderr)
        return 1
    return 0


def _train(run, where, folder):
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from launch.runs import train

    console = terminal.console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("compiling", total=None)
        return train.train(
            run,
            where,
            folder,
            lambda done, total: bar.update(
                task, completed=done, total=total, description="training"
            ),
        )


def main(argv=None) -> int:
    fv = cli.flag_values("config", "workdir", "set", "mesh")
    flags.DEFINE_string(
        "init_from", "", "folder in Hugging Face's format to go on training from", flag_values=fv
    )
    flags.DEFINE_string(
        "coordinator",
        "",
        "HOST:PORT of process 0, where several processes train together",
        flag_values=fv,
    )
    flags.DEFINE_integer("processes", 1, "how many they are", lower_bound=1, flag_values=fv)
    flags.DEFINE_integer("process_id", 0, "which of them this is, from 0", flag_values=fv)
    return cli.run("train", __doc__, fv, sys.argv[1:] if argv is None else argv, _body)


if __name__ == "__main__":
    sys.exit(main())
