"""Known truth, made-up runs: how often a 95% interval holds the truth, how wide it is beside an
ideal one, how the estimates compare with a peer's, and how often a verdict is false.

The ideal width is 2 x 1.96 times the root mean square error of the same estimates. Peers get the
same sets: scipy's curve_fit (least squares of log loss), and Epoch AI's recipe (sum-Huber 1e-3 of
log loss, BFGS from several starts).
"""

import time

import numpy as np

from experiments.benchmarks import simulated_runs as made
from experiments.laws import procedures, table_fit
from experiments.laws.fitting import allocation, fit, precision
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.fitting.solve import Objective
from experiments.laws.published.reproductions import besiroglu2024

RESAMPLES = 250
# what `isoflop fit` asks by default, and the objective of a reader who wants least squares
OBJECTIVES = {"chinchilla3": Objective(own=True), "chinchilla3, squared": Objective("squared")}
NAMES = ("alpha", "beta", "n_exponent", "n_opt", "loss")


def truth(design: made.Design) -> dict[str, float]:
    """Of NAMES, the optimum and its loss at a hundred times the largest budget."""
    t, n = made.TRUTH, made.split(design.c.max() * design.reach)
    return {
        "alpha": t["alpha"],
        "beta": t["beta"],
        "n_exponent": t["beta"] / (t["alpha"] + t["beta"]),
        "n_opt": float(n[0]),
        "loss": float(made.chinchilla(*n)),
    }


def parametric(objective, design, loss, seed) -> dict:
    """{quantity: (value, interval)} as `isoflop fit --law=chinchilla3` has them."""
    form, pts = FORMS["chinchilla3"], fit.Points({"N": design.n, "D": design.d}, loss)
    method, _ = table_fit.resampling(form, pts)
    f = fit.fit("chinchilla3", pts, objective, RESAMPLES, seed, method)
    at = allocation.optimum(f, float(design.c.max() * design.reach), allocation.Cost(), {})
    spans = f.intervals()
    out = {k: (f.parameters[k], spans[k]) for k in NAMES[:3]}
    return out | {k: (at[k]["value"], at[k]["interval"]) for k in NAMES[3:]}


def slices(design, loss, seed) -> dict:
    """The same of `--law=chinchilla2`; nothing where it refuses."""
    t = {"n_params": design.n, "tokens": design.d, "flops": design.c, "loss": loss}
    try:
        o = procedures.parabolas(t, resamples=RESAMPLES, seed=seed)
    except fit.FitError:
        return {}
    at = o.at(float(design.c.max() * design.reach))["n_opt"]
    span = precision.answer("", np.append(o.parameters["n_exponent"], o.draws["n_exponent"]), False)
    return {
        "n_exponent": (span["value"], span["interval"]),
        "n_opt": (at["value"], at["interval"]),
    }


def peer(theta, design) -> dict:
    """Quantities of (log E, log A, log B, alpha, beta)."""
    e, a, b, alpha, beta = theta
    g = np.exp((np.log(alpha / beta) + a - b) / (alpha + beta))
    c = design.c.max() * design.reach
    n = g * (c / 6) ** (beta / (alpha + beta))
    least = np.exp(e) + np.exp(a) / n**alpha + np.exp(b) / (c / 6 / n) ** beta
    return dict(zip(NAMES, (alpha, beta, beta / (alpha + beta), n, least)))


def curve_fit(design, loss) -> dict:
    from scipy import optimize

    ln, ld = np.log(design.n), np.log(design.d)

    def law(_, e, a, b, alpha, beta):
        return np.log(np.exp(e) + np.exp(a - alpha * ln) + np.exp(b - beta * ld))

    start = [0.5, 6.0, 6.0, 0.35, 0.3]
    theta = optimize.curve_fit(law, ln, np.log(loss), start, maxfev=20000)[0]
    return peer(theta, design)


def epoch(design, loss) -> dict:
    x, starts = {"N": design.n, "D": design.d}, ((0.5, 6, 6, 0.35, 0.3), (0.2, 8, 8, 0.5, 0.5))
    found = [
        besiroglu2024.scipy_huber(x, loss, list(s), mean=False, tight=True)
        for s in (*starts, (0.0, 4, 4, 0.2, 0.2))
    ]
    return peer(min(found, key=lambda r: r.fun).x, design)


PEERS = {"scipy curve_fit": curve_fit, "Epoch's recipe": epoch}


def simulate(design: made.Design, noise: str, sets: int) -> dict:
    """{method: {quantity: figures}} of one design."""
    clean, ours, theirs, spent = made.chinchilla(design.n, design.d), {}, {}, {}
    for seed in range(sets):
        loss = made.drawn(clean, design.n, noise, seed)
        tasks = {k: (parametric, (o,)) for k, o in OBJECTIVES.items()} | {
            "chinchilla2": (slices, ())
        }
        for name, (run, first) in tasks.items():
            started = time.process_time()
            ours.setdefault(name, []).append(run(*first, design, loss, seed))
            spent.setdefault(name, []).append(time.process_time() - started)
        for name, run in PEERS.items():
            started = time.process_time()
            try:
                theirs.setdefault(name, []).append(run(design, loss))
            except RuntimeError:  # curve_fit gave up
                theirs[name].append({})
            spent.setdefault(name, []).append(time.process_time() - started)
    true, out = truth(design), {}
    best = {k: min(_rmse(k, [s.get(k) for s in v], true) for v in theirs.values()) for k in NAMES}
    for name, rows in ours.items():
        out[name] = {
            k: _figures(k, [r[k] for r in rows if k in r], true, best[k])
            for k in NAMES
            if any(k in r for r in rows)
        }
    return {
        "quantities": out,
        "answered": {k: sum(bool(r) for r in v) for k, v in ours.items()},
        "cpu_s": {k: float(np.median(v)) for k, v in spent.items()},
    }


