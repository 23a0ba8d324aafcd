"""Released models, their intermediate revisions and runs of one's own on the same text and the same
questions: one table, and with --out one CSV that isoflop fit reads (docs/tutorials).

isoflop evaluate --hf_dir=pythia-70m --hf_dir=pythia-160m --workdir=runs/dense \\
    --set data.source=text --set data.path=text.txt --out=suite.csv \\
    --tokens_trained=pythia-70m=300e9,pythia-160m=300e9
isoflop evaluate --hf_dir=pythia-70m --tasks=arc.jsonl --tasks=hellaswag.jsonl --format=json
isoflop fit --runs=suite.csv --law=chinchilla3 --loss=bits_per_byte

Text: windows of the validation split, byte for byte the same for all models, each in the tokens of
its own tokenizer. Without --set data.* it is the text of the first --workdir. Tasks: a line is
{"question": ..., "choices": [...], "answer": ...}. --tokens_trained names models by their folders.
"""

import json
import os
import sys

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.console.lazy import Lazy
from experiments.verbs import common, evaluate_text
from launch import files
from launch.runs import record

compiled = Lazy("launch.runs.compiled")
environment_check = Lazy("launch.devices.environment_check")
subjects = Lazy("launch.evaluation.subject")
texts = Lazy("launch.evaluation.text")
choices = Lazy("launch.evaluation.choices")
engine = Lazy("launch.evaluation.evaluate")
suite = Lazy("experiments.laws.runs.suite")

DTYPES = ("auto", "float32", "bfloat16")


def numbers(
    given: list[str], flag: str, names: list[str], most: float, such_as: str
) -> dict[str, float]:
    """NAME=NUMBER,... by name, whole numbers up to `most`. Raises UserError."""
    out: dict[str, float] = {}
    for pair in (p for text in given for p in text.split(",") if p.strip()):
        name, equals, value = pair.strip().rpartition("=")
        try:
            number = float(value) if equals else 0.0
        except ValueError:
            number = 0.0
        if not 1 <= number <= most or not number.is_integer():
            raise UserError(f"--{flag}={pair}: write NAME=TOKENS, such as {names[0]}={such_as}")
        if name not in names:
            raise UserError(f"--{flag}={pair}: no model is named {name}: {', '.join(names)}")
        if name in out:
            raise UserError(f"--{flag} names {name} twice")
        out[name] = number
    return out


def _say(text: str) -> None:
    print(f"isoflop evaluate: {text}", file=sys.stderr)


def _models(fv) -> list:
    """What is evaluated, in order: released models, then runs. Raises UserError and others."""
    if not fv.hf_dir and not fv.workdir:
        raise UserError(
            "nothing to evaluate: name folders of models by --hf_dir, folders of runs by --workdir"
        )
    names = subjects.names([*fv.hf_dir, *fv.workdir])
    released = names[: len(fv.hf_dir)]
    if (fv.tokens_trained or fv.trained_context) and not released:
        raise UserError("--tokens_trained and --trained_context are for --hf_dir; runs have theirs")
    trained = numbers(fv.tokens_trained, "tokens_trained", released, 1e18, "300e9")
    contexts = numbers(fv.trained_context, "trained_context", released, 1e9, "2048")
    named = [s for s in fv.set if s.strip().startswith("data.tokenizer")]
    tokenizer = common.data(named) if named else None
    out = [
        subjects.released(
            path,
            name,
            tokenizer,
            fv.context,
            fv.dtype,
            fv.begin,
            trained.get(name),
            int(contexts.get(name, 0)),
        )
        for path, name in zip(fv.hf_dir, released)
    ]
    rest = zip(fv.workdir, names[len(fv.hf_dir) :])
    return out + [subjects.own(path, name, fv.context, fv.dtype, _say) for path, name in rest]


def _text(fv, models: list):
    """The text that all read: the one that --set names, else that of the first run; None where
    tasks alone are asked. Raises UserError or DataError.
    """
    named = {s.partition("=")[0].strip() for s in fv.set}
    other = named & {"data.source", "data.path", "data.sources"}
    runs = [s.data for s in models if s.data is not None]
    if not runs and not other:
        if fv.tasks:
            return None
        raise UserError(
            "no text: name one, such as --set data.source=text --set data.path=FILE, or --tasks"
        )
    d = common.data(fv.set, None if other else runs[0])
    return texts.read(d, fv.window, "all" if fv.all else "validation")


