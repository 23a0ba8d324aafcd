"""Sizes of activations of models of several widths or depths, before and after a few updates, and
their log-log slopes (Yang et al. 2022, arXiv 2203.03466, appendix D.1; in depth Dey et al. 2025,
arXiv 2505.01618, figure 7).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.planning import ladder
from model import config, params, parts, step
from model.config import Execution, Model
from model.lm import LM, abstract
from model.mixers.softmax import head_width
from model.optimizers import Optimizer
from model.optimizers.base import HYPER

DIALS, HEADS = ("width", "depth"), ("more", "wider")
KEEPS = 0.1  # a slope within +-KEEPS of 0 is none
QUANTITIES = {
    "embedding": "what the first layer sees",
    "scores": "attention scores, before positions turn them",
    "mixer": "what the mixers give",
    "mlp": "what the MLPs give",
    "router": "scores of the experts",
    "stream": "the residual stream after the last layer",
    "logits": "logits",
}


class Row(NamedTuple):
    """One quantity: its root mean square as it starts, after the updates, and of what they changed;
    a value for each size, geometric means over seeds. Slopes are None where a size is 0.
    """

    quantity: str
    start: list[float]
    end: list[float]
    update: list[float]
    start_slope: float | None
    end_slope: float | None
    update_slope: float | None


class Checked(NamedTuple):
    """The check of one parametrisation, by its text."""

    parametrisation: str
    rows: list[Row]

    def slope(self, quantity: str, what: str) -> float | None:
        """what: start, end or update."""
        row = next(r for r in self.rows if r.quantity == quantity)
        return getattr(row, f"{what}_slope")

    def moved(self) -> list[tuple[str, str, float]]:
        """(quantity, end or update, slope) of every slope beyond +-KEEPS."""
        both = ((r.quantity, w, getattr(r, f"{w}_slope")) for r in self.rows for w in WHAT)
        return [(q, w, s) for q, w, s in both if s is not None and abs(s) > KEEPS]


# a start may fall with the width by theory: logits of a tied head, the router's scores, those of
# attention where heads get wider
WHAT = ("end", "update")


def sized(m: Model, dial: str, size: int, heads: str = "more") -> Model:
    """`m` at a depth, in whole patterns, or at a width: with more heads as wide as its own, or with
    as many heads, which are wider. Raises ValueError where the heads do not divide the width.
    """
    if dial == "depth":
        first, pattern = len(m.first), len(m.pattern)
        groups = max(1, round((size - first) / pattern))
        return dataclasses.replace(m, n_layers=first + groups * pattern)
    own = next((x.mixer for x in m.layers if hasattr(x.mixer, "n_heads")), None)
    count = own.n_heads if own else 1
    if own and heads == "more":
        count = max(1, size // head_width(own, m))
    resized = ladder.resized(m, ladder.Shape(size, m.n_layers, count))
    resized = dataclasses.replace(resized, n_layers=m.n_layers)
    config.check(resized)
    return resized


def _seen(lm: LM, held, tokens_BT) -> dict:
    """{quantity: array} of one forward pass, layers scanned: of each repetition of the pattern the
    last layer.
    """

    def kept(module: nn.Module, method: str) -> bool:
        return method == "_embed" if isinstance(module, LM) else method == "__call__"

    (logits_BTV, _), moved = lm.apply(
        held, tokens_BT, capture_intermediates=kept, mutable=["intermediates"]
    )
    tree = moved["intermediates"]
    last, place = lm.m.layers[-1], f"layer_{len(lm.m.pattern) - 1}"
    layer = tree["groups"][place]

    def of(*names):
        found = functools.reduce(lambda t, n: t[n], names, layer)["__call__"][0]
        return found[0] if isinstance(found, tuple) else found

    out = {"embedding": tree["_embed"][0], "mixer": of("mixer")}
    if {"q", "k"} <= set(layer["mixer"]):
        mixer = lm.plain.layers[-1].mixer
        scale = mixer.scale or head_width(mixer, lm.m) ** -0.5
        q_LBTHK, k_LBTHK = of("mixer", "q"), of("mixer", "k")
        k_LBTHK = jnp.repeat(k_LBTHK, q_LBTHK.shape[3] // k_LBTHK.shape[3], 3)
        out["scores"] = scale * jnp.einsum("lbthk,lbjhk->lbhtj", q_LBTHK, k_LBTHK)
    if last.has_mlp:
        out["mlp"] = of("mlp")
    if "router_logits" in layer.get("mlp", {}):
        out["router"] = layer["mlp"]["router_logits"][0]
    # a block gives (x, statistics)
    return {**out, "stream": of()[-1], "logits": logits_BTV}


def sizes(
    m: Model, optimizer: Optimizer, batches_KBT1, seed: int, ex: Execution
) -> dict[str, tuple[float, float, float]]:
    """{quantity: root mean squares at the start, after K updates on the batches, and of the
    difference}, on the first batch. The learning rate is the peak in every update.
    """
    start, updates, seen = _programs(m, optimizer.static(), ex, batches_KBT1.shape[1:])
    rates = {**optimizer.peaks(), "weight_decay": optimizer.weight_decay}
    hyper = {k: np.float32(rates[k]) for k in HYPER}
    state = start(params.initial(abstract(m, ex), seed))
    first = batches_KBT1[0][:, :-1]
    before = seen(step.variables(state), first)
    for tokens_BT1 in batches_KBT1:
        state, _ = updates(state, tokens_BT1, hyper)
    after = seen(step.variables(state), first)

    def size(a) -> float:
        return float(np.sqrt(np.mean(np.square(np.asarray(a, np.float64)))))

    return {
        k: (size(before[k]), size(after[k]), size(np.asarray(after[k]) - np.asarray(before[k])))
        for k in before
    }


@functools.lru_cache(maxsize=32)
def _programs(m: Model, optimizer: Optimizer, ex: Execution, shape: tuple):
    """Compiled once a shape, for all seeds."""
    lm = LM(m, ex)
    return (
        lambda p: step.create(lm, optimizer, p),
        jax.jit(functools.partial(step.train_step, lm, optimizer)),
        jax.jit(functools.partial(_seen, lm)),
    )


def slope(dial: Sequence[int], values: Sequence[float]) -> float | None:
    """Of log(values) over log(dial), by least squares."""
    if min(values) <= 0 or not np.isfinite(values).all():
        return None
    return float(np.polyfit(np.log(dial), np.log(values), 1)[0])


def check(
    base: Model,
    optimizer: Optimizer,
    parametrisation: str,
    dial: str,
    at: Sequence[int],
    batches: Callable[[int], np.ndarray],
    seeds: Sequence[int],
    heads: str = "more",
    say: Callable[[str], None] = lambda text: None,
) -> Checked:
    """`base` under a parametrisation, given as text, at every size of the dial. batches(seed) ->
    tokens (K, B, T+1). Raises ValueError.
    """
    found: dict[str, np.ndarray] = {}
    for i, n in enumerate(at):
        part = parts.part("parametrisation", parametrisation)
        m = dataclasses.replace(sized(base, dial, n, heads), parametrisation=part)
        for j, seed in enumerate(seeds):
            own = sizes(m, optimizer, batches(seed), seed, Execution(scan=True))
            for quantity, values in own.items():
                empty = np.zeros((3, len(at), len(seeds)))
                found.setdefault(quantity, empty)[:, i, j] = values
        say(f"{parametrisation}: {dial} {n}")
    rows = []
    for quantity in (q for q in QUANTITIES if q in found):
        with np.errstate(divide="ignore"):
            means = np.exp(np.log(found[quantity]).mean(-1)).tolist()
        rows.append(Row(quantity, *means, *(slope(at, v) for v in means)))
    return Checked(parametrisation, rows)
