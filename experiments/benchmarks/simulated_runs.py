"""Made-up runs of a known law: truth, designs and noise in numpy alone, apart from the code that
fits.
"""

from typing import NamedTuple

import numpy as np

TRUTH = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
KAPLAN = {"alpha_N": 0.076, "alpha_D": 0.103, "Nc": 6.4e13, "Dc": 1.8e13}
FLOOR = {"E": 1.69, "A": 3300.0, "alpha": 0.17}  # of C
SIGMA = 0.003  # of log loss, a run
OUTLIERS = 0.05, 0.03  # share, how much too high
GROWTH = -0.35  # of sigma in N, where the noise is uneven: small models are the noisier ones


def chinchilla(n, d):
    t = TRUTH
    return t["E"] + t["A"] / n ** t["alpha"] + t["B"] / d ** t["beta"]


def split(c):
    """Compute-optimal N and D of the truth at C = 6 N D."""
    a, b = TRUTH["alpha"], TRUTH["beta"]
    g = (a * TRUTH["A"] / (b * TRUTH["B"])) ** (1 / (a + b))
    n = g * (c / 6) ** (b / (a + b))
    return n, c / 6 / n


class Design(NamedTuple):
    """N, D (runs,) and the budget each run belongs to; `reach`: where the optimum is asked."""

    n: np.ndarray
    d: np.ndarray
    reach: float = 100.0

    @property
    def c(self):
        return 6 * self.n * self.d


def isoflop(budgets: int, sizes: int, low=0.25, high=4.0, top=1e21) -> Design:
    """Sizes from the true optimum x low to x high at each of the budgets from 1e18 to `top`."""
    c = np.repeat(np.geomspace(1e18, top, budgets), sizes)
    n = split(c)[0] * np.tile(np.geomspace(low, high, sizes), budgets)
    return Design(n, c / 6 / n)


def factorial(sizes: int, lengths: int, decades: float) -> Design:
    half = 10 ** (decades / 2)
    n, d = (
        v.ravel()
        for v in np.meshgrid(
            3e8 * np.geomspace(1 / half, half, sizes), 1e10 * np.geomspace(1 / half, half, lengths)
        )
    )
    return Design(n, d)


def _one_line(runs: int) -> Design:
    n = np.geomspace(1e7, 1e10, runs)
    return Design(n, 20 * n)


DESIGNS = {
    "6 budgets x 7 sizes": isoflop(6, 7),
    "9 budgets x 11 sizes": isoflop(9, 11, top=1e22),
    "6 budgets x 5 sizes": isoflop(6, 5),
    "3 budgets x 5 sizes": isoflop(3, 5),
    "60 runs, D = 20 N": _one_line(60),
    "6 x 6, half a decade": factorial(6, 6, 0.5),
    "6 x 7, optimum at the edge": isoflop(6, 7, 0.7, 16.0),
    "6 x 7, sizes x/: 16": isoflop(6, 7, 1 / 16, 16.0),
}
OUTSIDE = isoflop(6, 7, 1.2, 30.0)  # no budget has its optimum among its sizes
NOISES = ("even", "outliers", "uneven")


def spread(n, noise: str) -> np.ndarray:
    """Standard deviation of log loss, (runs,)."""
    if noise != "uneven":
        return np.full(len(n), SIGMA)
    return SIGMA * (n / np.exp(np.log(n).mean())) ** GROWTH


def drawn(clean, n, noise: str, seed: int) -> np.ndarray:
    """`clean` losses with noise of log loss; the same for the same seed."""
    rng = np.random.default_rng([33, seed])
    loss = clean * np.exp(spread(n, noise) * rng.standard_normal(len(clean)))
    share, high = OUTLIERS
    hit = rng.random(len(clean)) < share
    return loss * np.where(hit, 1 + high, 1.0) if noise == "outliers" else loss


def power_floor(runs=30):
    """(C, clean loss) of E + A / C^alpha."""
    c = np.geomspace(1e17, 1e21, runs)
    return c, FLOOR["E"] + FLOOR["A"] / c ** FLOOR["alpha"]


def kaplan(design: Design) -> np.ndarray:
    t = KAPLAN
    ratio = t["alpha_N"] / t["alpha_D"]
    return ((t["Nc"] / design.n) ** ratio + t["Dc"] / design.d) ** t["alpha_D"]