def _tasks(paths: list[str]) -> dict:
    out = {}
    for path in paths:
        name = os.path.splitext(os.path.basename(path))[0]
        if name in out:
            raise UserError(f"--tasks={path}: a task is already named {name}: rename one")
        out[name] = choices.read(path)
    return out


def _evaluated(fv) -> dict:
    """The answer, ready for JSON."""
    common.data(fv.set)  # what is no field is said first
    tasks = _tasks(fv.tasks)
    if fv.out:
        common.check_out(fv.out)
    models = _models(fv)
    read = _text(fv, models)
    asked = [engine.prepared(s, read, tasks) for s in models]
    results, first, programs = [], None, {}
    for s, own in zip(models, asked):
        result, losses = engine.evaluated(s, read, own, fv.stream, programs)
        if losses and first:
            above, se = losses.against(first)
            result["above_first"] = {"bits_per_byte": above, "se": se}
        first = first or losses
        results.append(result)
        _say(evaluate_text.progress(result))
        for warning in evaluate_text.warnings(result, bool(fv.out)):
            _say(warning)
    about = None
    if read:
        about = {
            "corpus": read.corpus,
            "fingerprint": read.fingerprint,
            "split": "all" if fv.all else "validation",
            "window_bytes": read.size,
            "windows": read.windows,
            "texts": len(read.texts),
            "bytes": read.bytes,
        }
    return record.finite({"text": about, "tasks": list(tasks), "models": results})


def _body(fv) -> int:
    environment_check.check()
    compiled.use_cache()
    with common.stdout_to_stderr(True):
        a = _evaluated(fv)
    if fv.out:
        corpus = f"{a['text']['corpus']}:{a['text']['fingerprint']}" if a["text"] else ""
        rows = [suite.row(r, corpus) for r in a["models"]]
        files.write_text(os.path.abspath(fv.out), suite.text(rows))
    print(json.dumps(a) if fv.format == "json" else evaluate_text.text(a, fv.out))
    return 0


def main(argv=None) -> int:
    fv = cli.flag_values("set")
    flags.DEFINE_multi_string(
        "hf_dir",
        [],
        "folder of a released model, or of a revision of it; repeatable",
        flag_values=fv,
    )
    flags.DEFINE_multi_string(
        "workdir", [], "folder of a run of one's own; repeatable", flag_values=fv
    )
    flags.DEFINE_multi_string(
        "tokens_trained",
        [],
        "NAME=300e9,...: tokens that a released model was trained on; own runs know theirs",
        flag_values=fv,
    )
    flags.DEFINE_multi_string(
        "trained_context",
        [],
        "NAME=2048,...: the context of its training, which FLOPs are counted at [all positions]",
        flag_values=fv,
    )
    flags.DEFINE_multi_string(
        "tasks", [], "JSON lines of question, choices, answer; repeatable", flag_values=fv
    )
    flags.DEFINE_string("out", "", "CSV file to write, which isoflop fit reads", flag_values=fv)
    flags.DEFINE_integer(
        "window",
        2048,
        "bytes of text that a model reads at a time",
        lower_bound=1,
        flag_values=fv,
    )
    flags.DEFINE_integer(
        "context",
        0,
        "tokens that a model is given at most [those that it was made for]",
        lower_bound=0,
        flag_values=fv,
    )
    flags.DEFINE_bool(
        "all", False, "the whole text, not its validation split alone", flag_values=fv
    )
    flags.DEFINE_enum("dtype", "auto", DTYPES, "of the matmuls", flag_values=fv)
    flags.DEFINE_enum(
        "begin",
        "auto",
        ("auto", "always", "never"),
        "a token of a beginning before every text of a released model; auto: by its tokenizer",
        flag_values=fv,
    )
    flags.DEFINE_bool(
        "stream",
        None,
        "read the weights layer by layer, and hold one at a time [where they do not fit]",
        flag_values=fv,
    )
    return cli.run("evaluate", __doc__, fv, sys.argv[1:] if argv is None else argv, _body)


if __name__ == "__main__":
    sys.exit(main())
