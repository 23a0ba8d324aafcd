"""Curves through isoFLOP slices, all slices and all resamples at once: a parabola each in log N, by
Huber's loss, and one cubic (then one quartic) shape for all of them where the parabolas misfit.

Along the frontier of L = E + A / N^alpha + B / D^beta all derivatives of a slice fall alike, so the
third over the second is the same at every budget: one number says how lopsided the slices are.
"""

from typing import NamedTuple

import numpy as np

from experiments.laws.fitting import residual_noise

MISFIT = 0.995  # Student's quantile that a shape's estimate over its error must pass
BIWEIGHT = 4.685  # of sigma: 95% efficiency under normal noise
WIDE = (
    2.0  # half a slice's span in log N (sizes x/: 7.4) from which a parabola is known to be biased
)


class Slices(NamedTuple):
    """z: log N about the slice's middle, y: loss, inside: which are runs, each (slices, longest);
    middle: (slices,).
    """

    z: np.ndarray
    y: np.ndarray
    inside: np.ndarray
    middle: np.ndarray

    @property
    def low(self):
        return np.where(self.inside, self.z, np.inf).min(1)

    @property
    def high(self):
        return np.where(self.inside, self.z, -np.inf).max(1)


def slices(sizes: list, losses: list) -> Slices:
    """Of N and loss by slice, each (runs,)."""
    longest = max(map(len, sizes))
    z, y = np.zeros((len(sizes), longest)), np.zeros((len(sizes), longest))
    inside = np.arange(longest) < np.array([[len(n)] for n in sizes])
    middle = np.array([np.log(n).mean() for n in sizes])
    for i, (n, loss) in enumerate(zip(sizes, losses)):
        z[i, : len(n)], y[i, : len(n)] = np.log(n) - middle[i], loss
    return Slices(z, y, inside, middle)


class Curves(NamedTuple):
    """coefficients: (..., slices, 3), of 1, z, z^2; shape: (..., extra) of unit z^3, z^4, times the
    slices' `bend` (slices,).
    """

    coefficients: np.ndarray
    shape: np.ndarray
    bend: np.ndarray

    def _parts(self, z, order):
        """Values (order 0), slopes or curvatures at z (..., slices, points)."""
        powers = np.arange(3 + self.shape.shape[-1])
        factor = (np.ones(len(powers)), powers, powers * (powers - 1))[order]
        extra = self.shape[..., None, :] * self.bend[:, None]
        c = np.concatenate([self.coefficients, extra], -1) * factor
        out = np.zeros(np.broadcast_shapes(z.shape, (*c.shape[:-1], 1)))
        for p in powers[order:][::-1]:
            out = out * z + c[..., p : p + 1]
        return out

    def __call__(self, z):
        return self._parts(z, 0)

    def vertex(self, low, high):
        """z of each slice's minimum (..., slices) and the loss there; NaN without one within two
        spans of the sizes.
        """
        c = self.coefficients
        span = high - low
        with np.errstate(all="ignore"):
            z = np.where(c[..., 2] > 0, -c[..., 1] / (2 * c[..., 2]), np.nan)[..., None]
            if self.shape.shape[-1]:
                z = np.clip(z, low[:, None], high[:, None])
                for _ in range(8):
                    move = self._parts(z, 1) / self._parts(z, 2)
                    z = z - np.clip(move, -span[:, None] / 4, span[:, None] / 4)
                z = np.where(self._parts(z, 2) > 0, z, np.nan)
            far = (z[..., 0] < low - 2 * span) | (z[..., 0] > high + 2 * span)
            z = np.where(far[..., None], np.nan, z)
            return z[..., 0], self(z)[..., 0]


def _solve(s: Slices, y, w, extra: int, bend) -> tuple[Curves, np.ndarray]:
    """Weighted least squares; y, w: (draws, slices, points). Returns the curves, and the shapes'
    information (draws, extra, extra).
    """
    basis = s.z[..., None] ** np.arange(3)
    more = bend[:, None, None] * s.z[..., None] ** np.arange(3, 3 + extra)
    every = np.concatenate([basis, more], -1)
    k = 3 + extra
    products = (every[..., :, None] * every[..., None, :]).reshape(*s.z.shape, k * k)
    gram = np.matmul(w.transpose(1, 0, 2), products).transpose(1, 0, 2)
    gram = gram.reshape(*w.shape[:2], k, k)
    right = np.matmul((w * y).transpose(1, 0, 2), every).transpose(1, 0, 2)
    a, c, f = gram[..., :3, :3], gram[..., :3, 3:], gram[..., 3:, 3:]
    ridge = 1e-12 * np.trace(a, axis1=-2, axis2=-1)[..., None, None] * np.eye(3)
    both = np.linalg.solve(a + ridge, np.concatenate([right[..., :3, None], c], -1))
    own, part = both[..., 0], both[..., 1:]
    turned = np.swapaxes(c, -1, -2)
    information = (f - turned @ part).sum(1)
    if not extra:
        return Curves(own, np.zeros((len(y), 0)), bend), information
    left = (right[..., 3:] - (turned @ own[..., None])[..., 0]).sum(1)
    shape = np.linalg.solve(information + 1e-300 * np.eye(extra), left[..., None])[..., 0]
    return Curves(own - (part @ shape[:, None, :, None])[..., 0], shape, bend), information


