"""What a fit does not say: parameters that the points leave open, ridges, bounds, starts that
disagree, residuals beyond the seeds' noise.
"""

import numpy as np

from experiments.laws.fitting import constraints, precision, solve
from experiments.laws.fitting.fit import Fitted
from experiments.laws.fitting.lack_of_fit import EXACT

FACTOR = 2.5  # a 95% interval that reaches zero or spans more than this is no identification
AT_BOUND = "at the bound of its range"


def covariance(f: Fitted) -> np.ndarray:
    """Of theta, linearised at the optimum, (parameters, parameters); a direction that the points do
    not see has a huge variance.
    """
    x = {k: f.points.x[k] for k in f.form.inputs}
    j = (
        solve.jacobian(f.form, f.theta, x, f.points.y, f.objective.space)
        * np.sqrt(f.points.w)[:, None]
    )
    size = np.maximum(np.sqrt((j**2).sum(0)), 1e-100)
    _, s, vt = np.linalg.svd(j / size, full_matrices=False)
    root = vt.T / np.maximum(s, 1e-15 * s[0])
    return (root @ root.T) * max(f.residual_sd, EXACT) ** 2 / size[:, None] / size[None, :]


def _interval(parameter, theta, se):
    with np.errstate(over="ignore"):
        low, high = theta - 1.96 * se, theta + 1.96 * se
        if parameter.kind == "positive":
            return np.exp(low), np.exp(high)
        return (1 + np.exp(low), 1 + np.exp(high)) if parameter.kind == "above_one" else (low, high)


def not_identified(f: Fitted) -> dict[str, str]:
    """{parameter: why} by its bootstrap interval, or by its linearised one where there are no
    draws.
    """
    intervals = f.intervals() if len(f.draws) else None
    se, low_bound, high_bound = np.sqrt(np.diag(covariance(f))), *f.form.bounds
    out = {}
    for i, p in enumerate(f.form.parameters):
        span = intervals[p.name] if intervals else _interval(p, f.theta[i], se[i])
        at_floor = p.unit == "nats/token" and f.parameters[p.name] < 0.02 * np.min(f.points.y)
        if f.theta[i] <= low_bound[i] + 1e-6 or f.theta[i] >= high_bound[i] - 1e-6:
            given = p.name in dict(f.form.within)
            out[p.name] = "at the bound that --within gave" if given else AT_BOUND
        elif span is None or not np.isfinite(span).all():
            out[p.name] = "its interval has no end"
        elif at_floor:
            out[p.name] = "indistinguishable from zero"
        elif span[0] <= 0 <= span[1]:
            out[p.name] = "its interval reaches zero"
        else:
            factor = max(abs(span[0]), abs(span[1])) / min(abs(span[0]), abs(span[1]))
            if factor > FACTOR:
                out[p.name] = f"known only within a factor {factor:.2g}"
    return out


def ridges(f: Fitted, loose: dict) -> list[str]:
    """Pairs of parameters of which one is loose and that move together along the valley of the
    objective.
    """
    c = covariance(f)
    sd, names, out = np.sqrt(np.diag(c)), f.form.names, []
    for i in range(len(names)):
        for k in range(i + 1, len(names)):
            r = c[i, k] / (sd[i] * sd[k])
            if abs(r) > 0.95 and {names[i], names[k]} & set(loose):
                out.append(f"{names[i]} and {names[k]} move together (correlation {r:+.3f})")
    return out


def headline(f: Fitted) -> set[str]:
    """Parameters that a reader takes away: floors, exponents and rates, not the prefactors that
    move with them.
    """
    scale = {"", "parameters", "tokens", "FLOPs"}
    return {
        p.name
        for p in f.form.parameters
        if p.kind == "real" or (p.kind == "positive" and p.unit not in scale)
    }


def at_bound(f: Fitted) -> list[str]:
    low, high = f.form.bounds
    return [
        n for n, t, a, b in zip(f.form.names, f.theta, low, high) if t <= a + 1e-6 or t >= b - 1e-6
    ]


