"""The sections of the report: functions of (results, curves, analysis) that return HTML, or nothing
where there is nothing to show.
"""

from experiments.laws.comparisons.moe_gaps import what_is_equal
from experiments.laws.published import constants
from experiments.report import figures, gap_figures, law_figures
from experiments.report.elements import count_span, esc, f4, g4, section, span, table


def _units(a) -> list[str]:
    """Column heads of the three numbers, each with its convention."""
    return [f"N ({a['n_convention']})", "D (tokens)", f"C ({a['c_convention']})"]


def _points(results, a) -> str:
    rows = [
        [
            r["family"],
            r["tags"].get("size"),
            f"{r['tags'].get('budget') or 0:.3g}",
            r["run"]["seed"],
            f"{r['parameters'][a['n_convention']]:,}",
            f"{r['training_tokens']:,}",
            f"{r['flops'][a['c_convention']]:.5g}",
            f4(r["validation"]["loss"]),
            f4(r["validation"]["se"]),
        ]
        for r in results
    ]
    return table(["family", a["dial"], "budget", "seed", *_units(a), "loss", "s.e."], rows)


def _parabolas(a: dict) -> str:
    rows = [
        [
            family,
            f"{q['flops']:.4g}",
            f"{q['n_opt']:,.0f}" if q["interior"] else "no interior minimum",
            count_span(q.get("n_opt_interval")),
            f"{q['d_opt']:,.0f}" if q["interior"] else "",
            count_span(q.get("d_opt_interval")),
            f4(q["loss_opt"]) if q["interior"] else "",
            span(q.get("loss_opt_interval")),
        ]
        for family, f in a["families"].items()
        for q in f["parabolas"]
    ]
    return table(
        [
            "family",
            f"C ({a['c_convention']})",
            f"N_opt ({a['n_convention']})",
            "95%",
            "D_opt (tokens)",
            "95%",
            "loss",
            "95%",
        ],
        rows,
    )


def _curves_table(results, curves, a) -> str:
    rows = [
        [family, f"{c:.3g}", f"{loss:.4f}"]
        for family, (grid, best) in figures.envelope(
            figures.training_curves(results, curves, a["c_convention"])
        ).items()
        for c, loss in list(zip(grid, best))[::10]
    ]
    return table(["family", f"C ({a['c_convention']})", "envelope of training loss"], rows) + table(
        ["family", f"C ({a['c_convention']})", "final validation loss"],
        [
            [r["family"], f"{r['flops'][a['c_convention']]:.5g}", f4(r["validation"]["loss"])]
            for r in results
        ],
    )


def _gap_tables(a) -> str:
    first = table(
        [a["dial"], "budget", "seeds", "MoE - dense", "95%"],
        [
            [
                g["size"],
                f"{g['budget'] or 0:.3g}",
                g["seeds"],
                f"{g['gap']:+.4f}",
                span(g["interval"]),
            ]
            for g in a["gaps"]
        ],
        0,
    )
    pairs = table(
        [
            *(a["dial"], "budget", "seed", "tokens", "dense", "MoE", "gap"),
            *("FLOPs ratio", "active ratio", "tokens ratio"),
        ],
        [
            [
                p["size"],
                f"{p['budget'] or 0:.3g}",
                p["seed"],
                f"{p['tokens']:,}",
                f4(p["dense"]),
                f4(p["moe"]),
                f"{p['gap']:+.4f}",
                *(f"{p[k]:.4f}" for k in ("flops_ratio", "active_ratio", "tokens_ratio")),
            ]
            for p in a["pairs"]
        ],
        0,
    )
    best = table(
        ["FLOPs spent", "MoE / dense at the budget", "dense", "MoE", "difference", "95%"],
        [
            [
                f"{e['flops']:.3g}",
                "" if e["ratio"] is None else f"{e['ratio']:.3f}",
                f4(e["dense"]),
                f4(e["moe"]),
                f"{e['difference']:+.4f}",
                span(e["interval"]),
            ]
            for e in a["equal_flops"]
        ],
        0,
    )
    return f"{first}<p>Pairs</p>{pairs}<p>Best of each family at equal spent FLOPs</p>{best}"


_below, _above = (lambda span: span[1] < 0), (lambda span: span[0] > 0)


def _gap_reading(a) -> str:
    seeds = [g for g in a["gaps"] if g["interval"]]
    order = (
        "read the same tokens in the same order"
        if all(g["tokens_ratio"] == 1 for g in a["gaps"])
        else "read the same text in the same order, one of them less of it"
    )
    equal = what_is_equal(a["gaps"], a["c_convention"])
    text = f"Both members of a pair {order}, {esc(equal)}, MoE over dense. "
    if seeds:
        below, above = (sum(f(g["interval"]) for g in seeds) for f in (_below, _above))
        text += (
            f"Beyond the noise of the seeds MoE is better in {below} of {len(seeds)} cells, dense"
            f" in {above}; in the others the sign is open. "
        )
        text += (
            "Clark et al. 2022 (arXiv 2202.01169) find MoE better at these sizes; where a gap has"
            " the other sign, read it against the black bars (one seed's noise) and the expert load"
            " below. "
        )
    return text + "Black bars: 95% Student intervals over seeds."


