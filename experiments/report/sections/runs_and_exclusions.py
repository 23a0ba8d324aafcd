"""Every finished run, and what no fit used, with the reason."""

from experiments.planning import trunks
from experiments.report.elements import f4, table


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
    more = " ".join((*trunks.words(a["trunks"]), *_packs(results)))
    return (
        "<section><h2>Runs</h2><p class=read>Every finished run. N and FLOPs are counted;"
        f" conventions in docs/counting.md. {more}</p>"
        f"{table(columns, rows, 2)}</section>"
    )


def excluded(results, curves, a) -> str:
    rows = [[e["what"], e["why"]] for e in a["excluded"]] + [
        ["left out", line] for line in a.get("left_out", [])
    ]
    rows += [[f"used, but flagged: {e['what']}", e["why"]] for e in a["flagged"]]
    body = table(["what", "why"], rows, 2) if rows else "<p>Nothing was excluded.</p>"
    return f"<section><h2>Excluded, and why</h2>{body}</section>"


def _packs(results) -> list[str]:
    """That runs have been trained together: their seconds are shares."""
    packed = sum(r.get("members", 1) > 1 for r in results)
    if not packed:
        return []
    return [f"{packed} runs were trained in packs, whose seconds and tokens/s are shares."]
