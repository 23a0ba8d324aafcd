"""Generation: prefill and decode are the model's own call with a cache (model/context.py); decoding
never drops an assignment.

Rows of unequal length are padded on the left: a row's first `pad_B` tokens stand at negative
positions, which nothing sees.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from model import context
from model.lm import LM


class Sampling(NamedTuple):
    """How the next token is drawn. temperature 0: the most probable one. top_k 0 and top_p 1 leave
    all tokens in; with top_p the smallest set of most probable tokens that holds that probability
    stays (Holtzman et al. 2020, arXiv 1904.09751).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


def choose(logits_BV, key, how: Sampling):
    """Token ids (B,)."""
    if how.temperature == 0:
        return logits_BV.argmax(-1).astype(jnp.int32)
    logits_BV = logits_BV / how.temperature
    if how.top_k:
        least_B1 = jax.lax.top_k(logits_BV, min(how.top_k, logits_BV.shape[-1]))[0][:, -1:]
        logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
    if how.top_p < 1:
        sorted_BV = -jnp.sort(-logits_BV, -1)
        p_BV = jax.nn.softmax(sorted_BV, -1)
        before_BV = jnp.cumsum(p_BV, -1) - p_BV
        least_B1 = jnp.where(before_BV < how.top_p, sorted_BV, jnp.inf).min(-1, keepdims=True)
        logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
    return jax.random.categorical(key, logits_BV, -1).astype(jnp.int32)


def _call(lm: LM, variables, tokens_BT, pad_B, slots: int, slot, cache):
    """(logits_BTV, cache) of tokens that stand in slots `slot` .. of a cache with `slots`."""
    at_BT = slot + jnp.arange(tokens_BT.shape[1]) - pad_B[:, None]
    slots_J = jnp.arange(slots)
    keys_BJ = jnp.where(slots_J < slot + tokens_BT.shape[1], slots_J - pad_B[:, None], -1)
    held = {**variables, "cache": cache} if cache else variables
    (logits_BTV, _), kept = lm.apply(
        held, tokens_BT, context.Context(at_BT, keys_BJ, slot), mutable=["cache"]
    )
    return logits_BTV, kept["cache"]


def prefill(lm: LM, variables, tokens_BT, pad_B, slots: int):
    """(logits_BTV, cache) of left-padded prompts, with a fresh cache of `slots` >= T."""
    return _call(lm, variables, tokens_BT, pad_B, slots, jnp.int32(0), None)


def decode(lm: LM, variables, tokens_B1, pad_B, slots: int, slot, cache):
    """(logits_B1V, cache) of one more token per row, in slot `slot`."""
    return _call(lm, variables, tokens_B1, pad_B, slots, slot, cache)


def extend(
    lm: LM, variables, first_B, pad_B, slots: int, slot, cache, key, count: int, how: Sampling
):
    """`count` tokens (B, count) from `first_B` on, which is the first of them and goes into slot
    `slot`.
    """

    def one(carry, i):
        token_B, cache = carry
        logits_B1V, cache = decode(lm, variables, token_B[:, None], pad_B, slots, slot + i, cache)
        return (choose(logits_B1V[:, 0], jax.random.fold_in(key, i), how), cache), token_B

    return jax.lax.scan(one, (first_B, cache), jnp.arange(count))[1].T