def _error(name, value, true):
    """In the unit of the quantity's threshold: a factor of N_opt counts by its logarithm."""
    return np.log(value / true[name]) if name == "n_opt" else value - true[name]


def _rmse(name, values, true) -> float:
    errors = [_error(name, v, true) for v in values if v is not None and np.isfinite(v) and v > 0]
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else np.inf


def _figures(name, rows, true, best) -> dict:
    """Coverage, width over ideal, error over the best peer's, verdicts that are false."""
    rmse = _rmse(name, [v for v, _ in rows], true)
    held = [s is None or s[0] <= true[name] <= s[1] for _, s in rows]
    width = [
        np.inf if s is None else _error(name, s[1], true) - _error(name, s[0], true)
        for _, s in rows
    ]
    out = {
        "coverage": float(np.mean(held)),
        "width": float(np.median(width) / (2 * 1.96 * rmse)),
        "rmse": rmse,
        "over_peer": rmse / best,
    }
    limit = {"n_exponent": precision.EXPONENT, "n_opt": np.log(precision.FACTOR)}
    limit |= {"loss": precision.SHARE * true.get("loss", np.nan)}
    if name in limit and name in true:
        found = [(precision.of(name, v, s), v) for v, s in rows]
        said = [(p.word, abs(_error(name, v, true))) for p, v in found if p]
        out["known"] = sum(w == "known" for w, _ in said)
        out["false_known"] = sum(w == "known" and bool(e > limit[name]) for w, e in said)
        out["open"] = sum(w == "open" for w, _ in said)
        fine = 1.96 * rmse <= limit[name]
        out["false_open"] = out["open"] if fine else 0
    return out


def one_input(law: str, noise: str, sets: int) -> dict:
    """Coverage of every headline parameter of power_floor or kaplan_nd, and its width over the
    ideal.
    """
    if law == "power_floor":
        c, clean = made.power_floor()
        x, size, true, names = {"C": c}, c**0.5, made.FLOOR, ("E", "alpha")
    else:
        d = made.DESIGNS["6 budgets x 7 sizes"]
        x, size, clean = {"N": d.n, "D": d.d}, d.n, made.kaplan(d)
        true, names = made.KAPLAN, ("alpha_N", "alpha_D")
    rows = []
    for seed in range(sets):
        pts = fit.Points(x, made.drawn(clean, size, noise, seed))
        method, _ = table_fit.resampling(FORMS[law], pts)
        f = fit.fit(law, pts, Objective(own=True), RESAMPLES, seed, method)
        spans = f.intervals()
        rows.append({k: (f.parameters[k], spans[k]) for k in names})
    figures = {k: _figures(k, [r[k] for r in rows], true, np.inf) for k in names}
    keep = ("coverage", "width", "rmse")
    return {"quantities": {law: {k: {n: v[n] for n in keep} for k, v in figures.items()}}}


def measure(scale: str, rounds: int) -> dict:
    """All designs and noises; `rounds`: sets of each."""
    designs = list(made.DESIGNS)[: 1 if scale == "toy" else None]
    rows = []
    for noise in made.NOISES:
        for name in designs:
            rows.append({"design": name, "noise": noise, "sets": rounds})
            rows[-1] |= simulate(made.DESIGNS[name], noise, rounds)
        for law in ("power_floor", "kaplan_nd"):
            rows.append({"design": law, "noise": noise, "sets": rounds})
            rows[-1] |= one_input(law, noise, rounds)
    return {"rows": rows, "sets": rounds, "resamples": RESAMPLES}


def text(a: dict) -> str:
    """A line for each design, noise and method: coverage / width over ideal (error over the best
    peer's). A line for each design and noise: verdicts.
    """
    lines = [f"{a['sets']} sets a design, {a['resamples']} resamples; coverage of 95% / width"]
    for r in a["rows"]:
        for method, found in r["quantities"].items():
            cells = [
                f"{k} {v['coverage']:.0%}/{v['width']:.2f}"
                + (f" ({v['over_peer']:.2f})" if "over_peer" in v else "")
                for k, v in found.items()
            ]
            cpu = f", {r['cpu_s'][method]:.2f} CPU s" if "cpu_s" in r else ""
            lines.append(f"{r['design']}, {r['noise']}, {method}{cpu}: {', '.join(cells)}")
        count = [v for found in r["quantities"].values() for v in found.values() if "known" in v]
        if count:
            total = {
                k: sum(v[k] for v in count) for k in ("known", "false_known", "open", "false_open")
            }
            lines.append("  verdicts: " + ", ".join(f"{k} {v}" for k, v in total.items()))
    return "\n".join(lines)
