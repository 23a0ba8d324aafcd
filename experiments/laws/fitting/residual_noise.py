"""Noise of one run as a fit's own residuals show it: a scale that outliers do not move, a growth
with size or loss, and the pool that resamples draw from.
"""

from typing import NamedTuple

import numpy as np

TUNING = 1.345  # Huber 1981: delta over sigma, 95% efficiency under normal noise
CLIP = 2.0  # residuals beyond so many scales say no more about how the noise grows
OUTLIER = 3.5  # scales beyond which a residual is drawn as it is, and is no part of the scale
SURE = 9.0  # likelihood ratio of a growth, 99.7%: weights that follow chance cost more


class Uneven(NamedTuple):
    """Noise of log loss (or loss) goes as `of`^growth, the growth known to +- error (one standard
    deviation); z: log of `of` about its mean, (points,). `shown`: the residuals say so by
    themselves.
    """

    of: str
    growth: float
    error: float
    z: np.ndarray
    shown: bool

    def relative(self, growth=None) -> np.ndarray:
        """(points,), geometric mean one; at other growths, (draws, 1): (draws, points)."""
        return np.exp((self.growth if growth is None else growth) * self.z)

    def __str__(self):
        if not self.shown:
            return "noise is even as far as the residuals show"
        return f"noise goes as {self.of}^{self.growth:.2g}"


def scale(r, parameters: int) -> float:
    """Standard deviation of most residuals, by the 1.4826 x median of the largest n - p (of a fit
    of p parameters, p residuals may be zero) and from there Huber's proposal 2 (Huber 1981, section
    6.7) with k = 1.5.
    """
    a = np.sort(np.abs(np.asarray(r, float)))
    left = max(1, len(a) - parameters)
    s = 1.4826 * float(np.median(a[-left:]))
    if s == 0:
        return float(np.sqrt((a**2).sum() / left))
    k, beta = 1.5, 0.7784655  # E min(z^2, k^2) of a normal z
    for _ in range(30):
        s = s * np.sqrt((np.minimum(a / s, k) ** 2).sum() / (left * beta))
    return float(s)


def leverage(jac, w) -> np.ndarray:
    """Diagonal of the hat matrix of a weighted fit, (points,); jac: (points, parameters)."""
    j = np.asarray(jac) * np.sqrt(w)[:, None]
    size = np.maximum(np.sqrt((j**2).sum(0)), 1e-100)
    u, s, _ = np.linalg.svd(j / size, full_matrices=False)
    return np.minimum((u[:, s > 1e-9 * s[0]] ** 2).sum(1), 0.99)


def uneven(r, covariates: dict, left: int) -> Uneven:
    """How the noise of residuals `r` (points,) grows with that one of `covariates` (each (points,),
    positive) which explains it best. left: degrees of freedom. Outliers are clipped. Below twenty
    degrees of freedom nothing is shown: one outlier would look like a growth.
    """
    r = np.abs(np.asarray(r, float))
    best = (-1.0, Uneven("", 0.0, 0.0, np.zeros(len(r)), False))
    if not np.median(r) > 0:
        return best[1]
    steps = np.linspace(-3, 3, 61)  # of the log of sigma over a standard deviation of z
    for name, values in covariates.items():
        z = np.log(np.asarray(values, float))
        z = z - z.mean()
        if not z.std() > 1e-3:
            continue
        growths = steps / z.std()
        u = r / np.exp(growths[:, None] * z)
        s = 1.4826 * np.median(u, 1)[:, None]
        for _ in range(10):
            s = s * np.sqrt((np.minimum(u / s, CLIP) ** 2).mean(1, keepdims=True))
        gain = -2 * len(r) * np.log(s[:, 0] / s[30, 0])
        i = int(np.argmax(gain))
        if gain[i] > best[0]:
            error = 1.15 / np.sqrt(2 * left) / z.std()  # the clip costs some of the information
            shown = gain[i] > SURE and left >= 20
            best = float(gain[i]), Uneven(name, float(growths[i]), float(error), z, bool(shown))
    return best[1]


class Source(NamedTuple):
    """Where a resample's noise comes from: normal of `sigma`, `share` of it replaced by `outliers`
    (standardised residuals, as they are but for their sign); uneven by `noise`, or by `relative`
    (points,) where the weights are given. dof: behind sigma.
    """

    sigma: float
    share: float
    outliers: np.ndarray
    dof: int
    noise: Uneven | None
    relative: np.ndarray

    def draw(self, rng: np.random.Generator, resamples: int) -> np.ndarray:
        """(resamples, points): sigma and the growth are as uncertain as the residuals leave
        them.
        """
        shape = (resamples, len(self.relative))
        size = self.sigma * np.sqrt(self.dof / rng.chisquare(self.dof, (resamples, 1)))
        e = size * rng.standard_normal(shape)
        if len(self.outliers):
            wild = rng.choice(self.outliers, shape) * rng.choice([-1.0, 1.0], shape)
            e = np.where(rng.random(shape) < self.share, wild, e)
        if self.noise is None:
            return e * self.relative
        n = self.noise
        relative = n.relative(n.growth + n.error * rng.standard_normal((resamples, 1)))
        power = (relative**2).mean(1, keepdims=True) / (n.relative() ** 2).mean()
        return e * relative / np.sqrt(power)  # a steeper growth adds no noise on the whole


def source(r, parameters: int, noise: Uneven | None, relative, floor: float = 0.0) -> Source:
    """Of residuals `r` (points,) of a fit. floor: sigma at least (seeds may say so)."""
    u = np.asarray(r, float) / (relative if noise is None else noise.relative())
    sigma = scale(u, parameters)
    wild = np.abs(u) > OUTLIER * sigma
    dof = max(1, len(u) - parameters - int(wild.sum()))
    return Source(max(sigma, floor), float(wild.mean()), u[wild], dof, noise, relative)
