"""Dense against MoE at equal wall clock and equal memory."""

from experiments.report.elements import esc, f4, span, table

UNITS = {
    "seconds": ("seconds of training", lambda v: f"{v:.3g} s"),
    "bytes": ("bytes of training", lambda v: f"{v / 1e6:.4g} MB"),
}


def section(results, curves, a) -> str:
    rows = a.get("equal_spent") or []
    if not rows:
        return ""
    data = [
        [
            UNITS[r["field"]][0],
            f"{r['budget']:.3g}",
            UNITS[r["field"]][1](r["at"]),
            f4(r["dense"]),
            f4(r["moe"]),
            f"{r['difference']:+.4f}",
            span(r["interval"]),
            "extrapolated: beyond the runs" if r["extrapolated"] else "",
        ]
        for r in rows
    ]
    reading = (
        "Read off the fitted curves, as no run was made for it. Seconds: the best MoE loss at a"
        " budget against the dense loss at the same seconds of training, on the straight line in"
        " log loss against log seconds through the dense minima; they are this machine's and this"
        " implementation's. Bytes (of training, as counted): each family at its best size that"
        " needs no more, at the same budget; first with what the dense minimum needs, then with"
        " what the MoE minimum needs. 95% intervals."
    )
    columns = ["equal", "budget", "at", "dense", "MoE", "MoE − dense", "95%", "note"]
    return (
        "<section><h2>Dense against MoE at equal wall clock and equal memory</h2><p"
        f" class=read>{esc(reading)}</p>{table(columns, data)}</section>"
    )
