"""The loss of a run that is not there yet: what a fitted law says of it, with an interval for its
parameters and the noise of one run.
"""

import numpy as np

from experiments.laws.fitting import bootstrap, fit, residual_noise
from experiments.laws.fitting.fit import Fitted

EACH = 20  # draws of one run's noise for each draw of the parameters


def relative(f: Fitted, x: dict) -> float:
    """Noise of a run at inputs `x` over that of the points' mean, as the residuals show it to grow;
    no further than the points go.
    """
    if f.noise is None or not f.noise.shown:
        return 1.0
    mine = {k: float(v[0]) for k, v in x.items()} | {f.form.outcome: float(f.predict(x)[0][0])}
    inputs = {k: np.asarray(f.points.x[k], float) for k in f.form.inputs}
    seen = np.log(fit.covariates(f.form, f.theta, inputs, f.points.y)[f.noise.of])
    z = np.clip(np.log(mine[f.noise.of]), seen.min(), seen.max()) - seen.mean()
    return float(np.exp(f.noise.growth * z))


def noise(f: Fitted, x: dict, number: int, rng: np.random.Generator) -> np.ndarray:
    """Residuals of one more run at `x`, (number,): of the residuals' own scale and outliers, as
    uncertain as they leave it, and at least as large as between seeds.
    """
    own = f.noise if f.noise is not None and f.noise.shown else None
    weights = 1 / np.sqrt(np.maximum(f.points.w, 1e-12))
    floor = f.points.noise.sigma if f.points.noise else 0.0
    source = residual_noise.source(f.residuals, len(f.theta), own, weights, floor)
    one = source._replace(noise=None, relative=np.array([relative(f, x)]))
    return one.draw(rng, number)[:, 0]


def outlook(f: Fitted, x: dict, level: float = 0.95, seed: int = 0) -> dict:
    """{value, interval, parameters_interval, noise}: the fit's outcome at inputs `x`, each (1,).
    `interval` is for one more run, `parameters_interval` for the mean of many; None without an end.
    noise: standard deviation of one run in the residuals' unit. The law is taken to hold at `x`: no
    interval is for a wrong law.
    """
    value, draws = f.predict(x)
    value, draws = float(value[0]), draws[:, 0]
    centre = value if f.centred else None
    rng = np.random.default_rng([seed, 7])
    e = noise(f, x, EACH * len(draws), rng).reshape(len(draws), EACH)
    mean = bootstrap.recentred(draws, centre)
    if f.objective.space == "log":
        with np.errstate(over="ignore"):
            many = mean[:, None] * np.exp(e)
    else:
        many = mean[:, None] + e
    return {
        "value": value,
        "interval": bootstrap.interval(many.ravel(), level),
        "parameters_interval": bootstrap.interval(mean, level),
        "noise": float(np.std(e)),
    }
