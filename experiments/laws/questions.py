"""What a fitted law is asked: a question's text, whether the law has an answer, the answers."""

import re

import numpy as np

from experiments.laws.exceptions import FitError
from experiments.laws.fitting import allocation, precision
from experiments.laws.fitting.allocation import Cost
from experiments.laws.fitting.fit import Fitted
from experiments.laws.fitting.formula import Form
from experiments.laws.fitting.law_forms import FORMS
from experiments.laws.runs import table as tables


def question(text: str) -> dict[str, float]:
    """`C=1e21,E=8` as numbers. Raises FitError."""
    out = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        m = re.fullmatch(r"(\w+)\s*=\s*(\S+)", part)
        try:
            out[m[1]] = float(m[2])
        except (TypeError, ValueError):
            raise FitError(
                f"--predict={text}: write numbers such as C=1e21 or N=7e10,D=1.4e12"
            ) from None
        if not (np.isfinite(out[m[1]]) and (out[m[1]] > 0 or m[1] == "S")):
            raise FitError(f"--predict={text}: {m[1]} must be a positive number")
    return out


def kind(law: str, form: Form, q: dict) -> str:
    """What is asked: outcome | optimum | cheapest. Raises FitError if the law has no answer."""
    more = set(form.inputs) - {"N", "D"}
    if set(q) == set(form.inputs):
        return "outcome"
    if form.optimum and "C" in q and more <= set(q) and set(q) - more <= {"C", "memory", "D_inf"}:
        return "optimum"
    if form.optimum and "loss" in q and more <= set(q) and set(q) - more <= {"loss", "D_inf"}:
        return "cheapest"
    extra = "".join(f",{k}=8" for k in sorted(more))
    asks = (
        f"; C=1e21{extra} (with memory=BYTES or D_inf=TOKENS), or loss=2{extra} (with D_inf=TOKENS)"
        if form.optimum
        else ""
    )
    raise FitError(
        f"--predict: {law} answers for {', '.join(form.inputs)} together{asks}; not for"
        f" {', '.join(q)}"
    )


def predictions(f: Fitted, cost: Cost, asked: list[dict]) -> list[dict]:
    """An answer for each question: the outcome at given inputs, the optimum of a budget C, or the
    cheapest way to a loss.
    """
    out = []
    for q in asked:
        rest = {k: v for k, v in q.items() if k not in ("C", "memory", "D_inf", "loss")}
        match kind(f.law, f.form, q):
            case "outcome":
                value, draws = f.predict({k: np.array([v]) for k, v in q.items()})
                every = np.append(value, draws[:, 0] if len(draws) else [])
                answer = {
                    f.form.outcome: precision.answer(f.form.outcome, every, f.centred, f.levels)
                }
                if f.law == "clark2022":
                    answer["effective_parameters"] = allocation.effective_parameters(
                        f, q["N"], q["E"]
                    )
            case "optimum":
                answer = allocation.optimum(
                    f, q["C"], cost, rest, q.get("memory", 0.0), q.get("D_inf", 0.0)
                )
                if q.get("E", 1) > 1:
                    answer["leverage_over_dense"] = allocation.leverage(f, q["C"], q["E"], cost)
            case "cheapest":
                answer = allocation.cheapest(f, q["loss"], q.get("D_inf", 0.0), cost, rest)
        out.append({"given": q, **answer})
    return out


def experts(f: Fitted, cost: Cost, table: tables.Table) -> dict | None:
    """Leverage of the table's largest expert count over dense as a curve with its band, and where
    routing stops helping.
    """
    if not {"N", "D", "E"} <= set(f.form.inputs) or "flops" not in table:
        return None
    e, c = float(f.points.x["E"].max()), table["flops"]
    curve = allocation.leverage_curve(f, cost, e, np.geomspace(c.min(), c.max() * 10, 7))
    return {"experts": e, "curve": curve, **allocation.routing_stops(curve)}


def answerable(name: str, q: dict) -> None:
    """Raises FitError if the law has no answer to a question."""
    if name in FORMS:
        kind(name, FORMS[name], q)
    elif set(q) != {"C"}:
        raise FitError(f"--predict: {name} answers for a budget C alone, not for {', '.join(q)}")
