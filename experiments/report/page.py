"""The report: figures, the data table under each, and what was excluded. Everything from records is escaped: nothing in a workdir
can put markup into the page, and the page has no script."""

import html
import json
import os

from experiments.report import figures
from launch import record

CSS = """
:root{color-scheme:light}*{box-sizing:border-box}
body{margin:0;background:#f4f5f7;color:#1f2630;font:15px/1.55 -apple-system,"Segoe UI",Roboto,"DejaVu Sans",Helvetica,Arial,sans-serif}
main{max-width:1000px;margin:0 auto;padding:36px 20px 80px}
h1{font-size:28px;margin:0 0 4px;letter-spacing:-.01em}h2{font-size:19px;margin:0 0 4px}
.sub{color:#5a6472;margin:0 0 22px}section{background:#fff;border:1px solid #e1e4e9;border-radius:10px;padding:22px 24px;margin:18px 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin:18px 0}
.card{background:#fff;border:1px solid #e1e4e9;border-radius:10px;padding:14px 16px}.card b{display:block;font-size:20px;font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.card span{color:#5a6472;font-size:13px}.dense{border-top:4px solid #3b6fb6}.moe{border-top:4px solid #d1602a}.plain{border-top:4px solid #8a919c}
p.read{margin:2px 0 12px;color:#3a4350}svg{width:100%;height:auto;display:block}
details{margin-top:12px}summary{cursor:pointer;color:#3b6fb6;font-size:14px}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:12.5px;font-variant-numeric:tabular-nums;margin-top:8px;width:100%}
th,td{padding:3px 9px;text-align:right;white-space:nowrap;border-bottom:1px solid #edeff2}th{color:#5a6472;font-weight:600;border-bottom:1px solid #c8cdd5}
td.t,th.t{text-align:left;white-space:normal}footer{color:#5a6472;font-size:13px;margin-top:22px}code{font-size:12.5px}
@media print{body{background:#fff}section{break-inside:avoid}}
"""


def read_curves(paths: list[str]) -> dict[str, list[dict]]:
    """metrics.jsonl files by the name of their folder; a missing or damaged file is no curve."""
    out = {}
    for path in paths:
        try:
            with open(path) as f:
                out[os.path.basename(os.path.dirname(path))] = [json.loads(line) for line in f]
        except (OSError, ValueError):
            continue
    return out


def save(path: str, text: str) -> None:
    """Atomically."""
    try:
        record.write_text(path, text)
    except OSError as e:
        raise record.RecordError(f"{path} cannot be written ({e.strerror})") from None


def esc(value) -> str:
    return html.escape(str(value))


