"""Predictions, and what came of them, a line each."""

from launch.runs import predictions


def loss(p: dict, digits: int = 4) -> str:
    low, high = p["interval"]
    return f"{p['loss']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def line(row: dict) -> str:
    """One prediction and where its run stands."""
    p, j = row["prediction"], row["judged"]
    spent = f"{p['flops']:.3g} FLOPs, x{predictions.times(p['distance'])}"
    head = f"{p['id']}  {p['date'][:10]}  {p['family']}  {spent}"
    said = f"{head}: predicted {loss(p)}"
    if j and j["inside"] is not None:
        return f"{said}, measured {j['measured']:.4f}: {'inside' if j['inside'] else 'OUTSIDE'}"
    if j:
        return f"{said}: not judged ({j['why']})"
    if row["step"] is None:
        return f"{said}: not trained yet"
    at = f"step {row['step']:,} of {p['steps']:,}"
    now = "" if row["training_loss"] is None else f", training loss {row['training_loss']:.4f}"
    law = "" if row["law_now"] is None else f" (the law, ending there: {row['law_now']:.4f})"
    return f"{said}; {row['state']}, {at}{now}{law}"


def tally(rows: list[dict]) -> list[str]:
    """How often inside, by distance."""
    out = []
    for r in predictions.tally([r["judged"] for r in rows if r["judged"]]):
        if r["judged"]:
            out.append(f"{predictions.reach(r)}: {r['inside']} of {r['judged']} inside")
    waiting = sum(not r["judged"] for r in rows)
    return [*out, f"{waiting} not finished"] if waiting else out
