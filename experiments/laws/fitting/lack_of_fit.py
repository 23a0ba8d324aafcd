"""Student-t intervals from a fit's own lack of fit, where the points are fewer than a resample can
use: three points and two free parameters are a fit, and one degree of freedom says how sure.
"""

import numpy as np

from experiments.laws.fitting import solve
from experiments.laws.fitting.formula import Form

FEW = 3  # degrees of freedom below which noise of its own size cannot be drawn
DRAWS = 4000
EXACT = 1e-9  # residual noise below this is taken as this: even exact losses are rounded somewhere


def draws(
    form: Form, theta, x: dict, y, w, residuals, space: str, rng: np.random.Generator
) -> np.ndarray:
    """(DRAWS, parameters) of the multivariate t of least squares, linearised at the optimum: its
    covariance is s^2 (J' W J)^-1 with s^2 = sum w r^2 / (n - p), and n - p degrees of freedom. In
    the box of the form.
    """
    from scipy import stats

    dof = len(y) - len(theta)
    j = solve.jacobian(form, theta, x, y, space) * np.sqrt(w)[:, None]
    size = np.maximum(np.sqrt((j**2).sum(0)), 1e-100)
    _, s, vt = np.linalg.svd(j / size, full_matrices=False)
    root = vt.T / np.maximum(s, 1e-15 * s[0]) / size[:, None]
    sigma = max(float(np.sqrt((w * residuals**2).sum() / dof)), EXACT)
    half = rng.standard_normal((DRAWS // 2, root.shape[1]))
    z = np.concatenate([half, -half])
    # one quantile of the chi-square each: few draws would leave the tails to chance
    share = (rng.permutation(DRAWS // 2) + 0.5) / (DRAWS // 2)
    spread = np.sqrt(dof / np.tile(stats.chi2.ppf(share, dof), 2))
    low, high = form.bounds
    return np.clip(theta + sigma * spread[:, None] * (z @ root.T), low, high)
