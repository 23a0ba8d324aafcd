"""What isoflop evaluate prints."""

from experiments.report.labels import number
from experiments.verbs.common import columns

KNOWN_POSITIONS = 8192  # contexts up to here are those of training, as a rule
UNKNOWN = 1e-3  # share of tokens that stand for any text, above which bits per byte flatter
CHANGED = 0.02  # the same of texts that their tokens do not give back
SHOWN = 8  # bins of positions that are printed


def progress(r: dict) -> str:
    """How fast a model was."""
    s = r["seconds"]
    streamed = ", streamed" if r["streamed"] else ""
    return (
        f"{r['name']}: {r['tokens_per_s']:,.0f} tokens/s over {s['compute']:.1f} s, after"
        f" {s['read']:.1f} s of reading weights{streamed} and {s['compile']:.1f} s of compiling"
    )


def warnings(r: dict, table: bool) -> list[str]:
    """What a reader of a result must know. table: a CSV is written."""
    out = []
    if r.get("unknown", 0) > UNKNOWN:
        out.append(
            f"{r['name']}: {r['unknown']:.2%} of its tokens are unknown words, which hide text: its"
            " bits per byte are too low"
        )
    elif r.get("changed", 0) > CHANGED:
        out.append(
            f"{r['name']}: the tokens of {r['changed']:.0%} of the texts do not give them back (its"
            " tokenizer drops or alters something): its bits per byte may be too low"
        )
    if table and not r["training_tokens"]:
        out.append(
            f"{r['name']}: the tokens that it was trained on are not known: name them by"
            f" --tokens_trained={r['name']}=TOKENS, a law wants them"
        )
    elif (
        table
        and r["kind"] != "isoflop"
        and r["model"]["seq_len"] == r["flops_at"] > KNOWN_POSITIONS
    ):
        out.append(
            f"{r['name']}: its FLOPs are counted at all of its {r['flops_at']:,} positions: if it"
            f" was trained on fewer, say so by --trained_context={r['name']}=TOKENS"
        )
    return out


def pm(value, se, digits: int = 4) -> str:
    """0.1234 +- 0.0012."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + (f" +- {se:.{digits}f}" if se is not None else "")


def text(a: dict, out: str) -> str:
    lines = []
    if a["text"]:
        lines += _losses(a)
    for task in a["tasks"]:
        lines += [""] * bool(lines) + _task(a["models"], task)
    return "\n".join([*lines, *([out] if out else [])])


def _losses(a: dict) -> list[str]:
    t = a["text"]
    head = (
        f"text: {t['corpus']}, {t['bytes']:,} bytes in {t['windows']} windows of"
        f" {t['window_bytes']:,} ({t['split']}); standard errors over windows"
    )
    rows = [["", "parameters", "trained on", "nats/token", "bits/byte", "above the first"]]
    for r in a["models"]:
        v, above = r["validation"], r.get("above_first")
        rows.append(
            [
                r["name"],
                number(r["parameters"]["total"]),
                number(r["training_tokens"]) if r["training_tokens"] else "-",
                pm(v["loss"], v["se_windows"]),
                pm(v["bits_per_byte"], v["bits_per_byte_se"]),
                pm(above["bits_per_byte"], above["se"]) if above else "",
            ]
        )
    return [head, *columns(rows), "", *_by_position(a["models"])]


def _by_position(models: list[dict]) -> list[str]:
    """Some bins of every model: position t is of the token that is predicted from t tokens."""
    lines = ["nats/token by the tokens that come before:"]
    rows = []
    for r in models:
        p = r["loss_by_position"]
        every = -(-len(p["first"]) // SHOWN)
        pairs = list(zip(p["first"], p["loss"]))[::every]
        cells = [f"{first}: {loss:.3f}" for first, loss in pairs]
        rows.append([r["name"], *cells, *[""] * (SHOWN - len(cells))])
    return lines + columns(rows)


def _task(models: list[dict], task: str) -> list[str]:
    about = models[0]["tasks"][task]
    head = f"{task}: {about['items']} items, chance {about['chance']:.3f}; 95% intervals"
    rows = [["", "accuracy", "per byte"]]
    for r in models:
        t = r["tasks"][task]
        cells = []
        for name in ("accuracy", "accuracy_per_byte"):
            low, high = t[f"{name}_interval"]
            cells.append(f"{t[name]:.3f} [{low:.3f}, {high:.3f}]")
        rows.append([r["name"], *cells])
    return [head, *columns(rows)]
