"""mkdocs hook: makes the pages of the reference from the code, so that they cannot go stale."""

import ast
import dataclasses
import importlib
import inspect
import io
import os
import sys
import tokenize
from unittest import mock

from mkdocs.structure.files import File

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

# functions that a notebook or a script of one's own may call
PUBLIC = {
    "experiments.recipes": ("load",),
    "experiments.planning.grid": ("make",),
    "experiments.planning.fairness": ("matched",),
    "experiments.sweep": ("results",),
    "experiments.laws.notebook": ("fit", "compare", "predict"),
    "experiments.laws.runs.table": ("load", "read"),
    "experiments.laws.table_fit": ("ask",),
    "experiments.laws.sweep_analysis": ("analyse",),
    "launch.runs.train": ("train",),
    "launch.runs.evaluation": ("evaluate",),
    "launch.config": ("run_id", "steps"),
    "launch.overrides": ("set_fields",),
    "launch.devices.accelerators": ("device",),
    "model.account": (
        "parameters",
        "flops_per_token",
        "forward_flops",
        "memory",
        "executed_flops",
    ),
}


def cell(text) -> str:
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def table(columns, rows) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(r) + " |" for r in lines) + "\n"


def parser(verb: str):
    """The verb's docstring and flags, as the verb itself hands them over."""
    from experiments import cli

    with mock.patch.object(cli, "run", lambda verb, doc, fv, argv, body: (doc, fv)):
        return importlib.import_module(f"experiments.verbs.{verb}").main([])


def commands() -> str:
    from experiments import cli

    out = ["# Commands\n", "Made from the parser. `isoflop VERB --help` prints the same.\n"]
    for verb, what in cli.VERBS.items():
        doc, fv = parser(verb)
        rows = []
        for name in sorted(set(fv) - {"h", "help"}):
            f = fv[name]
            default = "" if f.default in ("", None, False, []) else f"`{f.default}`"
            text = " ".join(f.help.split()).split("; repeat this option")[0].split(">: ", 1)[-1]
            rows.append([f"`--{name}`", cell(text), default])
        out += [f"## {verb}\n", f"{what[0].upper()}{what[1:]}.\n"]
        out += ["```text", doc.strip(), "```\n", table(["flag", "meaning", "default"], rows)]
    return "\n".join(out)


def comments(cls) -> dict[str, str]:
    """What the comments beside and above each field of a dataclass say, inherited ones too."""
    bases = [base for base in reversed(cls.__mro__) if dataclasses.is_dataclass(base)]
    return {name: text for base in bases for name, text in _own_comments(base).items()}


def _own_comments(cls) -> dict[str, str]:
    source = inspect.getsource(cls)
    said = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            said[token.start[0]] = token.string.lstrip("# ")
    out, last = {}, 0
    for node in ast.parse(source).body[0].body:
        if isinstance(node, ast.AnnAssign):
            lines = range(last + 1, node.end_lineno + 1)
            out[node.target.id] = " ".join(said[n] for n in lines if n in said)
        last = node.end_lineno
    return out


def _choice(cls, name: str, prefix: str) -> list[str]:
    """What is said of a part or an optimizer that text may name."""
    from model import text

    about, rows = comments(cls), []
    for f in dataclasses.fields(cls):
        if f.name not in ("mixer", "mlp"):
            kind = getattr(f.type, "__name__", str(f.type))
            kind = "part" if f.default is None else "list" if kind == "tuple" else kind
            shown = "" if f.default is None else f"`{text.value(f.default)}`"
            rows.append([f"`{prefix}{f.name}`", f"`{kind}`", shown, cell(about[f.name])])
    out = [f"## {name}\n", inspect.getdoc(cls) + "\n"]
    return [*out, table(["field", "type", "default", "meaning"], rows)] if rows else out


