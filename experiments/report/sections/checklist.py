"""The careful reader's checklist, filled in from the records: what one asks of a scaling study
before believing it.
"""

from collections import Counter

from experiments.planning import ladder
from experiments.report.elements import esc, table


def rates_by_size(results, a) -> list[list]:
    """[family, size, peak rate, verdict] for every size."""
    brackets = {}
    for v in a["learning_rates"]:
        brackets.setdefault((v["family"], v["size"]), []).append(v)
    rows = []
    for family, size in sorted({(r["family"], r["tags"].get("size") or 0) for r in results}):
        own = [r for r in results if r["family"] == family and r["tags"].get("size") == size]
        seen = brackets.get((family, size))
        rate = sorted({r["run"]["optimizer"]["lr"] for r in own})
        if seen:
            edges = sum(v["edge"] for v in seen)
            verdict = (
                f"bracketed here, {seen[0]['trials']} rates: best inside in {len(seen) - edges} of"
                f" {len(seen)} brackets"
                + ("; EDGE: a better rate may lie outside" if edges else "")
            )
        elif size in ladder.LR_CHECKED and family in ladder.LR_32:
            verdict = (
                "the ladder's rule, not bracketed in this sweep; checked at this size by recipe"
                " learning_rate, on quickstart's text and batch"
            )
        else:
            what = (
                "at this size"
                if size not in ladder.LR_CHECKED
                else "for this arm (it was for dense and MoE with rope)"
            )
            verdict = f"the ladder's rule, extrapolated: never bracketed {what}"
        rows.append([family, size or "", ", ".join(f"{v:.4g}" for v in rate[:5]), verdict])
    return rows


def _tuned(results, a) -> str:
    verdicts = [r[3] for r in rates_by_size(results, a)]
    here = sum(v.startswith("bracketed") for v in verdicts)
    open_ = sum("extrapolated" in v for v in verdicts)
    edges = sum(v["edge"] for v in a["learning_rates"])
    other = len(verdicts) - here - open_
    return (
        f"learning rate only, of {len(verdicts)} (family, size) pairs {here} bracketed here"
        f" ({edges} optima at an edge), {other} by the ladder's checked rule, {open_} by the rule"
        " extrapolated; batch and other settings not tuned"
    )


def _seeds(results) -> str:
    cells = Counter()
    for r in results:
        cells[
            r["family"], r["tags"].get("size"), r["training_tokens"], r["run"]["optimizer"]["lr"]
        ] += 1
    many = sorted(n for n in cells.values() if n > 1)
    seeds = sorted({r["run"]["seed"] for r in results})
    return (
        f"{len(seeds)} ({', '.join(map(str, seeds[:12]))}); {len(many)} of {len(cells)} cells have"
        " more than one"
        + (f" (up to {many[-1]})" if many else ": noise between seeds is not measured")
    )


def _noise(a) -> str:
    parts = [
        f"{k} {f['noise']['sigma']:.4f} {a['loss_unit']} ({f['noise']['dof']} degrees of freedom)"
        for k, f in a["families"].items()
        if f["noise"]
    ]
    return "; ".join(parts) or "unknown: no degree of freedom is left for it"


def _epochs(results) -> str:
    above = sorted(r["epochs"] for r in results if (r.get("epochs") or 0) > 1)
    top = max((r.get("epochs") or 0 for r in results), default=0)
    return (
        f"none (at most {top:.2f})"
        if not above
        else f"{len(above)} runs, up to {above[-1]:.2f}: their D is not fresh text"
    )


def _skipped(results) -> str:
    hit = [r for r in results if r.get("skipped")]
    return (
        "none"
        if not hit
        else (
            f"{sum(r['skipped'] for r in hit)} updates in {len(hit)} runs"
            f" ({', '.join(r['id'] for r in hit[:6])})"
        )
    )


def _unlearned(results) -> str:
    hit = [r for r in results if r.get("unlearned")]
    return (
        "none"
        if not hit
        else f"{len(hit)}, above the unigram entropy of the corpus"
        f" ({', '.join(r['id'] for r in hit[:6])}{', ...' * (len(hit) > 6)}): finished, and fitted"
        " with the others"
    )


def _fingerprints(results, key) -> str:
    found = sorted(
        {f"{k} {v}" for r in results for k, v in r["fingerprints"].items() if k == key}
        or {"not recorded"}
    )
    return "; ".join(found) + ("" if len(found) == 1 else ": runs differ")


def _commits(results) -> str:
    found = sorted({str(r["commit"]) for r in results})
    dirty = any(c.endswith("+") for c in found)
    return (
        "; ".join(found)
        + ("; + : with uncommitted changes" if dirty else "")
        + ("" if len(found) == 1 else "; runs differ")
    )


def _excluded(a) -> str:
    rows = a["excluded"]
    return (
        "none"
        if not rows
        else f"{len(rows)}: "
        + "; ".join(f"{e['what']} ({e['why'].split(':')[0]})" for e in rows[:6])
        + ("; ..." if len(rows) > 6 else "")
    )


def _identified(a) -> str:
    return "; ".join(
        f"{k}: {'yes' if f['parametric'].get('identified') else 'no, see the verdict above'}"
        for k, f in a["families"].items()
    )


def answers(results, a) -> list[tuple[str, str]]:
    """(question, answer), in the order of the page."""
    return [
        ("Which parameters are N?", f"{a['n_means']} ({a['n_convention']})"),
        (
            "Which FLOPs are C?",
            f"{a['c_convention']}, of training; model FLOPs, not executed ones (docs/counting.md)",
        ),
        (
            "In which unit is the loss?",
            (
                f"{a['loss_unit']}, natural logarithm, on held-out windows of"
                f" {', '.join(sorted({str(r['corpus']) for r in results}))}"
            ),
        ),
        ("How many points are fitted?", f"{a['n_points']} runs of {len(results)} finished ones"),
        ("Were the runs tuned?", _tuned(results, a)),
        ("Which runs or minima were excluded, and why?", _excluded(a)),
        ("Runs that have not learned yet?", _unlearned(results)),
        ("How many seeds?", _seeds(results)),
        ("How large is the noise of one run?", _noise(a)),
        ("Epochs above 1?", _epochs(results)),
        ("Skipped updates?", _skipped(results)),
        ("Does the parametric law follow from these runs?", _identified(a)),
        (
            "How were the intervals made?",
            (
                f"{a['level']:.0%} percentile intervals, noise drawn around the fits,"
                f" {a['resamples']} resamples (docs/laws.md)"
            ),
        ),
        ("Data fingerprint", _fingerprints(results, "corpus")),
        ("Code fingerprint", _commits(results)),
    ]


def section(results, curves, a) -> str:
    rows = [list(qa) for qa in answers(results, a)]
    reading = "Filled in by the program from the records of the runs."
    return (
        "<section><h2>The careful reader's checklist</h2><p"
        f" class=read>{esc(reading)}</p>{table(['question', 'answer'], rows, 2)}</section>"
    )
