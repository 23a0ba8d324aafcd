"""Clark et al. 2022: losses of routed models by size and number of experts."""

import numpy as np

from experiments.laws.fitting import allocation, fit
from experiments.laws.fitting.fit import Points
from experiments.laws.fitting.solve import Objective
from experiments.laws.published import constants
from experiments.laws.published.reproductions.rows import Row, near
from experiments.laws.runs import table as tables


def reproduce(table, resamples: int, seed: int) -> tuple[list[Row], dict]:
    """Clark et al. 2022, eq 1: per router, dense runs as E = 1, least squares on log10 loss; N_cut
    and effective parameters.
    """
    rows, fits = [], {}
    # the stated tolerance, and half a unit of the printed digits on top
    tolerance = {"a": 0.001 + 0.0005, "b": 0.011 + 0.0005, "c": 0.001 + 0.0005, "d": 0.01 + 0.0005}
    t = tables.where(table, "in_main_fit==1")
    dense = t["router"] == "Dense"
    for name in ("S-Base", "RL-R", "Hash"):
        p, keep = constants.PUBLISHED[f"clark2022_{name}"], dense | (t["router"] == name)
        x, y = {"N": t["n_active_params"][keep], "E": t["n_experts"][keep]}, t["loss"][keep]
        f = fit.fit("clark2022", Points(x, y), Objective("squared"), resamples, seed)
        v, spans = f.parameters, f.intervals()
        rows += [
            near(f"{k}, {name}", p.values[k], p.mark, v[k], tolerance[k], spans[k])
            for k in tolerance
        ]
        rows += [
            Row(f"{k}, {name} (flat valley)", p.values[k], p.mark, v[k], spans[k])
            for k in ("Es", "Em")
        ]
        rmse = float(np.sqrt(np.mean((f.residuals / np.log(10)) ** 2)))
        rows.append(
            Row(
                f"rmse of log10 L, {name}, at most",
                0.0033,
                "measured",
                rmse,
                None,
                None,
                rmse <= 0.0033,
            )
        )
        cut = constants.N_CUT[name]
        inside = spans["N_cut"] is not None and spans["N_cut"][0] <= cut <= spans["N_cut"][1]
        rows.append(
            Row(
                f"N_cut = 10^(-b/c), {name}",
                cut,
                "unverified",
                v["N_cut"],
                spans["N_cut"],
                None,
                inside,
            )
        )
        for n, e in ((1.3e9, 64), (1.3e9, 512)):
            a = allocation.effective_parameters(f, n, e)
            rows.append(
                Row(
                    f"effective parameters of {n:.3g} with {e} experts, {name}",
                    None,
                    "",
                    a["value"],
                    a["interval"],
                )
            )
        fits[name] = f
    alone = {k: v[dense] for k, v in t.items()}
    g = fit.fit(
        "kaplan_n", Points({"N": alone["n_active_params"]}, alone["loss"]), Objective("squared")
    )
    rows.append(
        near("alpha_N of the dense runs alone", 0.078, "unverified", g.parameters["alpha"], 0.0015)
    )
    return rows, {"fits": fits}
