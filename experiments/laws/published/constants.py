"""Constants that papers print. Each carries a mark; whoever shows one shows the mark beside it.

Nobody here had the papers at hand: the values come from the authors' repositories or from notes on
the papers, so every mark reads "unverified" until someone compares the value with the paper's table
and fills in `verified` (who, when, which table). `refit` says where a fit to the authors' own runs
agrees (isoflop reproduce); that is evidence for the value, not for the quotation.
"""

from typing import NamedTuple


class Published(NamedTuple):
    law: str  # a key of law_forms.FORMS
    values: dict[str, float]
    where: str
    verified: str = ""
    refit: str = ""

    @property
    def mark(self) -> str:
        if self.verified:
            return f"verified: {self.verified}"
        return "unverified" + (f"; {self.refit}" if self.refit else "")


class Allocation(NamedTuple):
    """N_opt ~ C^n, D_opt ~ C^d as printed, with 95% intervals where the paper gives them."""

    n: float
    d: float
    where: str
    n_interval: tuple[float, float] | None = None
    d_interval: tuple[float, float] | None = None
    verified: str = ""

    mark = Published.mark
    refit = ""


_AGREES = "a fit to the authors' runs agrees"


def _clark(a, b, c, d, start, limit):
    values = {"a": a, "b": b, "c": c, "d": d, "Es": start, "Em": limit, "Em_over_Es": limit / start}
    return Published(
        "clark2022",
        values,
        "Clark et al. 2022, arXiv 2202.01169, Table 3",
        refit=f"{_AGREES} within its intervals",
    )


def _gadre(e, a, b, eta):
    values = {"E": e, "a": a, "b": b, "eta": eta}
    return Published(
        "gadre2024",
        values,
        "Gadre et al. 2024, arXiv 2403.08540, coefficient table (recalled)",
        refit=_AGREES,
    )


_KAPLAN = "Kaplan et al. 2020, arXiv 2001.08361, eq "
_PF_DAY = 8.64e19
PUBLISHED = {
    "kaplan2020_n": Published("kaplan_n", {"alpha": 0.076, "Nc": 8.8e13}, f"{_KAPLAN}1.1"),
    "kaplan2020_d": Published("kaplan_d", {"alpha": 0.095, "Dc": 5.4e13}, f"{_KAPLAN}1.2"),
    "kaplan2020_c": Published(
        "kaplan_c", {"alpha": 0.050, "Cc": 3.1e8 * _PF_DAY}, f"{_KAPLAN}1.3, of C_min"
    ),
    "kaplan2020_nd": Published(
        "kaplan_nd",
        {"alpha_N": 0.076, "alpha_D": 0.103, "Nc": 6.4e13, "Dc": 1.8e13},
        f"{_KAPLAN}1.5",
    ),
    "hoffmann2022": Published(
        "chinchilla3",
        {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28},
        "Hoffmann et al. 2022, arXiv 2203.15556, eq 10; known to be where an optimiser stopped",
    ),
    "besiroglu2024": Published(
        "chinchilla3",
        {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658},
        "Besiroglu et al. 2024, arXiv 2404.10102, headline values (a least-absolute-deviation fit)",
        refit=_AGREES,
    ),
    "besiroglu2024_huber": Published(
        "chinchilla3",
        {"E": 1.81724, "A": 477.84, "B": 2143.86, "alpha": 0.347313, "beta": 0.367183},
        "Besiroglu et al. 2024, arXiv 2404.10102, the notebook's sum-Huber cell, delta = 1e-3",
        refit=_AGREES,
    ),
    "muennighoff2023": Published(
        "muennighoff2023",
        {
            "E": 1.87,
            "A": 521.0,
            "B": 1488.0,
            "alpha": 0.3526596,
            "beta": 0.3526596,
            "RD": 15.387756,
            "RN": 5.309743,
        },
        "Muennighoff et al. 2023, arXiv 2305.16264, notebook",
        refit="the authors' search on their runs agrees",
    ),
    "gadre2024_c4_original": _gadre(1.51, 141, 190, 0.121),
    "gadre2024_rpj": _gadre(1.84, 212, 367, 0.136),
    "gadre2024_rw_original": _gadre(1.73, 157, 246, 0.127),
    "clark2022_S-Base": _clark(-0.082, -0.108, 0.009, 1.104, 1.847, 314.478),
    "clark2022_RL-R": _clark(-0.083, -0.126, 0.012, 1.111, 1.880, 469.982),
    "clark2022_Hash": _clark(-0.087, -0.136, 0.012, 1.157, 4.175, 477.741),
    "krajewski2024": Published(
        "krajewski2024",
        {"c": 0.47, "g": 2.1, "a": 18.1, "b": 30.8, "alpha": 0.115, "beta": 0.147, "gamma": 0.58},
        "Krajewski et al. 2024, arXiv 2402.07871, Table 1, MoE at expansion rate 64",
    ),
    "abnar2025": Published(
        "abnar2025",
        {
            "a": 16612.5,
            "b": 5455.67,
            "c": 0.4598,
            "d": 17.26,
            "e": 0.94,
            "alpha": 0.5962,
            "beta": 0.3954,
            "lambda_": -0.1666,
            "delta": 0.1603,
            "gamma": 0.1595,
        },
        "Abnar et al. 2025, arXiv 2501.12370, Table 3",
    ),
    "ludziejewski2025": Published(
        "ludziejewski2025",
        {
            "a": 35.91,
            "b": 35.98,
            "c": 1.3637,
            "delta": -0.2285,
            "alpha": -0.1889,
            "gamma": 0.0098,
            "omega": 0.5529,
            "beta": -0.1775,
            "zeta": -0.0259,
        },
        "Ludziejewski et al. 2025, arXiv 2502.05172, from a note that had lost its fraction bars;"
        " Es and Em not known",
    ),
    "step_law_lr": Published(
        "learning_rate", {"k": 1.79, "a": -0.713, "b": 0.307}, "Li et al. 2025, arXiv 2503.04715"
    ),
    "step_law_batch": Published(
        "batch_size", {"k": 0.58, "b": 0.571}, "Li et al. 2025, arXiv 2503.04715"
    ),
}

ALLOCATIONS = {
    "Kaplan 2020": Allocation(0.73, 0.27, "Kaplan et al. 2020, arXiv 2001.08361"),
    "Hoffmann 2022, approach 1": Allocation(
        0.50,
        0.50,
        "Hoffmann et al. 2022, arXiv 2203.15556, section 3.1",
        (0.488, 0.502),
        (0.501, 0.512),
    ),
    "Hoffmann 2022, approach 2": Allocation(
        0.49,
        0.51,
        "Hoffmann et al. 2022, arXiv 2203.15556, section 3.2",
        (0.462, 0.534),
        (0.483, 0.529),
    ),
    "Besiroglu 2024": Allocation(
        0.513, 0.487, "Besiroglu et al. 2024, arXiv 2404.10102: beta / (alpha + beta), s.e. .020"
    ),
    "DeepSeek 2024": Allocation(
        0.5243,
        0.4757,
        "DeepSeek-AI 2024, arXiv 2401.02954; N is their non-embedding FLOPs per token",
    ),
}

# N_cut of Clark et al. 2022: the dense size beyond which routing stops helping; unverified like the
# rest
N_CUT = {"S-Base": 937e9, "RL-R": 85e9, "Hash": 83e9}