def robust(s: Slices, y, relative, sigma: float, extra: int, bend, residuals, steps) -> Curves:
    """Reweighted least squares from `residuals`: `steps` of Huber's weights at 1.345 sigma, then as
    many of Tukey's biweight at 4.685, which lets go of an outlier at a slice's end too. y: (draws,
    slices, points); relative: of a point's noise, (slices, points).
    """
    base = np.where(s.inside, relative**-2.0, 0.0)
    for step in range(2 * steps):
        u = np.abs(residuals) / np.maximum(sigma * relative, 1e-300)
        if step < steps:
            w = np.minimum(1.0, residual_noise.TUNING / np.maximum(u, 1e-300))
        else:  # a slice keeps a little of every run, or it might keep too few
            w = np.maximum(1 - (u / BIWEIGHT) ** 2, 0.0) ** 2 + 1e-4
        curves, _ = _solve(s, y, base * w, extra, bend)
        residuals = y - curves(s.z)
    return curves


class Fit(NamedTuple):
    """curves: (1, ...); residuals, relative: (slices, points); noise: how it grows; sigma: of unit
    noise; parameters: how many were fitted; misfit: what the first shape's test said.
    """

    curves: Curves
    residuals: np.ndarray
    relative: np.ndarray
    noise: residual_noise.Uneven
    sigma: float
    parameters: int
    misfit: float


def fit(s: Slices) -> Fit:
    """Parabolas; a shared cubic, then a quartic, where a shape is sure to be there. Weights follow
    the noise where the residuals show that it is uneven.
    """
    from scipy import stats

    y, runs = s.y[None], int(s.inside.sum())
    relative, noise, found = np.ones(s.z.shape), None, None
    bend = np.ones(len(s.z))
    first, misfit = True, 0.0
    for extra in (0, 1, 2):
        many = 3 * len(s.z) + extra
        if runs - many < 3 + extra:
            break
        residuals = np.zeros(y.shape) if found is None else found.residuals[None]
        curves, sigma = None, np.inf
        for _ in range(2 if first else 1):
            for _ in range(4):  # the scale and the curves in turns
                curves = robust(s, y, relative, sigma, extra, bend, residuals, 4)
                residuals = y - curves(s.z)
                sigma = residual_noise.scale((residuals[0] / relative)[s.inside], many)
                if not sigma > 1e-12:
                    break
            u = residuals[0][s.inside] / _left(s, relative, extra, bend)[s.inside]
            loss = np.maximum(curves(s.z)[0], 1e-6)[s.inside]
            sizes = np.exp(s.z + s.middle[:, None])[s.inside]
            noise = residual_noise.uneven(u, {"N": sizes, "loss": loss}, runs - many)
            if noise.shown:
                relative = np.ones(s.z.shape)
                relative[s.inside] = noise.relative()
        if found is not None:
            w = np.where(s.inside, relative**-2.0, 0.0)[None]
            error = np.sqrt(np.linalg.inv(_solve(s, y, w, extra, bend)[1][0])[-1, -1])
            sure = abs(curves.shape[0, -1]) / max(error * sigma * 1.03, 1e-300)
            misfit = sure if extra == 1 else misfit
            wide = extra == 1 and np.median(s.high - s.low) / 2 > WIDE
            if not (sure > stats.t.ppf(MISFIT, runs - many) or wide):
                break
        found = Fit(curves, residuals[0], relative, noise, sigma, many, misfit)
        if extra == 0:
            bend = np.maximum(curves.coefficients[0, :, 2], 0.0)
            bend = bend / max(bend.max(), 1e-300)
        first = False
    if found is None:
        curves = robust(s, y, relative, np.inf, 0, bend, np.zeros(y.shape), 1)
        residuals = (y - curves(s.z))[0]
        sigma = float(np.sqrt((residuals[s.inside] ** 2).sum() / max(1, runs - 3 * len(s.z))))
        noise = residual_noise.uneven(np.zeros(runs), {}, 1)
        found = Fit(curves, residuals, relative, noise, sigma, 3 * len(s.z), 0.0)
    return found._replace(misfit=misfit)


def _left(s: Slices, relative, extra, bend):
    """(1 - leverage)^.5 of every run (slices, points), of the parabolas alone."""
    basis = (s.z[..., None] ** np.arange(3)) * (s.inside / relative)[..., None]
    out = np.ones(s.z.shape)
    for i, b in enumerate(basis):
        q = np.linalg.qr(b)[0]
        out[i] = np.sqrt(np.maximum(1 - (q**2).sum(1), 0.01))
    return out


def drawn(s: Slices, f: Fit, noise, sigma: float, extra: int) -> Curves:
    """The curves of resamples: noise (draws, slices, points) around the fit, fitted alike."""
    y = f.curves(s.z) + noise
    return robust(s, y, f.relative, sigma, extra, f.curves.bend, noise, 3)
