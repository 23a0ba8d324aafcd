"""The report: figures, the data table under each, and what was excluded. Everything from records is
escaped: nothing in a workdir can put markup into the page, and the page has no script.
"""

import contextlib
import os

from experiments.laws.failed_analyses import attempt
from experiments.planning.arms import ARMS
from experiments.report import answer_text, plotting
from experiments.report.elements import CSS, card, esc, span
from experiments.report.labels import LABEL
from experiments.report.plotting import COLOUR
from experiments.report.sections import (
    arm_comparison,
    batches,
    checklist,
    compute_optimal,
    contexts,
    dense_against_moe,
    efficiency_leverage,
    equal_time_and_memory,
    expert_load,
    frontiers,
    isoflop_curves,
    known_entropy,
    learning_rates,
    loss_against_compute,
    loss_by_position,
    parametric_law,
    predicted_against_actual,
    predictions,
    rollouts,
    runs_and_exclusions,
    sources_of_text,
)
from launch import files
from launch.runs import record

# in the order of the page; a new section is a file in sections/ with a function (results, curves,
# analysis) -> HTML, and an entry here
SECTIONS = (
    predictions.section,
    frontiers.section,
    contexts.section,
    batches.section,
    arm_comparison.section,
    sources_of_text.section,
    known_entropy.section,
    isoflop_curves.section,
    compute_optimal.section,
    loss_against_compute.section,
    dense_against_moe.section,
    efficiency_leverage.section,
    equal_time_and_memory.section,
    expert_load.section,
    parametric_law.section,
    rollouts.section,
    learning_rates.section,
    loss_by_position.section,
    predicted_against_actual.section,
    checklist.section,
    runs_and_exclusions.runs,
    runs_and_exclusions.excluded,
)


def read_curves(paths: list[str]) -> dict[str, list[dict]]:
    """metrics.jsonl files by the name of their folder; a missing or damaged file is no curve."""
    found = {os.path.basename(os.path.dirname(path)): record.lines(path) for path in paths}
    return {name: lines for name, lines in found.items() if lines}


def save(path: str, text: str) -> None:
    """Atomically."""
    try:
        files.write_text(path, text)
    except OSError as e:
        raise files.RecordError(f"{path} cannot be written ({e.strerror})") from None


def _answer(a: dict) -> str:
    """What a terminal shows at the end of the sweep; what belongs to a line above is indented."""

    def kind(line):
        return "" if line[0] not in " ." else " class=in"

    rows = "".join(
        f"<li{kind(line)}>{esc(line.strip().replace('in the report', 'below'))}</li>"
        for line in answer_text.lines(a, 2 * answer_text.MOST)
    )
    return (
        f"<section><h2>The answer</h2><ul class=answer>{rows}</ul><p class=read>Losses in"
        f" {esc(a['loss_unit'])}; brackets are {a['level']:.0%} intervals.</p></section>"
    )


def _cards(a: dict) -> str:
    """Where there are exponents: the figures that are cited most. Many arms have a table."""
    if len(a["families"]) > 4 or all(f["n_exponent"] is None for f in a["families"].values()):
        return ""
    out = []
    for family, f in a["families"].items():
        kind = family if family in COLOUR else "plain"
        if not f["parabolas"]:
            continue
        for key, name in (("n", "N"), ("d", "D")):
            what = f"{name}_opt, {LABEL.get(family, family)}"
            if f[f"{key}_exponent"] is None:
                out.append(card(kind, "not identified", f"{what}: fewer than two interior minima"))
            else:
                around = span(f.get(f"{key}_exponent_interval"), 2) or "unknown"
                out.append(
                    card(
                        kind,
                        f"{name} ∝ C^{f[f'{key}_exponent']:.2f}",
                        f"{what}; 95% interval {around}",
                    )
                )
    best = max((g for g in a["gaps"] if g["interval"]), key=lambda g: g["seeds"], default=None)
    if best:
        out.append(
            card(
                "plain",
                f"{best['gap']:+.3f} nats",
                f"MoE − dense per token, 95% interval {span(best['interval'], 3)}, {best['seeds']}"
                f" seeds; active parameters x{best['active_ratio']:.3f}, d_model"
                f" {best['size']}",
            )
        )
    return f'<div class="cards">{"".join(out)}</div>'


