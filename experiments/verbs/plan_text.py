"""`isoflop plan` as people read it."""

import sys
import textwrap

from rich import box
from rich.table import Table

from experiments.console import terminal
from experiments.planning import packs, trunks
from experiments.planning.fairness import words
from experiments.report import labels


def seconds(s: float | None) -> str:
    """0.00218 as 2.18 ms."""
    if s is None:
        return "unknown"
    return f"{s * 1e3:.3g} ms" if s < 1 else f"{s:.3g} s" if s < 120 else duration(s / 3600)


def duration(hours: float | None) -> str:
    """Hours as seconds, minutes, hours or days, whichever reads best."""
    if hours is None:
        return "unknown"
    for size, unit in ((24 * 3, "days"), (3.0, "h"), (1 / 20, "min")):
        if hours >= size:
            return f"{hours / {'days': 24, 'h': 1, 'min': 1 / 60}[unit]:.1f} {unit}"
    return f"{hours * 3600:.3g} s"


def money(v: float | None) -> str:
    return "unknown" if v is None else f"${v:,.2f}" if v >= 0.1 or v == 0 else f"${v:.2g}"


def amount(v: float | None) -> str:
    return "unknown" if v is None else f"{v:,.0f}" if v >= 1000 else f"{v:.3g}"


def _memory(m: dict) -> str:
    size = f"{m['bytes'] / 1e9:.3g} GB"
    if m["fits"] is None:
        return f"{size} of ?"
    if not m["fits"]:
        return f"{size}, NO"
    extra = (
        [f"accumulate {m['accumulate']}"] * (m["accumulate"] > 1)
        + ["remat"] * m["remat"]
        + [m["mesh"]] * bool(m["mesh"])
    )
    return f"{size}" + (f" with {', '.join(extra)}" if extra else "")


COLUMNS = (
    ("family", "left", lambda r: r["family"]),
    ("budget", "right", lambda r: f"{r['budget']:.3g}" if r["budget"] else ""),
    ("d_model", "right", lambda r: str(r["size"])),
    ("lr", "right", lambda r: f"{r['lr']:.3g}"),
    ("seed", "right", lambda r: str(r["seed"])),
    ("N total", "right", lambda r: labels.number(r["parameters"]["total"])),
    ("N active", "right", lambda r: labels.number(r["parameters"]["active"])),
    ("D tokens", "right", lambda r: labels.number(r["tokens"])),
    ("FLOPs", "right", lambda r: f"{r['flops']:.4g}"),
    ("step", "right", lambda r: seconds(r["step_seconds"])),
    ("time", "right", lambda r: duration(r["hours"])),
    ("memory", "right", lambda r: _memory(r["memory"])),
    ("money", "right", lambda r: money(r["money"])),
    ("kWh", "right", lambda r: amount(r["kwh"])),
    ("kg CO2", "right", lambda r: amount(r["kg_co2"])),
)


def _table(runs: list[dict], dial: str) -> Table:
    t = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name, side, _ in COLUMNS:
        name = dial if name == "d_model" else name
        t.add_column(name, justify=side, no_wrap=True)
    for r in runs:
        t.add_row(*(show(r) for _, _, show in COLUMNS))
    return t


def _line(name: str, value: str, source: str) -> str:
    return textwrap.fill(f"{name:<9} {value:<18} {source}", 130, subsequent_indent=" " * 29)


def _totals(answer: dict) -> list[str]:
    t, s = answer["total"], answer["sources"]
    held = (
        f"; {money(t['money_held'])} if all {answer['devices']} are held until the last run ends"
        if t.get("money_held")
        else ""
    )
    return [
        _line("FLOPs", f"{t['flops']:.4g}", s["flops"]),
        _line("hours", duration(t["hours"]), s["hours"]),
        _line("money", money(t["money"]), s["money"] + held),
        _line("kWh", amount(t["kwh"]), s["kwh"]),
        _line("kg CO2", amount(t["kg_co2"]), s["kg_co2"]),
    ]


def _matched(answer: dict) -> list[str]:
    pairs = answer["matched"]
    if not pairs:
        return []
    return [_line("matched", "no" if isinstance(pairs, str) else "yes", words(pairs))]


def _cap(answer: dict) -> list[str]:
    cap = answer["assumed"]["power_cap"]
    return (
        [_line("power cap", f"{cap['value']:g} W", f"effect on speed: {cap['effect_on_speed']}")]
        if cap["value"]
        else []
    )


def _device(answer: dict) -> str:
    d = answer["device"]
    known = (
        ""
        if d["known"] or d["name"] == "cpu"
        else f" (unknown: {d['name']!r} is not in the device table)"
    )
    return f"{answer['recipe']} on {answer['devices']} x {d['name']}{known}"


def _packs(answer: dict) -> list[str]:
    return packs.words(packs.Share(r["members"], r["worth"]) for r in answer["runs"])


def _recipe(answer: dict) -> None:
    terminal.console(width=160 if not sys.stdout.isatty() else None).print(
        _table(answer["runs"], answer["dial"])
    )
    t, memory = answer["total"], [r["memory"]["fits"] for r in answer["runs"]]
    print(f"{_device(answer)}: {t['runs']} runs")
    print("\n".join(_totals(answer)))
    print(_line("step", "", answer["sources"]["step_seconds"]))
    fits = (
        "unknown"
        if None in memory
        else "all fit"
        if all(memory)
        else f"{memory.count(False)} do not fit"
    )
    print(_line("memory", fits, answer["sources"]["memory"]))
    for line in (*_matched(answer), *_cap(answer), *trunks.words(t["trunks"]), *_packs(answer)):
        print(line)
    for note in answer["notes"]:
        print(textwrap.fill(f"note      {note}", 130, subsequent_indent=" " * 10))
    for line in answer["left_out"]:
        print(f"left out  {line}")
    print(f"to run it: {answer['command']}")


def _compute(answer: dict) -> None:
    t, peak, used = (
        answer["total"],
        answer["device"]["peak_flops"],
        answer["assumed"]["utilisation"],
    )
    rate = "unknown" if peak["value"] is None else f"{peak['value']:.4g}"
    print(
        f"{t['flops']:.4g} FLOPs on {answer['devices']} x {answer['device']['name']} of {rate}"
        f" FLOP/s ({peak['source']})"
    )
    if t["days"] is not None:
        print(
            f"{t['days_at_peak']:,.1f} days at 100%, {t['days']:,.1f} days at {used['value']:.0%}"
            f" ({used['source']})"
        )
    for line in (*_totals(answer), *_cap(answer)):
        print(line)


def show(answer: dict) -> None:
    """Prints an answer of experiments/planning/summary.py."""
    _recipe(answer) if "recipe" in answer else _compute(answer)