def isoflop(results, curves, a) -> str:
    fitted = [r for r in results if r["tags"].get("budget") is not None]
    if not fitted:
        return ""
    reading = (
        "Each curve is one compute budget; a star is its parabola's minimum, the bar through it the"
        " 95% interval of N_opt. Left of it models are too small, right of it they see too few"
        " tokens."
    )
    return section("IsoFLOP curves", reading, figures.isoflop(a, fitted), _points(fitted, a))


def optima(results, curves, a) -> str:
    if not any(f["parabolas"] for f in a["families"].values()):
        return ""
    reading = (
        "Minima of the parabolas against compute; bars and brackets are 95% bootstrap intervals."
        " Grey: published exponents, drawn through the middle of these minima for their slope"
        " alone; their N and C are counted by the papers' conventions, and each carries its mark of"
        " verification."
    )
    inside = any(q["interior"] for f in a["families"].values() for q in f["parabolas"])
    drawn = (
        figures.optima(a)
        if inside
        else "<p class=read>No budget has a minimum inside its sizes.</p>"
    )
    return section("Compute-optimal size and tokens", reading, drawn, _parabolas(a), opened=True)


def compute(results, curves, a) -> str:
    reading = (
        "Thin: training loss of each run, a moving mean of five logged points. Thick: their lower"
        " envelope (Chinchilla approach 1). The learning rate decays to zero only at a run's end,"
        " so curves in mid-flight lie above what the same compute reaches with a shorter schedule."
        " Training and validation text differ, so marks and lines need not meet."
    )
    return section(
        "Loss against compute",
        reading,
        figures.compute(a, results, curves),
        _curves_table(results, curves, a),
    )


def dense_against_moe(results, curves, a) -> str:
    if not any(g["budget"] for g in a["gaps"]):
        return ""
    return section("Dense against MoE", _gap_reading(a), gap_figures.gaps(a), _gap_tables(a))


def expert_load(results, curves, a) -> str:
    routed = [r for r in results if r["moe"].get("expert_load")]
    if not routed:
        return ""

    def text(values, digits):
        return "  ".join(f"{x:.{digits}f}" for x in values)

    rows = [
        [
            r["id"],
            r["tags"].get("size"),
            figures.group_of(r),
            text(r["moe"]["expert_load"], 2),
            text(r["moe"]["router_entropy"], 2),
            text(r["moe"]["balance_loss"], 3),
        ]
        for r in routed
    ]
    columns = [
        "run",
        "d_model",
        "of",
        "max/mean load by layer",
        "router entropy (nats)",
        "balance loss",
    ]
    reading = (
        "Assignments of the busiest expert over the mean, on validation batches; one mark per MoE"
        " layer (circle first). 1 is perfect balance; nothing is dropped at any load."
    )
    return section("Expert load", reading, figures.load(routed), table(columns, rows))


def known_entropy(results, curves, a) -> str:
    if not a["known_entropy"]:
        return ""
    data = [
        [e["family"], e["size"], f"{d:,.0f}", f4(x), f4(se)]
        for e in a["known_entropy"]
        for d, x, se in zip(e["tokens"], e["excess"], e["se"])
    ]
    rows = [
        [e["family"], e["size"], f4(e["exponent"]), f4(e["exponent_last_three"]), f4(e["derived"])]
        for e in a["known_entropy"]
    ]
    slopes = table(["family", a["dial"], "measured exponent", "of the last three", "derived"], rows)
    return section(
        "Above the source's entropy",
        "Loss minus the true source's −log p on the same validation tokens. Dashed: the exponent"
        " derived in data/synthetic.py, a / (1 + a).",
        "".join(
            f"<p class=read><b>{esc(figures.LABEL.get(e['family'], e['family']))}</b>:"
            f" {esc(e['words'])}.</p>"
            for e in a.get("floors", [])
        )
        + figures.known_entropy(a)
        + slopes,
        table(["family", a["dial"], "D", "excess", "s.e."], data),
    )


