"""What a reader knows of a law before it is fitted: parameters that are fixed, tied to another one,
or held within bounds. A constrained form is a form of fewer free parameters; nothing else changes.
"""

import difflib
from typing import NamedTuple

import numpy as np

from experiments.laws.exceptions import FitError
from experiments.laws.fitting.formula import Form, Parameter

STARTS = 4  # of the grid between two bounds that hold none of the law's own starts


class Limits(NamedTuple):
    """Pairs (name, value), (name, of), (name, (low, high))."""

    fix: tuple = ()
    tie: tuple = ()
    within: tuple = ()

    def __bool__(self) -> bool:
        return any(self)


NONE = Limits()


def _pairs(flag: str, text: str) -> list[tuple[str, str]]:
    out = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = (t.strip() for t in part.partition("="))
        if not equals or not name or not value:
            example = {"fix": "E=1.6", "tie": "alpha=beta", "within": "alpha=.2:.6"}[flag]
            raise FitError(f"--{flag}={text}: write NAME=..., such as --{flag}={example}")
        out.append((name, value))
    return out


def read(fix: str = "", tie: str = "", within: str = "") -> Limits:
    """The flags' texts, each of parts that commas separate. Raises FitError."""
    fixed = [(k, _number("fix", k, v)) for k, v in _pairs("fix", fix)]
    bounds = []
    for name, text in _pairs("within", within):
        low, colon, high = text.partition(":")
        if not colon:
            raise FitError(f"--within={name}={text}: write {name}=LOW:HIGH")
        ends = _number("within", name, low), _number("within", name, high)
        if not ends[0] < ends[1]:
            raise FitError(f"--within={name}={text}: the first number must be the smaller")
        bounds.append((name, ends))
    return Limits(tuple(fixed), tuple(_pairs("tie", tie)), tuple(bounds))


def _number(flag: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise FitError(f"--{flag}: {name}={text} is no finite number")
    return value


def applied(form: Form, law: str, limits: Limits) -> Form:
    """`form` with what is known of it. Raises FitError where a name, a value or a pair is none of
    the law's.
    """
    if not limits:
        return form
    own = {p.name: p for p in form.parameters}
    for flag, pairs in limits._asdict().items():
        seen: set = set()
        for name, value in pairs:
            for k in (name, value) if flag == "tie" else (name,):
                _known(law, own, flag, k)
            if name in seen:
                raise FitError(f"--{flag}: {name} is named twice")
            seen.add(name)
    for name, value in limits.fix:
        _inside("fix", own[name], value)
    fixed = dict(limits.fix)
    tied: dict[str, str] = {}
    for name, of in limits.tie:  # the second goes with the first
        name, of = of, name
        while of in tied:
            of = tied[of]
        if name == of:
            raise FitError(f"--tie={of}={name}: a parameter is tied to itself")
        _alike(own[of], own[name])
        for k in (name, of):
            if k in fixed:
                raise FitError(f"--tie: {k} is fixed: fix the other one too, or tie neither")
        if name in tied:
            raise FitError(f"--tie: {name} is tied twice")
        tied[name] = of
    for name, _ in limits.within:
        if name in fixed or name in tied:
            how = "fixed" if name in fixed else f"tied to {tied[name]}"
            raise FitError(f"--within: {name} is {how}, and has no bounds of its own")
    kept = [p for p in form.parameters if p.name not in fixed and p.name not in tied]
    if not kept:
        raise FitError(f"nothing is left to fit: {law} has all of its parameters fixed")
    bounds = dict(limits.within)
    return form._replace(
        parameters=tuple(_bounded(p, bounds[p.name]) if p.name in bounds else p for p in kept),
        linear=tuple(k for k in form.linear if k not in fixed and k not in tied),
        fixed=tuple(fixed.items()),
        tied=tuple(tied.items()),
        within=tuple(bounds.items()),
    )


def _known(law: str, own: dict, flag: str, name: str) -> None:
    if name in own:
        return
    near = difflib.get_close_matches(name, own, 1, 0.5)
    hint = f": did you mean {near[0]}?" if near else ";"
    raise FitError(f"--{flag}: {law} has no parameter {name!r}{hint} it has {', '.join(own)}")


def _inside(flag: str, p: Parameter, value: float) -> None:
    if not p.low <= value <= p.high:
        raise FitError(f"--{flag}: {p.name}={value:g} lies outside {p.low:g} to {p.high:g}")


def _alike(a: Parameter, b: Parameter) -> None:
    """Raises FitError unless the two are of one unit. A prefactor's unit hangs on its exponent."""
    free = [p for p in (a, b) if p.kind == "positive" and not p.unit]
    if a.kind == b.kind and a.unit == b.unit and not free:
        return

    def unit(p):
        return p.unit or ("a prefactor's, which its exponent makes" if p in free else "none")

    raise FitError(
        f"--tie={a.name}={b.name}: their units differ ({a.name}: {unit(a)}; {b.name}: {unit(b)})"
    )


def _bounded(p: Parameter, ends: tuple[float, float]) -> Parameter:
    for value in ends:
        _inside("within", p, value)
    low, high = ends
    starts = tuple(s for s in p.starts if low < s < high)
    if p.starts and not starts:
        starts = tuple(np.linspace(low, high, STARTS + 2)[1:-1].tolist())
    return p._replace(low=low, high=high, starts=starts)


def words(form: Form) -> dict[str, str]:
    """{parameter: what was given of it}."""
    return (
        {k: f"fixed at {v:g}" for k, v in form.fixed}
        | {k: f"tied to {of}" for k, of in form.tied}
        | {k: f"within {low:g} to {high:g}" for k, (low, high) in form.within}
    )
