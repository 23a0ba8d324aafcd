"""Law forms, one entry each: formula, source, inputs, parameters with units and start values, and
which of them enter linearly.

A new law is one entry in FORMS. N: parameters, D: training tokens, C: training FLOPs, L: nats per
token, natural logarithms unless the formula says log10; E in MoE laws: experts, G: granularity d_ff
/ d_expert, S: inactive share of the experts.
"""

import jax.numpy as jnp
import numpy as np

from experiments.laws.fitting.formula import Form, Parameter


def _positive(name, starts=(), unit="", low=1e-12, high=1e30):
    return Parameter(name, tuple(starts), "positive", low, high, unit)


def _real(name, starts=(0.0,), unit="", low=-10.0, high=10.0):
    return Parameter(name, tuple(starts), "real", low, high, unit)


def _exponent(name, starts=(0.05, 0.15, 0.3, 0.5, 0.8, 1.2)):
    return Parameter(name, tuple(starts), "real", 0.0, 3.0)


def _floor(name="E", starts=()):
    return _positive(name, starts, "nats/token", 1e-6, 100.0)


def pw(x, k):
    """x^k for positive x."""
    return jnp.exp(k * jnp.log(x))


def effective_experts(e, start, limit):
    """Clark et al. 2022, eq 1: Eh(1) = start, Eh(inf) = limit."""
    return 1 / (1 / (e - 1 + 1 / (1 / start - 1 / limit)) + 1 / limit)


_ES = Parameter("Es", (1.2, 2.0, 4.0, 10.0), "above_one", 1 + 1e-4, 1e4, "experts")
_RATIO = Parameter("Em_over_Es", (20.0, 100.0, 500.0), "above_one", 1 + 1e-2, 1e6)
_KAPLAN = "Kaplan et al. 2020, arXiv 2001.08361, eq "


def _kaplan(letter, equation, unit, what):
    return Form(
        f"L = ({letter}c / {letter})^alpha",
        f"{_KAPLAN}{equation}; no irreducible term: its exponent is not comparable with laws that"
        " have E",
        (letter,),
        (_exponent("alpha"), _positive(f"{letter}c", 10.0 ** np.arange(6, 27, 2), unit)),
        lambda p, x: jnp.exp(
            p.alpha * (jnp.log(getattr(p, f"{letter}c")) - jnp.log(getattr(x, letter)))
        ),
    )


def _split(p):
    """Chinchilla's frontier: G, and N_opt ~ C^n_exponent, D_opt ~ C^d_exponent (eq 4)."""
    total = p.alpha + p.beta
    return {
        "n_exponent": p.beta / total,
        "d_exponent": p.alpha / total,
        "G": jnp.exp((jnp.log(p.alpha * p.A) - jnp.log(p.beta * p.B)) / total),
    }


def _muennighoff(p, x):
    unique = jnp.minimum(x.U, x.D)
    g = jnp.exp((jnp.log(p.alpha * p.A) - jnp.log(p.beta * p.B)) / (p.alpha + p.beta))
    n_unique = jnp.minimum(x.N, g * pw(g * unique, p.beta / p.alpha))

    def saturate(first, all_, r):
        return first + first * r * -jnp.expm1(-(all_ / first - 1) / r)

    return (
        p.E
        + p.A * pw(saturate(n_unique, x.N, p.RN), -p.alpha)
        + p.B * pw(saturate(unique, x.D, p.RD), -p.beta)
    )


def _clark(p, x):
    e = jnp.log10(effective_experts(x.E, p.Es, p.Es * p.Em_over_Es))
    n = jnp.log10(x.N)
    return pw(10.0, p.a * n + p.b * e + p.c * n * e + p.d)


def _ludziejewski(p, x):
    e = jnp.log(effective_experts(x.E, p.Es, p.Es * p.Em_over_Es))
    size = p.a * jnp.exp(p.delta * e + (p.alpha + p.gamma * e) * jnp.log(x.N))
    return size + p.b * jnp.exp(p.omega * e + (p.beta + p.zeta * e) * jnp.log(x.D)) + p.c