SHOWN = 5  # arms that a title names


def _arms(results) -> str:
    """dense against mixture of experts, or whatever the arms are."""
    order = list(ARMS)
    families = sorted(
        {r["family"] for r in results},
        key=lambda f: (order.index(f) if f in order else len(order), f),
    )
    names = [LABEL.get(f, str(f)) for f in families]
    if len(names) > SHOWN:
        return f"{'; '.join(names[:SHOWN])} and {len(names) - SHOWN} more arms"
    return " against ".join(names) if len(names) < 3 else "; ".join(names)


def _intro(name, results, a) -> str:
    kinds = sorted(
        {
            f"{r['device']['kind']} ({r['dtype'] if 'dtype' in r else r['run']['dtype']})"
            for r in results
        }
    )
    corpora = sorted({f"{r['corpus']} {r['fingerprints']['corpus']}" for r in results})
    sigma = "; ".join(
        f"{family} {f['noise']['sigma']:.3f} {a['loss_unit']} ({f['noise']['dof']} degrees of"
        " freedom)"
        for family, f in a["families"].items()
        if f["noise"]
    )
    return (
        f"<h1>{esc(name)}: {esc(_arms(results))}</h1><p class=sub>{len(results)} runs · N:"
        f" {esc(a['n_means'])} · C: {esc(a['c_convention'])} FLOPs · text:"
        f" {esc(', '.join(corpora))} · on {esc(', '.join(kinds))}"
        + (f" · noise of one run: {esc(sigma)}" if sigma else "")
        + "</p>"
    )


def render(
    name: str, results: list[dict], analysis: dict, curves: dict, figures: dict | None = None
) -> str:
    """The whole page as HTML text. `figures` takes every figure by its section's name, as (SVG
    text, PDF bytes).
    """
    a = record.finite(analysis)
    results = sorted(results, key=_order)
    parts = [
        _intro(name, results, a),
        _answer(a),
        _cards(a),
        *_made(results, curves, a, figures),
    ]
    versions = dict(results[0]["versions"])
    foot = [
        f"isoflop {versions.pop('isoflop', None)}",
        f"commit {results[0]['commit']}",
        *[f"{k} {v}" for k, v in versions.items()],
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
        ' content="width=device-width">'
        f"<title>{esc(name)}: isoflop report</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(parts)}<footer>{esc(' · '.join(foot))}</footer></main></body></html>\n"  # noqa: E501
    )


def _made(results, curves, a, figures: dict | None) -> list[str]:
    """The sections; one that cannot be made says so, and the others stand."""
    out = []
    for part in _sections(a):
        what, left_out = f"section {part.__module__.split('.')[-1]}", []
        with plotting.keeping() if figures is not None else contextlib.nullcontext([]) as kept:
            html = attempt(what, lambda part=part: part(results, curves, a), "", left_out)
        for i, drawn in enumerate(kept, 1):
            figures[what.removeprefix("section ") + (f"_{i}" if len(kept) > 1 else "")] = drawn
        out += [
            html,
            *(f"<section><p>{esc(e['what'])}: {esc(e['why'])}</p></section>" for e in left_out),
        ]
    return out


def _sections(a) -> list:
    """What the sweep was made for comes first: brackets of learning rates, where it finds no
    exponent; gaps, where every cell has several seeds.
    """
    exponents = any(f["n_exponent"] is not None for f in a["families"].values())
    first = [learning_rates.section] if a.get("brackets") and not exponents else []
    if a.get("critical_batch"):
        first = [batches.section]
    if answer_text.made_for_gaps(a) and not first:
        first = [dense_against_moe.section]
    return [*first, *(s for s in SECTIONS if s not in first)]


def _order(r: dict) -> tuple:
    tags, run = r["tags"], r["run"]
    return (
        tags.get("budget") or 0,
        tags.get("size") or 0,
        run["seed"],
        r["training_tokens"],
        r["family"],
        run["optimizer"]["lr"],
    )