def gradient_norm(f: Fitted) -> float:
    """Euclidean norm of d objective / d theta (for lad: of its last Huber stage)."""
    x = {k: f.points.x[k] for k in f.form.inputs}
    j, r = solve.jacobian(f.form, f.theta, x, f.points.y, f.objective.space), f.residuals
    huber = f.objective.kind == "huber"  # whose delta may be a point's own
    delta = f.objective.at(f.points.w) if huber else f.objective.deltas[-1]
    slope = (
        np.where(r > 0, f.objective.penalty, 1.0)
        * np.clip(r, -delta, delta)
        * {"huber": 1.0, "squared": 2.0, "lad": 1 / delta}[f.objective.kind]
    )
    return float(np.linalg.norm(j.T @ (f.points.w * slope)))


def _made_by_hand(f: Fitted, spans: dict) -> list[str]:
    """Derived quantities that --fix or --tie alone set: no draw moves them."""
    if not (f.form.fixed or f.form.tied):
        return []
    own = {*f.form.names, *dict(f.form.fixed), *dict(f.form.tied)}
    return [
        k
        for k, v in spans.items()
        if k not in own and v and v[1] - v[0] <= 1e-9 * max(abs(v[0]), abs(v[1]))
    ]


def _tilted(f: Fitted) -> str:
    """What an asymmetric loss does to the answer and its intervals."""
    above = -float((f.points.w * f.residuals).sum() / f.points.w.sum())
    size = f"{above:.2%}" if f.objective.space == "log" else f"{above:.3g}"
    return (
        f"overestimates count {f.objective.penalty:g} times: the curve lies below the runs by"
        f" {size} on average, and intervals are for that curve, not for the mean of the runs"
    )


def read(f: Fitted) -> dict:
    """The verdicts as JSON-ready values; `words` is one sentence."""
    loose = not_identified(f)
    pairs, main = ridges(f, loose), headline(f)
    lost = int(np.isnan(f.draws).any(1).sum()) if len(f.draws) else 0
    open_ = {k: v for k, v in loose.items() if k in main}
    rest = {k: v for k, v in loose.items() if k not in main}

    def named(which):
        return ", ".join(f"{k} ({v})" for k, v in which.items())

    spans = f.intervals() if len(f.draws) else {}
    made = _made_by_hand(f, spans)
    spans = {k: v for k, v in spans.items() if k not in made}
    asked = {k: precision.of(k, f.parameters[k], v) for k, v in spans.items()}
    asked = {k: v for k, v in asked.items() if v}
    if "n_exponent" in asked:
        asked.pop("d_exponent", None)  # one less the other
    open_ |= {k: v.words.removeprefix("open: ") for k, v in asked.items() if v.word == "open"}
    doubt = [k for k, v in asked.items() if v.word == "borderline"]
    if open_:
        words = [f"not identified by these runs: {named(open_)}"]
    else:
        words = [f"borderline: {', '.join(doubt)}" if doubt else "identified"]
    words += [f"{k} {v.words}" for k, v in list(asked.items())[:1] if v.word != "open"]
    if not f.converged:
        words[0] = words[0] if open_ else "not converged"
        words.append("the best start had not converged: do not use these numbers")
    if given := constraints.words(f.form):
        exact = "; intervals take what is fixed as exact" * bool(f.form.fixed)
        said = "".join(f"; {k} is {f.parameters[k]:.4g} by that alone" for k in made)
        words.append(f"given: {', '.join(f'{k} {v}' for k, v in given.items())}{exact}{said}")
    if f.objective.penalty != 1:
        words.append(_tilted(f))
    if rest:
        words.append(f"prefactors left open: {named(rest)}")
    if f.points.noise and f.residual_sd > 2 * f.points.noise.sigma:
        words.append(
            f"residuals are {f.residual_sd / f.points.noise.sigma:.1f} times the noise of one run:"
            " the form does not fit these runs"
        )
    return {
        "words": "; ".join(words),
        "converged": f.converged,
        "identified": not open_ and not doubt and f.converged,
        "starts_at_optimum": f.at_optimum,
        "gradient_norm": gradient_norm(f),
        "at_bound": at_bound(f),
        "not_identified": loose,
        "asked": {k: {"verdict": v.word, "words": v.words} for k, v in asked.items()},
        "ridges": pairs,
        "given": given,
        "resamples_without_optimum": lost,
    }