def parametric(results, curves, a) -> str:
    laws = {family: f["parametric"] for family, f in a["families"].items()}
    verdicts = "".join(
        f"<p class=read><b>{esc(figures.LABEL.get(family, family))}</b>:"
        f" {esc(p['verdict'])}.{_off(p)}</p>"
        for family, p in laws.items()
    )
    shown = {family: p for family, p in laws.items() if "parameters" in p}
    reading = (
        "L = E + A/N<sup>alpha</sup> + B/D<sup>beta</sup> (Hoffmann et al. 2022, eq 10), sum of"
        " Huber losses on log L, many ranked starts. Line and band: the law's least loss at each"
        " budget with its 95% interval, beyond the runs to four times their compute. Open marks:"
        " the upper fifth of compute, left out of one more fit, whose predictions are the crosses."
        " Values of a law that the runs do not identify are shown for completeness, not for use."
    )
    if not shown:
        return f"<section><h2>Parametric law</h2><p class=read>{reading}</p>{verdicts}</section>"
    theirs = {
        f"{k} ({constants.PUBLISHED[k].mark.split(';')[0]})": constants.PUBLISHED[k].values
        for k in PUBLISHED_LAWS
    }
    rows = [
        [
            k,
            *[f"{g4(p['parameters'][k])} {span(p['intervals'][k], 3)}" for p in shown.values()],
            *[f"{v[k]:g}" for v in theirs.values()],
        ]
        for k in ("E", "A", "alpha", "B", "beta")
    ]
    rows += [
        [
            "sum of Huber losses",
            *[f"{p['objective']:.3g}" for p in shown.values()],
            *[""] * len(theirs),
        ],
        [
            "starts that reached it",
            *[f"{p['starts_at_optimum']:.0%}" for p in shown.values()],
            *[""] * len(theirs),
        ],
    ]
    verdicts += "".join(
        f"<p class=read>Ridges, {esc(figures.LABEL.get(k, k))}:"
        f" {esc('; '.join(p['verdicts']['ridges']))}.</p>"
        for k, p in shown.items()
        if p["verdicts"]["ridges"]
    )
    data = table(
        ["family", *_units(a), "measured", "fitted", "held out"],
        [
            [family, f"{n:,.0f}", f"{d:,.0f}", f"{c:.4g}", f4(m), f4(v), "yes" if out else ""]
            for family, p in shown.items()
            for n, d, c, m, v, out in zip(
                *(p["points"][k] for k in ("n", "d", "c", "measured", "fitted", "held_out"))
            )
        ],
    )
    values = table([f"N {a['n_convention']}, L nats/token", *shown, *theirs], rows)
    return section("Parametric law", reading, verdicts + law_figures.parametric(a), data).replace(
        "<details>", values + "<details>", 1
    )


PUBLISHED_LAWS = ("hoffmann2022", "besiroglu2024")


def _off(p) -> str:
    e = p.get("extrapolation")
    if not e:
        return ""
    return (
        f" Held out: {e['n_test']} runs above, predicted from {e['n_fit']} of less compute, are off"
        f" by {e['mean_relative_error']:.1%} on average ({e['worst_relative_error']:.1%} at worst)."
    )


def leverage(results, curves, a) -> str:
    if not a.get("leverage"):
        return ""
    reading = (
        "Compute that a dense model needs for the loss of the best MoE model at a budget, over that"
        " budget; the dense best loss is read along a straight line in log loss against log C"
        " through the dense minima, so values far from them are extrapolations. Bars and band: 95%"
        " intervals."
    )
    rows = [
        [f"{r['flops']:.4g}", f"{r['leverage']:.3f}", span(r["interval"], 3)] for r in a["leverage"]
    ]
    return section(
        "Efficiency leverage of experts",
        reading,
        law_figures.leverage(a),
        table([f"C ({a['c_convention']})", "leverage", "95%"], rows, 0),
    )


def runs(results, curves, a) -> str:
    columns = [
        "run",
        "family",
        "d_model",
        "layers",
        "seed",
        "role",
        "lr",
        "N total",
        "N active",
        "N non-emb.",
        "D",
        "epochs",
        "FLOPs matmul",
        "FLOPs 6N_active",
        "loss",
        "s.e.",
        "bits/byte",
        "seconds",
        "tokens/s",
    ]
    rows = []
    for r in results:
        p, v, m = r["parameters"], r["validation"], r["run"]["model"]
        rows.append(
            [
                r["id"],
                r["family"],
                m["d_model"],
                m["n_layers"],
                r["run"]["seed"],
                r["tags"].get("role", ""),
                f"{r['run']['optimizer']['lr']:.4g}",
                f"{p['total']:,}",
                f"{p['active']:,}",
                f"{p['non_embedding']:,}",
                f"{r['training_tokens']:,}",
                f"{r['epochs']:.2f}",
                f"{r['flops']['matmul']:.5g}",
                f"{r['flops']['6N_active']:.5g}",
                f4(v["loss"]),
                f4(v["se"]),
                f4(v["bits_per_byte"]),
                f"{r['seconds']['train']:.1f}",
                f"{r['tokens_per_s']:,.0f}",
            ]
        )
    return (
        "<section><h2>Runs</h2><p class=read>Every finished run. N and FLOPs are counted;"
        f" conventions in docs/counting.md.</p>{table(columns, rows, 2)}</section>"
    )


def excluded(results, curves, a) -> str:
    rows = [[e["what"], e["why"]] for e in a["excluded"]] + [
        ["left out", line] for line in a.get("left_out", [])
    ]
    rows += [[f"used, but flagged: {e['what']}", e["why"]] for e in a["flagged"]]
    body = table(["what", "why"], rows, 2) if rows else "<p>Nothing was excluded.</p>"
    return f"<section><h2>Excluded, and why</h2>{body}</section>"
