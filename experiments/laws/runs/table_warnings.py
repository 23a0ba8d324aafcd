"""What a table or a question looks like when something is amiss: a line each, beside the answer."""

import numpy as np

from experiments.laws.runs import table as tables

LIKELY = 0.05, 100.0  # C / (N D) of runs whose columns are in one set of units
FAR = 3.0  # decades outside the runs from which on an answer is a guess


def warnings(table, n: str, asked) -> list[str]:
    """What does not look like runs in one set of units, or like a question about these runs."""
    out, has = [], lambda *names: all(k in table and table[k].dtype != object for k in names)
    size = n if n in table else "n_params"
    seen = {"N": size, "D": "tokens", "C": "flops", "loss": "loss"}

    def sound(v):
        return v[np.isfinite(v) & (v > 0)]

    spans = {k: sound(table[v]) for k, v in seen.items() if has(v)}
    spans = {k: (v.min(), v.max()) for k, v in spans.items() if len(v)}
    if has(size, "tokens", "flops"):
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = table["flops"] / (table[size] * table["tokens"])
        bad = np.isfinite(ratio) & ((ratio < LIKELY[0]) | (ratio > LIKELY[1]))
        if bad.any():
            i = int(np.argmax(bad))
            out.append(
                f"C / (N D) is {ratio[i]:.3g} in {tables.place(table, i)} and outside"
                f" {LIKELY[0]:g} to {LIKELY[1]:g} in {int(bad.sum())} of {len(bad)} rows, where 6"
                " is usual: are all columns in plain units (parameters, tokens, FLOPs)?"
            )
    elif has(size, "tokens"):
        spent = sound(6 * table[size] * table["tokens"])
        spans |= {"C": (spent.min(), spent.max())} if len(spent) else {}
    for q in asked:
        for k, v in q.items():
            if k not in spans or k == "loss":
                continue
            low, high = spans[k]
            beyond = max(np.log10(v / high), np.log10(low / v))
            if beyond > FAR:
                out.append(
                    f"{k}={v:g} is {beyond:.1f} decades outside these runs ({low:.3g} to"
                    f" {high:.3g}): the answer is a guess"
                )
    if "source_file" in table and "row" in table and np.isnan(table["row"]).any():
        if np.isfinite(table["row"]).any():
            out.append("folders and files are fitted together: do they count N and C alike?")
    return out
