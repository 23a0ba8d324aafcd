"""What a paper takes from a report: figures as SVG and PDF, tables as CSV and LaTeX, and a
paragraph of methods with the conventions filled in.
"""

import csv
import io
import os

from experiments.laws.conventions import n_of
from experiments.laws.runs import sweep_folder
from experiments.report.labels import LABEL
from launch import files

_TEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
_TEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}


def tex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(_TEX.get(c, c) for c in str(text))


def write_figures(folder: str, figures: dict[str, tuple[str, bytes]]) -> list[str]:
    """NAME.svg and NAME.pdf of every figure; returns the paths. Raises RecordError."""
    files.writable(folder, "--figures")
    out = []
    for name, (svg, pdf) in figures.items():
        path = os.path.join(folder, f"{name}.svg")
        files.write_text(path, svg)
        out.append(path)
        path = os.path.join(folder, f"{name}.pdf")
        with open(path, "wb") as f:
            f.write(pdf)
        out.append(path)
    return out


def quantities(a: dict) -> list[dict]:
    """{arm, quantity, value, low, high, verdict} of every law of an analysis; low and high None
    without an interval.
    """
    rows = []
    for family, f in a["families"].items():

        def add(name, value, span, verdict="", family=family):
            low, high = span or (None, None)
            row = {"arm": family, "quantity": name, "value": value, "low": low, "high": high}
            rows.append({**row, "verdict": verdict})

        for k in "nd":
            name = f"{k}_exponent"
            if f[name] is not None:
                add(f"{k.upper()}_opt ~ C^", f[name], f.get(f"{name}_interval"))
        p = f["parametric"]
        for k, v in p.get("parameters", {}).items():
            add(k, v, p["intervals"].get(k), "" if p["identified"] else p["verdict"])
    return rows


def _csv(rows: list[dict]) -> str:
    out = io.StringIO(newline="")
    w = csv.DictWriter(out, list(dict.fromkeys(k for r in rows for k in r)), lineterminator="\n")
    w.writeheader()
    w.writerows(rows)
    return out.getvalue()


def _number(v) -> str:
    return "--" if v is None else f"{v:.4g}"


def laws_tex(a: dict) -> str:
    """A tabular of `quantities`, plain LaTeX without packages."""
    lines = [
        "% N: " + a["n_means"] + "; C: " + a["c_convention"] + " FLOPs; loss: " + a["loss_unit"],
        r"\begin{tabular}{llrl}",
        r"\hline",
        r"arm & quantity & value & 95\% interval \\",
        r"\hline",
    ]
    for r in quantities(a):
        span = "" if r["low"] is None else f"[{_number(r['low'])}, {_number(r['high'])}]"
        mark = r"$^{*}$" if r["verdict"] else ""
        name = LABEL.get(r["arm"], r["arm"])
        cells = [tex(name), tex(r["quantity"]) + mark, _number(r["value"]), span]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\hline", r"\end{tabular}"]
    if any(r["verdict"] for r in quantities(a)):
        lines.append("% * not identified by these runs: shown for completeness, not for use")
    return "\n".join(lines) + "\n"


def methods(results: list[dict], a: dict) -> str:
    """A short paragraph of what was done, with the conventions."""
    arms = [LABEL.get(k, k) for k in a["families"]]
    budgets = sorted({q["flops"] for f in a["families"].values() for q in f["parabolas"]})
    runs = [r for r in results if r["id"] in set(a["fitted"])]
    tokens = [r["training_tokens"] for r in runs]
    sizes = [n_of(r["parameters"], a["n_convention"]) for r in runs]
    seeds = {r["run"]["seed"] for r in runs}
    spent = f" at {len(budgets)} budgets from {budgets[0]:.3g} to {budgets[-1]:.3g}" * bool(budgets)
    versions = results[0]["versions"]
    corpora = sorted({f"{r['corpus']} ({r['fingerprints']['corpus']})" for r in runs})
    return (
        f"We trained {len(runs)} models ({', '.join(arms)}) of {min(sizes):.3g} to"
        f" {max(sizes):.3g} parameters on {min(tokens):.3g} to {max(tokens):.3g} tokens{spent}"
        f" training FLOPs, with {len(seeds)} seed{'s' * (len(seeds) > 1)} at most, on"
        f" {', '.join(corpora)}. N counts {a['n_means']}; C counts {a['c_convention']} FLOPs of"
        f" training; losses are {a['loss_unit']} on held-out text. Of each learning-rate bracket"
        " the best run was used. Compute-optimal sizes are the minima of a parabola in log N at"
        " each budget (Hoffmann et al. 2022, approach 2) that lie inside the sampled sizes;"
        " exponents are log-log regressions through them. The parametric law is"
        " L = E + A/N^alpha + B/D^beta, fitted by the sum of Huber losses on log L from many"
        f" starts. Intervals are 95%, from {a['resamples']} resamples with noise drawn from the"
        " residuals and the seeds."
        f" {len(a['excluded'])} items were excluded, with reasons. isoflop"
        f" {versions.get('isoflop')}, jax {versions.get('jax')}, commit {results[0]['commit']}.\n"
    )


def write_tables(folder: str, results: list[dict], a: dict) -> list[str]:
    """runs.csv, laws.csv, laws.tex and methods.txt; returns the paths. Raises RecordError."""
    files.writable(folder, "--tables")
    n, c = a["n_convention"], a["c_convention"]
    texts = {
        "runs.csv": _csv([sweep_folder.run_row(r, n, c) for r in results]),
        "laws.csv": _csv(quantities(a)) if quantities(a) else "arm,quantity,value,low,high\n",
        "laws.tex": laws_tex(a),
        "methods.txt": methods(results, a),
    }
    out = []
    for name, text in texts.items():
        out.append(os.path.join(folder, name))
        files.write_text(out[-1], text)
    return out