OVERHEAD = 0.2  # more tokens than the smallest batch wants: Zhang et al. 2024, arXiv 2410.21676


def critical(k, a, b, n, d):
    """The critical batch in tokens: k at 1M parameters and 1G tokens."""
    return k * pw(n / 1e6, a) * pw(d / 1e9, b)


def _critical_batch(p, x):
    effective = x.D / (1 + x.B / critical(p.k, p.a, p.b, x.N, x.D))
    return p.E + p.A * pw(x.N, -p.alpha) + p.H * pw(effective, -p.beta)


_CHINCHILLA = (_floor(), _positive("A"), _positive("B"), _exponent("alpha"), _exponent("beta"))

FORMS = {
    "kaplan_n": _kaplan("N", "1.1", "parameters", "non-embedding"),
    "kaplan_d": _kaplan("D", "1.2", "tokens", ""),
    "kaplan_c": _kaplan("C", "1.3", "FLOPs", ""),
    "kaplan_nd": Form(
        "L = ((Nc / N)^(alpha_N / alpha_D) + Dc / D)^alpha_D",
        f"{_KAPLAN}1.5",
        ("N", "D"),
        (
            _exponent("alpha_N", (0.05, 0.1, 0.3)),
            _exponent("alpha_D", (0.05, 0.1, 0.3)),
            _positive("Nc", 10.0 ** np.arange(7, 17, 2), "parameters"),
            _positive("Dc", 10.0 ** np.arange(7, 17, 2), "tokens"),
        ),
        lambda p, x: jnp.exp(
            p.alpha_D
            * jnp.logaddexp(p.alpha_N / p.alpha_D * jnp.log(p.Nc / x.N), jnp.log(p.Dc / x.D))
        ),
        optimum=True,
    ),
    "power_floor": Form(
        "L = E + A / C^alpha",
        "Henighan et al. 2020, arXiv 2010.14701, eq 1.1 (A = x0^alpha); another variable:"
        " --columns=flops=NAME",
        ("C",),
        (_floor(), _positive("A"), _exponent("alpha", np.geomspace(0.02, 1.5, 12))),
        lambda p, x: p.E + p.A * pw(x.C, -p.alpha),
        ("E", "A"),
        derived=lambda p: {"x0": pw(p.A, 1 / p.alpha)},
    ),
    "chinchilla3": Form(
        "L = E + A / N^alpha + B / D^beta",
        "Hoffmann et al. 2022, arXiv 2203.15556, eq 2 and 10",
        ("N", "D"),
        _CHINCHILLA,
        lambda p, x: p.E + p.A * pw(x.N, -p.alpha) + p.B * pw(x.D, -p.beta),
        ("E", "A", "B"),
        derived=_split,
        optimum=True,
    ),
    "muennighoff2023": Form(
        "L = E + A / N'^alpha + B / D'^beta, D' = U (1 + RD (1 - exp(-(D/U - 1) / RD))), N'"
        " likewise from N_opt(U) and RN",
        "Muennighoff et al. 2023, arXiv 2305.16264, eq 5-6; U: unique tokens",
        ("N", "D", "U"),
        (
            _floor("E", (1.0, 1.8)),  # A and B set N_opt(U) too, so the law is not linear in them
            _positive("A", (50.0, 500.0, 5000.0)),
            _positive("B", (50.0, 500.0, 5000.0)),
            _exponent("alpha", (0.15, 0.3, 0.5, 0.8)),
            _exponent("beta", (0.15, 0.3, 0.5, 0.8)),
            _positive("RD", (5.0, 30.0), "epochs", 1e-2, 1e6),
            _positive("RN", (3.0, 20.0), "excess sizes", 1e-2, 1e6),
        ),
        _muennighoff,
    ),
    "gadre2024": Form(
        "L = E + (a M^eta + b M^-eta) C^-eta",
        "Gadre et al. 2024, arXiv 2403.08540, eq 4; M = D / N. Chinchilla's form with alpha = beta"
        " = 2 eta",
        ("C", "M"),
        (_floor(), _positive("a"), _positive("b"), _exponent("eta", np.geomspace(0.02, 1.0, 14))),
        lambda p, x: p.E + (p.a * pw(x.M, p.eta) + p.b * pw(x.M, -p.eta)) * pw(x.C, -p.eta),
        ("E", "a", "b"),
        derived=lambda p: {"M_opt": pw(p.b / p.a, 0.5 / p.eta), "alpha": 2 * p.eta},
    ),
    "gadre2024_error": Form(
        "Err = eps - k exp(-gamma L)",
        "Gadre et al. 2024, arXiv 2403.08540, eq 5; L in nats/token, Err the mean top-1 error",
        ("L",),
        (
            _positive("eps", (), "error"),
            _positive("k"),
            _positive("gamma", np.geomspace(0.05, 5, 14), "1/nat", 1e-3, 50),
        ),
        lambda p, x: p.eps - p.k * jnp.exp(-p.gamma * x.L),
        ("eps", "k"),
        outcome="error",
    ),
    "clark2022": Form(
        "log10 L = a log10 N + b log10 Eh + c log10 N log10 Eh + d, 1/Eh = 1/(E - 1 + (1/Es -"
        " 1/Em)^-1) + 1/Em",
        "Clark et al. 2022, arXiv 2202.01169, eq 1; N: parameters that a token sees, E = 1 is"
        " dense",
        ("N", "E"),
        (_real("a"), _real("b"), _real("c"), _real("d", (0.0,), "", -50, 50), _ES, _RATIO),
        _clark,
        ("a", "b", "c", "d"),
        "log",
        lambda p: {"Em": p.Es * p.Em_over_Es, "N_cut": pw(10.0, -p.b / p.c)},
        columns=(("N", "n_active_params"),),
    ),
    "krajewski2024": Form(
        "L = c + (g / G^gamma + a) / N^alpha + b / D^beta",
        "Krajewski et al. 2024, arXiv 2402.07871, eq 9; N counts the parameters of all experts at"
        " one expansion rate",
        ("N", "D", "G"),
        (
            _floor("c"),
            _positive("g"),
            _positive("a"),
            _positive("b"),
            _exponent("alpha", (0.06, 0.15, 0.3, 0.6)),
            _exponent("beta", (0.06, 0.15, 0.3, 0.6)),
            _exponent("gamma", (0.2, 0.6, 1.2)),
        ),
        lambda p, x: (
            p.c + (p.g * pw(x.G, -p.gamma) + p.a) * pw(x.N, -p.alpha) + p.b * pw(x.D, -p.beta)
        ),
        ("c", "g", "a", "b"),
        optimum=True,
    ),
    "abnar2025": Form(
        "L = a / N^alpha + b / D^beta + c / (1-S)^lambda + d / ((1-S)^delta N^gamma) + e",
        "Abnar et al. 2025, arXiv 2501.12370, eq 6; N: total parameters",
        ("N", "D", "S"),
        (
            _positive("a"),
            _positive("b"),
            _positive("c"),
            _positive("d"),
            _floor("e"),
            _exponent("alpha", (0.3, 0.6)),
            _exponent("beta", (0.2, 0.4, 0.7)),
            _real("lambda_", (-0.5, -0.15, 0.2), low=-3.0, high=3.0),
            _real("delta", (0.15, 0.5), low=-3.0, high=3.0),
            _exponent("gamma", (0.1, 0.2, 0.35)),
        ),
        lambda p, x: (
            p.a * pw(x.N, -p.alpha)
            + p.b * pw(x.D, -p.beta)
            + p.c * pw(1 - x.S, -p.lambda_)
            + p.d * pw(1 - x.S, -p.delta) * pw(x.N, -p.gamma)
            + p.e
        ),
        ("a", "b", "c", "d", "e"),
        optimum=True,
    ),
    "ludziejewski2025": Form(
        "L = a Eh^delta N^(alpha + gamma ln Eh) + b Eh^omega D^(beta + zeta ln Eh) + c, Eh as in"
        " clark2022",
        "Ludziejewski et al. 2025, arXiv 2502.05172 (form read in a summary); N: active parameters,"
        " E = 1 is dense",
        ("N", "D", "E"),
        (
            _positive("a"),
            _positive("b"),
            _floor("c"),
            _real("delta", (-0.4, -0.1)),
            _real("alpha", (-0.35, -0.15), low=-3.0, high=0.0),
            _real("gamma", (0.0,), low=-1.0, high=1.0),
            _real("omega", (0.0, 0.5)),
            _real("beta", (-0.35, -0.15), low=-3.0, high=0.0),
            _real("zeta", (0.0,), low=-1.0, high=1.0),
            _ES._replace(starts=(1.5, 4.0)),
            _RATIO._replace(starts=(50.0, 300.0)),
        ),
        _ludziejewski,
        ("a", "b", "c"),
        derived=lambda p: {"Em": p.Es * p.Em_over_Es},
        columns=(("N", "n_active_params"),),
        optimum=True,
    ),
    "frantar2023": Form(
        "L = (aS (1-S)^bS + cS) N^-bN + (aD / D)^bD + c",
        "Frantar et al. 2023, arXiv 2309.08520, eq 1; N: parameters that are not zero",
        ("N", "D", "S"),
        (
            _positive("aS"),
            _positive("cS"),
            _positive("BD"),
            _floor("c"),
            _exponent("bS", (0.2, 0.6, 1.2)),
            _exponent("bN", (0.1, 0.3, 0.6)),
            _exponent("bD", (0.1, 0.3, 0.6)),
        ),
        lambda p, x: (
            (p.aS * pw(1 - x.S, p.bS) + p.cS) * pw(x.N, -p.bN) + p.BD * pw(x.D, -p.bD) + p.c
        ),
        ("aS", "cS", "BD", "c"),
        derived=lambda p: {"aD": pw(p.BD, 1 / p.bD)},
        optimum=True,
    ),
    "learning_rate": Form(
        "lr = k N^a D^b",
        "the form of Li et al. 2025 (Step Law), arXiv 2503.04715; fitted to the near-best of every"
        " (N, D) cell",
        ("N", "D"),
        (_positive("k", (1.0,)), _real("a", (-0.5,)), _real("b", (0.3,))),
        lambda p, x: p.k * pw(x.N, p.a) * pw(x.D, p.b),
        outcome="lr",
    ),
    "critical_batch": Form(
        "L = E + A / N^alpha + H / D'^beta, D' = D / (1 + B / Bc), Bc = k (N / 1e6)^a (D / 1e9)^b",
        "steps against tokens as McCandlish et al. 2018, arXiv 1812.06162, and Kaplan et al. 2020,"
        " arXiv 2001.08361, section 5.1; Bc grows with D as in Zhang et al. 2024, arXiv 2410.21676."
        " B: batch in tokens, at its best learning rate",
        ("N", "D", "B"),
        (
            _floor(),
            _positive("A"),
            _positive("H"),
            _exponent("alpha", (0.15, 0.3, 0.6)),
            _exponent("beta", (0.15, 0.3, 0.6)),
            _positive("k", 10.0 ** np.arange(1, 9), "tokens"),
            _real("a", (-1.0, 0.0), low=-4.0, high=4.0),
            _real("b", (0.0, 0.5), low=-2.0, high=3.0),
        ),
        _critical_batch,
        ("E", "A", "H"),
    ),
    "batch_size": Form(
        "batch = k D^b",
        "the form of Li et al. 2025 (Step Law), arXiv 2503.04715; batch in tokens",
        ("D",),
        (_positive("k", (1.0,), "tokens"), _real("b", (0.5,))),
        lambda p, x: p.k * pw(x.D, p.b),
        outcome="batch_tokens",
    ),
}