def table(columns: list[str], rows: list[list], text_columns: int = 1) -> str:
    """An HTML table; the first `text_columns` columns are words."""
    kind = lambda i: ' class="t"' if i < text_columns else ""
    head = "".join(f"<th{kind(i)}>{esc(c)}</th>" for i, c in enumerate(columns))
    body = "".join("<tr>" + "".join(f"<td{kind(i)}>{esc(v)}</td>" for i, v in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _section(title: str, reading: str, svg: str, data: str, name: str = "the data of this figure", opened: bool = False) -> str:
    return (f"<section><h2>{esc(title)}</h2><p class=read>{reading}</p>{svg}"
            f"<details{' open' if opened else ''}><summary>{esc(name)}</summary>{data}</details></section>")


def f4(v) -> str:
    return "" if v is None else f"{v:.4f}"


def g4(v) -> str:
    return "unbounded" if v is None else f"{v:.4g}"


def span(v, digits: int = 4) -> str:
    return "" if not v else "[" + ", ".join(f"{x:.{digits}f}" if abs(x) < 1e6 else f"{x:.3g}" for x in v) + "]"


def count_span(v) -> str:
    return "" if not v else f"[{v[0]:,.0f}, {v[1]:,.0f}]"


def card(kind: str, big: str, small: str) -> str:
    return f'<div class="card {kind}"><b>{esc(big)}</b><span>{esc(small)}</span></div>'


def _cards(a: dict) -> str:
    out = []
    for family, f in a["families"].items():
        kind = family if family in figures.COLOUR else "plain"
        if not f["parabolas"]:
            continue
        for key, name in (("n", "N_opt"), ("d", "D_opt")):
            if f[f"{key}_exponent"] is None:
                out.append(card(kind, "not identified", f"{family}: {name} exponent, fewer than two interior minima"))
            else:
                out.append(card(kind, f"{name} ∝ C^{f[key + '_exponent']:.2f}", f"{figures.LABEL.get(family, family)}, 95% interval {span(f.get(key + '_exponent_interval'), 2) or 'unknown'}"))
    best = max((g for g in a["gaps"] if g["interval"]), key=lambda g: g["seeds"], default=None)
    if best:
        out.append(card("plain", f"{best['gap']:+.3f} nats", f"MoE − dense per token, 95% interval {span(best['interval'], 3)}, {best['seeds']} seeds; equal active parameters and tokens, d_model {best['size']}"))
    return f'<div class="cards">{"".join(out)}</div>'


def _parabolas(a: dict) -> str:
    rows = [[family, f"{q['flops']:.4g}", f"{q['n_opt']:,.0f}" if q["interior"] else "no interior minimum", count_span(q.get("n_opt_interval")), f"{q['d_opt']:,.0f}" if q["interior"] else "",
             count_span(q.get("d_opt_interval")), f4(q["loss_opt"]) if q["interior"] else "", span(q.get("loss_opt_interval"))] for family, f in a["families"].items() for q in f["parabolas"]]
    return table(["family", "C", "N_opt", "95%", "D_opt", "95%", "loss", "95%"], rows)


def _points(results, a) -> str:
    rows = [[r["family"], r["tags"].get("size"), f"{r['tags'].get('budget') or 0:.3g}", r["run"]["seed"], f"{r['parameters'][a['n_convention']]:,}", f"{r['training_tokens']:,}",
             f"{r['flops'][a['c_convention']]:.5g}", f4(r["validation"]["loss"]), f4(r["validation"]["se"])] for r in results]
    return table(["family", "d_model", "budget", "seed", "N", "D", "C", "loss", "s.e."], rows)


def _curves_table(results, curves, a) -> str:
    rows = [[family, f"{c:.3g}", f"{loss:.4f}"] for family, (grid, best) in figures.envelope(figures.training_curves(results, curves, a["c_convention"])).items() for c, loss in list(zip(grid, best))[::10]]
    return table(["family", "C", "envelope of training loss"], rows) + table(["family", "C", "final validation loss"], [[r["family"], f"{r['flops'][a['c_convention']]:.5g}", f4(r["validation"]["loss"])] for r in results])


def _gap_tables(a) -> str:
    first = table(["d_model", "budget", "seeds", "MoE - dense", "95%"], [[g["size"], f"{g['budget'] or 0:.3g}", g["seeds"], f"{g['gap']:+.4f}", span(g["interval"])] for g in a["gaps"]], 0)
    pairs = table(["d_model", "budget", "seed", "tokens", "dense", "MoE", "gap", "FLOPs ratio"], [[p["size"], f"{p['budget'] or 0:.3g}", p["seed"], f"{p['tokens']:,}", f4(p["dense"]), f4(p["moe"]), f"{p['gap']:+.4f}", f"{p['flops_ratio']:.4f}"] for p in a["pairs"]], 0)
    best = table(["budget", "dense", "MoE", "difference", "95%"], [[f"{e['budget']:.3g}", f4(e["dense"]), f4(e["moe"]), f"{e['difference']:+.4f}", span(e["interval"])] for e in a["equal_flops"]], 0)
    return f"{first}<p>Pairs</p>{pairs}<p>Best of each family at equal FLOPs</p>{best}"


def _gap_reading(a) -> str:
    seeds = [g for g in a["gaps"] if g["interval"]]
    text = "Both members of a pair read the same tokens in the same order; top_k × d_expert = d_ff, the router comes on top. "
    if seeds:
        g = max(seeds, key=lambda g: g["seeds"])
        low, high = g["interval"]
        verdict = "MoE is better" if high < 0 else "dense is better" if low > 0 else "the sign is not settled by these seeds"
        text += f"Over {g['seeds']} seeds at d_model {esc(g['size'])}, {g['tokens']:,} tokens the gap is {g['gap']:+.3f} [{low:.3f}, {high:.3f}] nats/token: {verdict}. "
        text += "Clark et al. 2022 (arXiv 2202.01169) find MoE better at these sizes; where a gap has the other sign, read it against the black bars (one seed's noise) and the expert load below. "
    return text + "Black bars: 95% Student intervals over seeds."


def _parametric(a) -> str:
    laws = {family: f["parametric"] for family, f in a["families"].items()}
    verdicts = "".join(f"<p class=read><b>{esc(figures.LABEL.get(family, family))}</b>: {esc(p['verdict'])}.</p>" for family, p in laws.items())
    shown = {family: p for family, p in laws.items() if "parameters" in p}
    rows = [[k, *[f"{g4(p['parameters'][k])} {span(p['intervals'][k], 3)}" for p in shown.values()]] for k in ("E", "A", "alpha", "B", "beta")]
    rows += [["objective (sum of Huber losses)", *[f"{p['objective']:.3g}" for p in shown.values()]], ["starts that reached it", *[f"{p['starts_at_optimum']:.0%}" for p in shown.values()]]]
    return ("<section><h2>Parametric law</h2><p class=read>L = E + A/N<sup>alpha</sup> + B/D<sup>beta</sup> (Hoffmann et al. 2022, eq 10), sum of Huber losses on log L, many ranked starts. "
            f"Values of a law that the runs do not identify are shown for completeness, not for use.</p>{verdicts}" + (table(["", *shown], rows) if shown else "") + "</section>")


def _rates(a) -> str:
    if not a["learning_rates"]:
        return ("<section><h2>Learning rates</h2><p class=read>From the ladder's rule (experiments/ladder.py), fitted to brackets with the same number of trials for both families "
                "before they were compared (recipe <code>learning_rate</code>; LOG.md). No bracket was run in this sweep.</p></section>")
    rows = [[v["family"], v["size"], f"{v['budget'] or 0:.3g}", v["seed"], v["trials"], f"x{v['best_multiplier']:g}", "EDGE" if v["edge"] else "inside", "  ".join(f"{k}: {x:.4f}" for k, x in v["losses"].items())] for v in a["learning_rates"]]
    return "<section><h2>Learning rates</h2><p class=read>Brackets around the ladder's rule. An optimum at the edge of its bracket is flagged: the true one may lie outside.</p>" + table(
        ["family", "d_model", "budget", "seed", "trials", "best", "where", "loss by multiplier"], rows) + "</section>"


def _known_entropy(a) -> str:
    if not a["known_entropy"]:
        return ""
    data = [[e["family"], e["size"], f"{d:,.0f}", f4(x), f4(se)] for e in a["known_entropy"] for d, x, se in zip(e["tokens"], e["excess"], e["se"])]
    rows = [[e["family"], e["size"], f4(e["exponent"]), f4(e["exponent_last_three"]), f4(e["derived"])] for e in a["known_entropy"]]
    slopes = table(["family", "d_model", "measured exponent", "of the last three", "derived"], rows)
    return _section("Above the source's entropy", "Loss minus the true source's −log p on the same validation tokens. Dashed: the exponent derived in data/synthetic.py, a / (1 + a).",
                    figures.known_entropy(a) + slopes, table(["family", "d_model", "D", "excess", "s.e."], data))


def _runs(results) -> str:
    columns = ["run", "family", "d_model", "layers", "seed", "role", "lr", "N total", "N active", "N non-emb.", "D", "epochs", "FLOPs matmul", "FLOPs 6N_active", "loss", "s.e.", "bits/byte", "seconds", "tokens/s"]
    rows = []
    for r in results:
        p, v, m = r["parameters"], r["validation"], r["run"]["model"]
        rows.append([r["id"], r["family"], m["d_model"], m["n_layers"], r["run"]["seed"], r["tags"].get("role", ""), f"{r['run']['optimizer']['lr']:.4g}", f"{p['total']:,}", f"{p['active']:,}", f"{p['non_embedding']:,}", f"{r['training_tokens']:,}",
                     f"{r['epochs']:.2f}", f"{r['flops']['matmul']:.5g}", f"{r['flops']['6N_active']:.5g}", f4(v["loss"]), f4(v["se"]), f4(v["bits_per_byte"]), f"{r['seconds']['train']:.1f}", f"{r['tokens_per_s']:,.0f}"])
    return f"<section><h2>Runs</h2><p class=read>Every finished run. N and FLOPs are counted; conventions in docs/counting.md.</p>{table(columns, rows, 2)}</section>"


def _excluded(a) -> str:
    rows = [[e["what"], e["why"]] for e in a["excluded"]] + [["left out", line] for line in a.get("left_out", [])]
    body = table(["what", "why"], rows, 2) if rows else "<p>Nothing was excluded.</p>"
    return f"<section><h2>Excluded, and why</h2>{body}</section>"


def _intro(name, results, a) -> str:
    kinds = sorted({f"{r['device']['kind']} ({r['dtype'] if 'dtype' in r else r['run']['dtype']})" for r in results})
    corpora = sorted({f"{r['corpus']} {r['fingerprints']['corpus']}" for r in results})
    sigma = "; ".join(f"{family} {f['noise']['sigma']:.3f} nats/token ({f['noise']['dof']} degrees of freedom)" for family, f in a["families"].items() if f["noise"])
    return (f"<h1>{esc(name)}: dense against mixture of experts</h1><p class=sub>{len(results)} runs · N: {esc(a['n_means'])} · C: {esc(a['c_convention'])} FLOPs · "
            f"text: {esc(', '.join(corpora))} · on {esc(', '.join(kinds))}" + (f" · noise of one run: {esc(sigma)}" if sigma else "") + "</p>")


def render(name: str, results: list[dict], analysis: dict, curves: dict) -> str:
    """The whole page as HTML text."""
    a = record.finite(analysis)
    fitted = [r for r in results if r["tags"].get("budget") is not None]
    results = sorted(results, key=lambda r: (r["tags"].get("budget") or 0, r["tags"].get("size") or 0, r["run"]["seed"], r["training_tokens"], r["family"], r["run"]["optimizer"]["lr"]))
    parts = [_intro(name, results, a), _cards(a), _known_entropy(a)]
    if fitted:
        parts.append(_section("IsoFLOP curves", "Each curve is one compute budget; a star is its parabola's minimum, the bar through it the 95% interval of N_opt. Left of it models are too small, right of it they see too few tokens.",
                              figures.isoflop(a, fitted), _points(fitted, a)))
        parts.append(_section("Compute-optimal size and tokens", "Minima of the parabolas against compute; bars and brackets are 95% bootstrap intervals.", figures.optima(a), _parabolas(a), opened=True))
    parts.append(_section("Loss against compute", "Thin: training loss of each run, a moving mean of five logged points. Thick: their lower envelope (Chinchilla approach 1). The learning rate decays to zero only at a run's end, so curves in mid-flight lie above what the same compute reaches with a shorter schedule. Training and validation text differ, so marks and lines need not meet.",
                          figures.compute(a, results, curves), _curves_table(results, curves, a)))
    if any(g["budget"] for g in a["gaps"]):
        parts.append(_section("Dense against MoE", _gap_reading(a), figures.gaps(a), _gap_tables(a)))
    if any(r["moe"].get("expert_load") for r in results):
        rows = [[r["id"], r["tags"].get("size"), f"{r['tags'].get('budget') or 0:.3g}", "  ".join(f"{x:.2f}" for x in r["moe"]["expert_load"]), "  ".join(f"{x:.2f}" for x in r["moe"]["router_entropy"]),
                 "  ".join(f"{x:.3f}" for x in r["moe"]["balance_loss"])] for r in results if r["moe"].get("expert_load")]
        parts.append(_section("Expert load", "Assignments of the busiest expert over the mean, on validation batches; one mark per MoE layer (circle first). 1 is perfect balance; nothing is dropped at any load.",
                              figures.load(results), table(["run", "d_model", "budget", "max/mean load by layer", "router entropy (nats)", "balance loss"], rows)))
    parts += [_parametric(a), _rates(a), _runs(results), _excluded(a)]
    r = results[0]
    foot = f"isoflop {r['versions'].get('isoflop')} · commit {r['commit']} · " + " · ".join(f"{k} {v}" for k, v in r["versions"].items() if k != "isoflop")
    title = f"{name}: isoflop report"
    return f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{esc(title)}</title><style>{CSS}</style></head><body><main>{"".join(parts)}<footer>{esc(foot)}</footer></main></body></html>\n'
