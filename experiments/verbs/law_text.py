"""The answer of a law fit in a few lines of text."""

from experiments.report.labels import number


def g(v) -> str:
    return "unbounded" if v is None else f"{v:.5g}"


def spread(value, interval) -> str:
    """0.3473 [0.3167, 0.3725]; in words where a bound is missing."""
    if value is None:
        return "none"
    return g(value) + (f" [{g(interval[0])}, {g(interval[1])}]" if interval else " [no interval]")


def _levels(at: dict, write=g) -> str:
    """ "; 80% [0.33, 0.36], 50% [0.34, 0.35]": intervals at other levels, if there are any."""
    parts = [f"{k} [{write(v[0])}, {write(v[1])}]" if v else f"{k} none" for k, v in at.items()]
    return f"; {', '.join(parts)}" if parts else ""


def _value(a: dict, k: str, x, given: dict) -> str:
    """A parameter with its intervals, or what was given of it."""
    if str(given.get(k, "")).startswith("fixed"):
        return f"  {k:<12} {g(x)} (fixed)"
    said = f" ({given[k]})" if k in given else ""
    more = _levels({p: v.get(k) for p, v in a.get("intervals_at", {}).items()})
    return f"  {k:<12} {spread(x, a['intervals'].get(k))}{more}{said}"


def big(a: dict) -> str:
    """A count with its interval, in k, M, G, T."""
    if a["value"] is None:
        return "none"
    return number(a["value"]) + (
        f" [{number(a['interval'][0])}, {number(a['interval'][1])}]"
        if a["interval"]
        else " [no interval]"
    )


def _prediction(p: dict) -> str:
    given = ", ".join(f"{k}={v:g}" for k, v in p["given"].items())
    parts = []
    for k, v in p.items():
        if isinstance(v, dict) and "value" in v:
            count = k in ("n_opt", "d_opt", "effective_parameters")
            said = big(v) if count else spread(v["value"], v["interval"])
            known = f" ({v['words']})" if v.get("words") else ""
            levels = _levels(v.get("intervals", {}), number if count else g)
            parts.append(f"{k} {said}{levels}{known}")
        elif k == "verdict":
            parts.append(v)
        elif k == "memory_binds":
            parts.append("memory is the limit" if v else "memory is no limit")
    return f"at {given}: {', '.join(parts)}"


def text(a: dict) -> str:
    v = a["verdicts"]
    units = ", ".join(f"{k}: {u}" for k, u in a["conventions"].items())
    lines = [
        f"{a['law']}: {a['formula']}",
        f"  {a['source']}",
        f"  {units}",
        (
            f"  {a['n_points']} points, {a['objective_name']}; 95% intervals from"
            f" {a['bootstrap']['resamples']} resamples ({a['bootstrap']['method']})"
        ),
    ]
    lines += [f"  left out: {e['what']}: {e['why']}" for e in a.get("left_out", [])]
    lines += [f"  warning: {w}" for w in a.get("warnings", [])]
    lines += [f"  warning: {v['warning']}"] if v.get("warning") else []
    lines += [
        _value(a, k, x, v.get("given") or {})
        for k, x in {**a["parameters"], **a.get("derived", {})}.items()
    ]
    lines.append(f"  objective    {g(a['objective'])}")
    lines.append(f"verdict: {v['words']}")
    if "starts_at_optimum" in v:
        lines.append(
            f"  {v['starts_at_optimum']:.0%} of the starts at the optimum, gradient norm"
            f" {g(v['gradient_norm'])}, weights {a['weights']}"
        )
    lines += [f"  ridge: {r}" for r in v.get("ridges", [])] + [
        f"  edge: {e}" for e in v.get("edges", [])
    ]
    if a.get("extrapolation"):
        e = a["extrapolation"]
        lines.append(
            f"held out: fitted to {e['n_fit']} runs of less compute, {e['n_test']} runs above are"
            f" off by {e['mean_relative_error']:.2%} on average, {e['worst_relative_error']:.2%} at"
            " worst"
        )
    lines += [_prediction(p) for p in a["predictions"]]
    if a.get("leverage"):
        lines.append(
            f"leverage of {a['leverage']['experts']:g} experts over dense: {a['leverage']['words']}"
        )
        lines += [
            f"  {p['flops']:.3g} FLOPs: {spread(p['value'], p['interval'])}"
            for p in a["leverage"]["curve"]
        ]
    for p in a["published"]:
        lines.append(
            f"published ({p['mark']}): {p['name']}:"
            f" {', '.join(f'{k} {x:g}' for k, x in p['values'].items())}; {p['where']}"
        )
    return "\n".join(lines)