def fields() -> str:
    from experiments.planning.grid import Sweep
    from launch.config import Run, Where
    from model import parts
    from model.config import Layer, Model
    from model.optimizers import OPTIMIZERS

    out = [
        "# Fields\n",
        "Every field that `--set field=value` reaches, made from the dataclasses.",
        "Fields of a run decide its result and its id. Fields of `where` decide neither.",
        "Fields of `sweep` exist in recipes that are sweeps.\n",
    ]

    def section(cls, prefix, value):
        about, rows, inner = comments(cls), [], []
        written = parts.to_dict(value, full=False) | parts.DEFAULTS if cls is Model else {}
        for f in dataclasses.fields(cls):
            v = getattr(value, f.name)
            if dataclasses.is_dataclass(v) and f.name not in written:
                inner.append((type(v), f"{prefix}{f.name}.", v))
                continue
            kind = str(f.type).replace("<class '", "").replace("'>", "")
            shown = "" if v == "" else f"`{v}`"
            if f.name in written:
                shown = f"`{written[f.name]}`" if written[f.name] else ""
                kind = "layers" if f.name in parts.LAYERS else f.name
            rows.append([f"`{prefix}{f.name}`", f"`{kind}`", shown, cell(about[f.name])])
        title = prefix.rstrip(".") or "run"
        out.extend([f"## {title}\n", inspect.getdoc(cls) + "\n"])
        out.append(table(["field", "type", "default", "meaning"], rows))
        for i in inner:
            section(*i)

    section(Run, "", Run())
    out.append("# Parts of a model\n")
    out.append(
        "What `model.pattern`, `model.positions`, `model.norm` and `model.parametrisation` may"
        " name.\n"
    )
    for cls, name in {Layer: "layer", **parts.NAMES}.items():
        out += _choice(cls, name, f"model.{name}.")
    out.append("# Optimizers\n")
    out.append("What `optimizer` may name, with its fields.\n")
    for name, cls in OPTIMIZERS.items():
        out += _choice(cls, name, "optimizer.")
    section(Where, "where.", Where())
    section(Sweep, "sweep.", Sweep())
    return "\n".join(out)


def recipes() -> str:
    from experiments import recipes

    out = ["# Recipes\n", "`--config=NAME`. Sweeps also at a scale: `--config=NAME:h200`.\n"]
    for name, module in recipes.RECIPES.items():
        m = importlib.import_module(module)
        body = inspect.getsource(m).split('"""', 2)[2].strip()
        out += [f"## {name}\n", inspect.getdoc(m) + "\n", f"```python\n{body}\n```\n"]
    return "\n".join(out)


def laws() -> str:
    from experiments.laws.fitting import law_forms

    rows = []
    for name, form in law_forms.FORMS.items():
        rows.append([f"`{name}`", cell(form.formula), cell(form.source), ", ".join(form.names)])
    return (
        "# Laws\n\nForms that `isoflop fit --law=NAME` knows, made from"
        " `experiments/laws/fitting/law_forms.py`. The procedures `chinchilla1`, `chinchilla2` and"
        " `chinchilla2_interpolated` are described in [Laws and error bars](../laws.md).\n\n"
        + table(["name", "formula", "source", "parameters"], rows)
    )


def devices() -> str:
    from launch.devices.accelerators import DEVICES

    def shown(d, field, unit, scale):
        v = getattr(d, field)
        return cell(f"{v / scale:.4g} {unit}" if v is not None else "unknown")

    rows = []
    for d in DEVICES.values():
        said = "; ".join(f"{k}: {v}" for k, v in d.sources.items())
        figures = [("peak", "TFLOP/s", 1e12), ("memory", "GB", 1e9), ("watts", "W", 1)]
        rows.append([d.name, *(shown(d, *f) for f in figures), cell(said)])
    return (
        "# Devices\n\nWhat `isoflop plan` and the MFU of a record use, made from"
        " `launch/devices/accelerators.py`. Peaks are dense bfloat16 with float32 sums, never the"
        " figure with sparsity. What no source gives is unknown, and `--peak_flops`, `--memory` and"
        " `--watts` of `isoflop plan` say it instead.\n\n"
        + table(["device", "peak", "memory", "board power", "sources"], rows)
    )


def python() -> str:
    out = [
        "# Python\n",
        "Functions that a notebook or a script of your own may call, with their docstrings.\n",
    ]
    for module, names in PUBLIC.items():
        m = importlib.import_module(module)
        out.append(f"## {module}\n")
        for name in names:
            f = getattr(m, name)
            out.append(f"### {module.rpartition('.')[2]}.{name}\n")
            out.append(f"```python\n{name}{inspect.signature(f)}\n```\n")
            out.append((inspect.getdoc(f) or "") + "\n")
    return "\n".join(out)


def copied(name: str):
    """A file of the repository's root as a page, with links to the pages as they are from there."""
    with open(os.path.join(ROOT, name)) as f:
        return f.read().replace("](docs/", "](")


PAGES = {
    "reference/commands.md": commands,
    "reference/fields.md": fields,
    "reference/recipes.md": recipes,
    "reference/laws.md": laws,
    "reference/devices.md": devices,
    "reference/python.md": python,
    "changelog.md": lambda: copied("CHANGELOG.md"),
    "log.md": lambda: copied("LOG.md"),
}


def on_files(files, config):
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    return files
