"""The answer of a sweep in at most ten lines, the best first: what a terminal shows at its end, and
a report at its top. All the rest stands in analysis.json and further down in the report.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from experiments.laws.comparisons.moe_gaps import what_is_equal
from experiments.report import labels
from experiments.report.labels import LABEL

MOST = 10


class Block(NamedTuple):
    """The answer to one question: lines that always stand, and lines that stand where there is
    room.
    """

    answer: list[str]
    cells: list[str]


def made_for_gaps(a: dict) -> bool:
    """Several seeds in every cell were trained for the gap of dense and MoE, one for the curves."""
    return bool(a["gaps"]) and all(g["seeds"] > 1 for g in a["gaps"])


def lines(a: dict, most: int = MOST) -> list[str]:
    """What the sweep was made for comes first."""
    gaps = [_pairs(a), _best(a)]
    curves = _exponents(a)
    last = Block([], [f"  {line}" for line in curves.answer])
    blocks = [
        _moves(a),
        _brackets(a),
        _arms(a),
        *([*gaps, last] if made_for_gaps(a) else [curves, *gaps]),
    ]
    if a["known_entropy"]:
        blocks.insert(0, _known_floor(a))
    for special in (_frontiers(a), _contexts(a), _batch(a)):
        if special.answer:  # then all else is beside it
            blocks = [special, *(Block([], [*b.answer, *b.cells]) for b in blocks)]
    if not any(b.answer or b.cells for b in blocks):
        return ["nothing to compare: one size, one arm, one rate"]
    return _fitted(blocks, most)


def _fitted(blocks: list[Block], most: int) -> list[str]:
    """All answers, and as many cells as there is room for."""
    every = sum(len(b.answer) + len(b.cells) for b in blocks)
    most -= every > most  # a line says how many more there are
    room = most - sum(len(b.answer) for b in blocks)
    out = []
    for b in blocks:
        shown = b.cells[: max(0, room)]
        room -= len(shown)
        out += [*b.answer, *shown]
    out = out[:most]
    left = every - len(out)
    return [*out, f"... {left} more line{'s' * (left > 1)} in the report"] if left else out


def _name(family: str) -> str:
    return LABEL.get(family, family)


def _spent(row: dict) -> str:
    tokens = f"{labels.number(row['tokens'])} tokens"
    return f"{row['budget']:.3g} FLOPs" if row.get("budget") else tokens


def _brackets(a) -> Block:
    """Where the best rate is, and whether the ladder's rule (x1) is near it."""
    rows = a["brackets"]
    cells = defaultdict(list)
    for r in rows:
        cells[r["family"], r["size"], r["budget"] or 0, r["tokens"]].append(r)
    out = []
    for family in dict.fromkeys(r["family"] for r in rows):
        own = [c for k, c in cells.items() if k[0] == family]
        best = [next(r for r in c if r["best"]) for c in own]
        count = {
            m: sum(r["multiplier"] == m for r in best) for m in {r["multiplier"] for r in best}
        }
        won = ", ".join(
            f"x{m:g} in {n} of {len(own)}" for m, n in sorted(count.items(), key=lambda kv: -kv[1])
        )
        beaten = sum(any(r["gap_interval"] and r["gap_interval"][1] < 0 for r in c) for c in own)
        edge = sum(
            b["multiplier"] in (min(r["multiplier"] for r in c), max(r["multiplier"] for r in c))
            for b, c in zip(best, own)
        )
        out.append(
            f"{_name(family)}: best rate {won} brackets; the ladder's rule (x1) is beaten beyond"
            f" the noise in {beaten}" + (f"; {edge} at an EDGE of the bracket" if edge else "")
        )
    ranked = sorted(cells.items(), key=lambda kv: min(r["loss"] for r in kv[1]))
    return Block(out, [_bracket(family, size, c, a["dial"]) for (family, size, *_), c in ranked])


def _bracket(family: str, size, rows: list[dict], dial: str) -> str:
    best = min(rows, key=lambda r: r["loss"])
    rule = [r["loss"] - best["loss"] for r in rows if r["multiplier"] == 1]
    than = "" if best["multiplier"] == 1 or not rule else f", {rule[0]:.4f} below the rule's"
    return (
        f"  {_name(family)}, {dial} {size}, {_spent(best)}: x{best['multiplier']:g}, loss"
        f" {labels.spread(best['loss'], best['interval'])}{than}"
    )


