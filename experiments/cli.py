"""`isoflop VERB --flags`: a dispatcher over programs that also run as `python -m
experiments.verbs.VERB`.
"""

import importlib
import sys
import textwrap
from collections.abc import Callable

from absl import flags

from data.config import DataError
from experiments.console import terminal
from experiments.console.terminal import printable
from experiments.laws.exceptions import FitError
from launch.config import ConfigError
from launch.files import RecordError
from launch.runs import preempt
from launch.runs.preempt import Preempted

VERBS = {
    "train": "train one model and record its three numbers",
    "plan": "what a sweep will cost: hours, memory, money, energy, carbon",
    "sweep": "plan, train, fit and report an isoFLOP sweep; typed again, it goes on",
    "status": (
        "where the runs of a sweep stand: done, running, waiting, failed, diverged, time left"
    ),
    "fit": "fit scaling laws to the runs of a sweep, or to any table of runs",
    "compare": "two sweeps, arms or tables: the compute that one saves, with a band",
    "next": "after a sweep: a recipe for a larger budget, its loss predicted and registered",
    "predictions": "what was predicted of larger runs, what came of it, and the tally",
    "reproduce": "repeat a published fit from its authors' runs",
    "report": "write the HTML report of a sweep",
    "coordinates": "whether activations keep their sizes over widths or depths",
    "count": "parameters, FLOPs and bytes of a model by every convention, without training",
    "sample": "text from a trained run",
    "data": "prepare a corpus, and see what is in it",
    "tokenizer": "train a tokenizer on a corpus, or show what one makes of a text",
    "logits": "logits of a model in Hugging Face's format",
    "evaluate": "loss and accuracy of released models and own runs on the same text, as a table",
    "export": "write a trained run in Hugging Face's format",
    "bench": "time a part of the product on this machine",
}

USAGE = """isoflop: what does scale buy?

usage: isoflop VERB [--flag=value ...]

{verbs}

  isoflop VERB --help    its flags and examples
  isoflop sweep --config=quickstart --workdir=runs/quickstart    dense against MoE in five minutes on two cores
"""  # noqa: E501


class UserError(ValueError):
    """Bad input; the message is one line that says what is wrong and what to do."""


_SHARED = {
    "config": (
        flags.DEFINE_string,
        "",
        (
            "NAME of a recipe, or FILE.py that defines recipe(); of a sweep also NAME:SCALE (tiny,"
            " h200, pod)"
        ),
    ),
    "workdir": (flags.DEFINE_string, "", "folder of the run or sweep"),
    "set": (
        flags.DEFINE_multi_string,
        [],
        "field=value; repeatable, such as --set model.d_model=128 --set where.remat=true",
    ),
    "mesh": (
        flags.DEFINE_string,
        "",
        (
            "sizes of the axes data, fsdp, tensor, expert, such as data=2,fsdp=2,tensor=2; default:"
            " all devices on data"
        ),
    ),
}


def flag_values(*names: str) -> flags.FlagValues:
    """FlagValues with `--format`, `--help` and the shared flags that are named."""
    fv = flags.FlagValues()
    for name in names:
        define, default, text = _SHARED[name]
        define(name, default, text, flag_values=fv)
    flags.DEFINE_enum(
        "format",
        "text",
        ["text", "json"],
        "json: one JSON object on stdout, everything else on stderr",
        flag_values=fv,
    )
    flags.DEFINE_bool("help", False, "this text", flag_values=fv, short_name="h")
    return fv


def _help(verb: str, doc: str, fv: flags.FlagValues) -> str:
    lines = [f"isoflop {verb}: {VERBS[verb]}", "", doc.strip(), "", "flags:"]
    for name in sorted(set(fv) - {"h"}):
        f = fv[name]
        values = (
            f" ({' | '.join(f.parser.enum_values)})" if hasattr(f.parser, "enum_values") else ""
        )
        default = f" [default: {f.default}]" if f.default not in ("", None, False, []) else ""
        lines += textwrap.wrap(
            f.help + values + default,
            100,
            initial_indent=f"  --{name:<12} ",
            subsequent_indent=" " * 17,
        )
    return "\n".join(lines) + "\n"


def run(verb: str, doc: str, fv: flags.FlagValues, argv: list[str], body: Callable) -> int:
    """Parses `argv` and calls `body(fv)`. Returns the exit status: 2 and one line on stderr for bad
    input.
    """
    return terminal.careful(f"isoflop {verb}", lambda: _run(verb, doc, fv, argv, body))


def _run(verb: str, doc: str, fv: flags.FlagValues, argv: list[str], body: Callable) -> int:
    try:
        rest = fv(["isoflop", *argv])[1:]
        if fv.help:
            print(_help(verb, doc, fv), end="")
            return 0
        if rest:
            raise UserError(f"unexpected argument {rest[0]!r}: flags are written --name=value")
        return body(fv) or 0
    except (UserError, ConfigError, DataError, RecordError, FitError, flags.Error) as e:
        print(f"isoflop {verb}: {printable(e).replace('flags::', '')}", file=sys.stderr)
        return 2
    except Preempted as e:
        print(f"isoflop {verb}: {e}", file=sys.stderr)
        return preempt.STATUS
    except KeyboardInterrupt:
        print(
            f"isoflop {verb}: interrupted; the same command goes on where this one stopped",
            file=sys.stderr,
        )
        return 130


def main(argv: list[str] | None = None) -> int:
    """Entry point of the `isoflop` command."""
    argv = sys.argv[1:] if argv is None else argv
    return terminal.careful("isoflop", lambda: _dispatch(argv))


def _dispatch(argv: list[str]) -> int:
    usage = USAGE.format(verbs="\n".join(f"  {v:<11} {text}" for v, text in VERBS.items()))
    if not argv or argv[0] in ("-h", "--help", "--helpfull", "help"):
        print(usage, end="")
        return 0 if argv else 2
    if argv[0] not in VERBS:
        import difflib

        near = difflib.get_close_matches(argv[0], VERBS, 1)
        hint = f" did you mean {near[0]}?" if near else ""
        print(
            f"isoflop: unknown verb {argv[0]!r}:{hint} verbs are {', '.join(VERBS)}",
            file=sys.stderr,
        )
        return 2
    return importlib.import_module(f"experiments.verbs.{argv[0]}").main(argv[1:])


if __name__ == "__main__":
    sys.exit(main())