def _moves(a) -> Block:
    """Of arms under several parametrisations: the best rate of every size, and how far it moves."""
    rows = a.get("best_rates") or []
    if len(a.get("parametrisations") or []) < 2:
        return Block([], [])
    out = []
    for key in dict.fromkeys((r["family"], r["budget"], r["budget"] or r["tokens"]) for r in rows):
        own = [r for r in rows if (r["family"], r["budget"], r["budget"] or r["tokens"]) == key]
        best = ", ".join(f"{r['best']:.3g}{' (EDGE)' * r['edge']}" for r in own)
        moved = [r["moved"] for r in own]
        sizes = ", ".join(str(r["size"]) for r in own)
        out.append(
            f"{_name(key[0])}: best rate {best} at {a['dial']} {sizes}: moves by"
            f" x{max(moved) / min(moved):.3g}"
        )
    return Block(out, [])


def _batch(a) -> Block:
    """The critical batch of every size and length."""
    found = a.get("critical_batch")
    if not found:
        return Block([], [])
    out = [f"law of the critical batch: {found['verdict']}"]
    cells = []
    for c in sorted(found["cells"], key=lambda c: (-c["tokens"], c["size"])):
        around = c["interval"]
        span = f" [{', '.join(map(labels.number, around))}]" if around else ""
        cells.append(
            f"  {a['dial']} {c['size']}, {labels.number(c['tokens'])} tokens:"
            f" {labels.number(c['critical'])}{span} tokens; {labels.number(c['allowed'])} want"
            f" {found['overhead']:.0%} more tokens than small batches"
        )
    return Block(out, cells)


def _signs(rows: list[dict]) -> str:
    """In how many cells the interval of a gap lies on one side of zero."""
    known = [r["gap_interval"] for r in rows if r["gap_interval"]]
    below, above = sum(i[1] < 0 for i in known), sum(i[0] > 0 for i in known)
    open_ = len(rows) - below - above
    return f"lower beyond the noise in {below} of {len(rows)} cells, higher in {above}" + (
        f", open in {open_}" if open_ else ""
    )


def _arms(a) -> Block:
    """Arms other than dense and MoE: the mean difference from the reference, best first."""
    rows = a["arms"]
    if not {r["family"] for r in rows} - {"dense", "moe"}:
        return Block([], [])
    base, arms = rows[0]["reference"], {}
    for family in dict.fromkeys(r["family"] for r in rows):
        arms[family] = [r for r in rows if r["family"] == family and r["gap"] is not None]
    mean = {f: float(np.mean([r["gap"] for r in own])) if own else 0.0 for f, own in arms.items()}
    out = []
    for family in sorted(mean, key=mean.get):
        own = arms[family]
        if family == base:
            out.append(f"{_name(base)}: the reference")
        elif not own:
            out.append(f"{_name(family)}: no cell and seed in common with {_name(base)}")
        else:
            out.append(
                f"{_name(family)}: loss {mean[family]:+.4f} from {_name(base)};"
                f" {_signs(own)} ({measured(own, a['c_convention'])})"
            )
    cells = [r for r in rows if r["gap"] is not None]
    return Block(
        out,
        [
            f"  {_name(r['family'])}, {a['dial']} {r['size']}, {_spent(r)}, {_seeds(r)}:"
            f" {labels.spread(r['gap'], r['gap_interval'])}"
            for r in sorted(cells, key=lambda r: r["gap"])
        ],
    )


def _frontiers(a) -> Block:
    """Of an isoFLOP sweep of several arms: the best of each at the largest budget where both have a
    minimum, lowest first.
    """
    answer, more = [], []
    for r in a["frontiers"]:
        for e in sorted(r["gaps"], key=lambda e: -e["flops"])[:1]:
            times = next((m for m in r["multipliers"] if m["budget"] == e["budget"]), None)
            compute = ""
            if times and times["leverage"]:
                more_of_it = labels.spread(times["leverage"], times["interval"])
                compute = f"; {_name(r['reference'])} needs x{more_of_it} the compute for it"
            gap = labels.spread(e["difference"], e["interval"])
            what = f"best at {e['flops']:.3g} {a['c_convention']} FLOPs"
            answer.append((e["difference"], f"{_name(r['family'])}: {what}: {gap}{compute}"))
        if r["family"] != r["reference"] and not r["gaps"]:
            more.append(
                f"  {_name(r['family'])}: no budget where it and the reference have a minimum"
            )
    if not answer:
        return Block([], more)
    base = _name(a["frontiers"][0]["reference"])
    head = f"loss minus {base}'s at equal FLOPs, best of each ({a['loss_unit']}):"
    return Block([head, *(f"  {line}" for _, line in sorted(answer))], more)


def _contexts(a) -> Block:
    """What each arm gains from its longest context over its shortest, most first."""
    lines = []
    for arm in dict.fromkeys((r["arm"], r["size"]) for r in a["contexts"]):
        own = [r for r in a["contexts"] if (r["arm"], r["size"]) == arm and r["gain"] is not None]
        if not own:
            continue
        last = max(own, key=lambda r: r["context"])
        lines.append(
            (
                last["gain"],
                f"{_name(arm[0])}, {a['dial']} {arm[1]}: {last['context']:,} tokens of context"
                f" instead of {last['shortest']:,} gain"
                f" {labels.spread(last['gain'], last['gain_interval'])} {a['loss_unit']}",
            )
        )
    rest = [r for r in a["contexts"] if r["gain"] is not None]
    return Block(
        [line for _, line in sorted(lines, reverse=True)],
        [
            f"  {_name(r['arm'])}, {r['context']:,} tokens, {_seeds(r)}: gain"
            f" {labels.spread(r['gain'], r['gain_interval'])}"
            for r in rest
        ],
    )


def measured(rows: list[dict], c: str) -> str:
    """Active parameters, FLOPs and tokens over the reference's, the means over cells."""

    def mean(k):
        return float(np.mean([r[k] for r in rows]))

    tokens = mean("tokens_ratio")
    return f"active x{mean('active_ratio'):.3f}, {c} FLOPs x{mean('flops_ratio'):.3f}" + (
        f", tokens x{tokens:.3f}" if abs(tokens - 1) > 1e-9 else ""
    )


def _seeds(r: dict) -> str:
    return f"{r['seeds']} seed{'s' * (r['seeds'] > 1)}"


def _exponents(a) -> Block:
    """Where two budgets or more were trained: how size and tokens grow, and the law behind."""
    out, laws = [], []
    for family, f in a["families"].items():
        if len(f["parabolas"]) < 2:
            continue
        inside = sum(q["interior"] for q in f["parabolas"])
        if f["n_exponent"] is None:
            out.append(
                f"{family:<6} no exponents: {inside} of {len(f['parabolas'])} minima lie inside the"
                " sizes, and two are needed"
            )
        else:
            out.append(
                f"{family:<6} N_opt ~ C^"
                f"{labels.spread(f['n_exponent'], f.get('n_exponent_interval'))}"
                f"   D_opt ~ C^{labels.spread(f['d_exponent'], f.get('d_exponent_interval'))}"
                f"   ({inside} of {len(f['parabolas'])} minima interior)"
            )
        laws.append(f"{family:<6} {_law(f['parametric'])}")
    return Block([*out, *laws], [])


def _law(p: dict) -> str:
    name = "L = E + A/N^alpha + B/D^beta"
    doubt = str(p.get("verdict", "")).startswith("borderline")
    if "parameters" not in p or not (p.get("identified") or doubt):
        return f"{name}: not identified by these runs"
    values = (f"{k} {labels.spread(p['parameters'][k], p['intervals'][k])}" for k in _SHOWN)
    return f"{name}: {', '.join(values)}{' (borderline)' * doubt}"


_SHOWN = ("E", "alpha", "beta")


def _known_floor(a) -> Block:
    """The source's entropy: whether the floor is found again, and how the excess falls."""
    rows = [e for e in a["known_entropy"] if e["exponent"] is not None]
    return Block(
        [f"{e['family']}: {e['words']}" for e in a["floors"]],
        [
            f"  {_name(e['family'])}, {a['dial']} {e['size']}: {e['excess'][-1]:.4f} nats/token"
            f" above the source at {labels.number(e['tokens'][-1])} tokens; falls as"
            f" D^-{e['exponent']:.3f} (derived: D^-{e['derived']:.3f})"
            for e in sorted(rows, key=lambda e: e["excess"][-1])
        ],
    )


def _pairs(a) -> Block:
    """MoE against dense in every cell with several seeds, largest effect first."""
    rows = [g for g in a["gaps"] if g["seeds"] > 1]
    if not rows:
        return Block([], [])
    signs = _signs([{"gap_interval": g["interval"]} for g in rows])
    return Block(
        [f"MoE - dense {what_is_equal(rows, a['c_convention'])}: loss {signs}"],
        [
            f"  {a['dial']} {g['size']}, {labels.number(g['tokens'])} tokens, {_seeds(g)}:"
            f" {labels.spread(g['gap'], g['interval'])} {a['loss_unit']}"
            for g in sorted(rows, key=lambda g: g["gap"])
        ],
    )


def _best(a) -> Block:
    rows = sorted(a["equal_flops"], key=lambda e: -e["flops"])
    text = [
        f"MoE - dense, best of each at {e['flops']:.3g} {a['c_convention']} FLOPs spent by both:"
        f" {labels.spread(e['difference'], e['interval'])} {a['loss_unit']}"
        + (
            ""
            if e["ratio"] is None or not e["read_between"]
            else f" (at the nominal budget MoE spends x{e['ratio']:.3f}: dense is read between"
            " its minima)"
        )
        for e in rows
    ]
    moves = (a.get("gain_trends") or {}).get("words") or {}
    return Block([*text[:1], *moves.values()], text[1:])
