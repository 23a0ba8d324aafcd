"""Linear recurrences over a matrix of K x W a head, S_t = a_t S_(t-1) + k_t v_t^T, y_t = S_t^T q_t,
with decays a_t of a head or of each of its K channels. What linear attention, RetNet, GLA and
Mamba-2 share.

A chunk of tokens is taken at a time, as matmuls: the tokens of a chunk see each other through a
map, and what was before through the state between chunks (Dao & Gu 2024, arXiv 2405.21060, section
6; Yang et al. 2023, arXiv 2312.06635, section 4). Decays are kept as logarithms, summed up in
float32, and masked before the exponential: no exponent is above 0. A state is kept for every chunk,
never for every token. The last chunk is filled up with tokens that change nothing. Documents that
are kept apart are told apart by their numbers: decays of several are summed up, but not used.

Decays of channels do not factor out of a map without exponents above 0. So a chunk is a quarter as
long, and inside it blocks of BLOCK tokens see each other one by one, and blocks before through the
decays to the last token before them.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from model import context
from model.config import Execution, Model
from model.mixers.recurrent import Recurrent
from model.numerics import einsum, precise, scores
from model.state import State
from model.work import Work, matmuls, size, total
from model.xla_cpu import by_head

BLOCK = 8  # tokens that see each other one by one, where decays are of channels


class Heads(Recurrent):
    """Counts of `n_heads` states of K x W, where a part says `widths`, (K, W)."""

    n_heads: int

    def widths(self, m: Model) -> tuple[int, int]:
        raise NotImplementedError

    def recurrence(self, m: Model) -> int:
        return flops(self.n_heads, *self.widths(m))

    def state(self, m: Model) -> State:
        k, w = self.widths(m)
        return State(per_sequence=self.n_heads * k * w)


def mix(module, ctx: context.Context, ex: Execution, q_BTGK, k_BTGK, v_BTHW, log_BTH=None):
    """y_BTHW, of tokens after a state that a decoder keeps. `log_BTH`: logarithms of the decays of
    heads, or BTHK of channels; None: no decay. G divides H: heads may share queries and keys.
    """
    shape = (v_BTHW.shape[0], v_BTHW.shape[2], q_BTGK.shape[3], v_BTHW.shape[3])
    k_BTGK, v_BTHW = context.real(k_BTGK, ctx), context.real(v_BTHW, ctx)

    def made(state_BHKW):
        if context.steps(v_BTHW, ctx):
            first = (a[:, 0] for a in (q_BTGK, k_BTGK, v_BTHW))
            log = None if log_BTH is None else log_BTH[:, 0]
            y_BHW, state = step(*first, log, state_BHKW)
            return y_BHW[:, None].astype(v_BTHW.dtype), state
        return chunked(ex, q_BTGK, k_BTGK, v_BTHW, log_BTH, state_BHKW, ctx.document_BT)

    return context.carry(module, "state", shape, v_BTHW.dtype, ctx, made)


def step(q_BGK, k_BGK, v_BHW, log_BH, state_BHKW):
    """The recurrence itself, of one token: (y_BHW, state after it)."""
    (batch, heads, values), groups = v_BHW.shape, q_BGK.shape[1]
    q_BGK, k_BGK, v_BHW = (precise(a) for a in (q_BGK, k_BGK, v_BHW))
    v_BGrW = v_BHW.reshape(batch, groups, heads // groups, values)
    if log_BH is not None:
        decay = jnp.exp(log_BH)
        state_BHKW = state_BHKW * decay.reshape(*decay.shape, *[1] * (4 - decay.ndim))
    added = einsum("bgk,bgrw->bgrkw", k_BGK, v_BGrW).reshape(state_BHKW.shape)
    state_BHKW = state_BHKW + added
    by_group = state_BHKW.reshape(batch, groups, -1, *state_BHKW.shape[2:])
    y_BGrW = einsum("bgk,bgrkw->bgrw", q_BGK, by_group)
    return y_BGrW.reshape(v_BHW.shape), state_BHKW


def in_chunks(a_BT, chunk: int):
    """(B, chunks, positions, ...), zeros after the end."""
    length = a_BT.shape[1]
    count = -(-length // chunk)
    filled = jnp.pad(a_BT, [(0, 0), (0, count * chunk - length)] + [(0, 0)] * (a_BT.ndim - 2))
    return filled.reshape(a_BT.shape[0], count, chunk, *a_BT.shape[2:])


class Same(NamedTuple):
    """Which pairs of places in chunks are of one document; None where documents are joined."""

    within_Bcij: jax.Array | None = None  # tokens of a chunk
    start_Bci: jax.Array | None = None  # a token, and the last of the chunk before
    end_Bci: jax.Array | None = None  # a token, and the last of its chunk
    whole_Bc: jax.Array | None = None  # the last of a chunk, and the last of the chunk before


def same(document_BT, chunk: int) -> Same:
    """Of documents as `context.apart` numbers them. What fills up the last chunk has number 0."""
    if document_BT is None:
        return Same()
    at_Bci = in_chunks(document_BT, chunk)
    last_Bc1 = at_Bci[:, :, -1:]
    before_Bc1 = jnp.pad(last_Bc1[:, :-1], ((0, 0), (1, 0), (0, 0)))  # the window's first is 0
    return Same(
        at_Bci[..., None] == at_Bci[:, :, None],
        at_Bci == before_Bc1,
        at_Bci == last_Bc1,
        (last_Bc1 == before_Bc1)[..., 0],
    )


def only(a_Bc, same_Bc, after: int = 0):
    """`a`, with zeros where `same`, one of `Same`, is not. Axes of heads stand before its own axes,
    and `after` axes after them.
    """
    if same_Bc is None:
        return a_Bc
    heads = a_Bc.ndim - same_Bc.ndim - after
    shape = *same_Bc.shape[:2], *[1] * heads, *same_Bc.shape[2:], *[1] * after
    return jnp.where(same_Bc.reshape(shape), a_Bc, 0)


def running(log_Bc, axis: int, one: Same):
    """Sums of logarithms up to a place of its chunk and with it. Documents are summed up in one
    row, but differences within one alone are used: so gradients go no further.
    """
    sums = jnp.cumsum(log_Bc, axis)
    if one.within_Bcij is None:
        return sums
    own_Bcij = jnp.tril(one.within_Bcij).astype(sums.dtype)
    own = einsum("bcij,bcj...->bci...", own_Bcij, jnp.moveaxis(log_Bc, axis, 2))
    own = jnp.moveaxis(own, 2, axis)
    return own + jax.lax.stop_gradient(sums - own)


def running_work(ex: Execution, batch: int, length: int, chunk: int, n: int, learned=True) -> Work:
    """`running` over `n` decays a token where documents are kept apart; they have a gradient where
    they are `learned`, the map of who is of one document has none. In turns it is made again.
    """
    count = batch * -(-length // chunk) * ex.apart
    flops = 2 * count * chunk**2 * n
    return Work(flops, flops * (learned + bool(ex.turn)), flops, kept=4 * count * chunk**2)


def level(sums, one: Same):
    """`sums`, which cancel out; where they may be another document's, without a gradient."""
    return sums if one.within_Bcij is None else jax.lax.stop_gradient(sums)


def over_chunks(one, state, inputs_Bc):
    """``lax.scan(one, state, inputs)`` over chunks."""
    return jax.lax.scan(one, state, jax.tree.map(lambda a: a.swapaxes(0, 1), inputs_Bc))


def of_one(one, state, inputs_B1):
    """The same of one chunk, without a loop, in which a backward pass would make all again."""
    after, out = one(state, jax.tree.map(lambda a: a[:, 0], inputs_B1))
    return after, jax.tree.map(lambda a: a[None], out)


def between(over, state, update_Bc, decay_Bc):
    """The state before each chunk (B, c, ...) and the one after all, where a chunk multiplies it by
    `decay` and adds `update`.
    """

    def one(state, chunk):
        update, decay = chunk
        return decay * state + update, state

    last, before = over(one, state, (update_Bc, decay_Bc))
    return before.swapaxes(0, 1), last


def chunk_of(ex: Execution, length: int, channels: bool) -> int:
    """Tokens of a chunk."""
    return min(length, max(1, ex.chunk // 4) if channels else ex.chunk)


def in_turns(form, arrays_BT, state, document_BT, chunk: int, rows: int):
    """(y_BT, the state after the last token) of `form(arrays_Bci, one, state, over) -> (y_Bci,
    state)`, which takes chunks of tokens, `same` of their documents, and `over_chunks` or `of_one`.

    rows: 0: all chunks at once. Else one after the other, of so many sequences at a time, so that
    what a chunk needs stays in a processor's cache. Kept for the backward pass is then the state
    before each chunk, and everything else made again.
    """
    length = arrays_BT[0].shape[1]
    cut = jax.tree.map(lambda a: in_chunks(a, chunk), arrays_BT), same(document_BT, chunk)
    y_Bci, after = _one_by_one(form, cut, state, rows) if rows else form(*cut, state, over_chunks)
    return y_Bci.reshape(y_Bci.shape[0], -1, *y_Bci.shape[3:])[:, :length], after


def rows_of(ex: Execution, tokens: int) -> int:
    """Sequences at a time, of so many tokens each."""
    return ex.turn and max(1, ex.turn // tokens)


def _one_by_one(form, cut, state, most: int):
    batch = state.shape[0]
    rows = max(n for n in range(1, min(most, batch) + 1) if batch % n == 0)

    def chunk(state, now):
        arrays_Bci, one = jax.tree.map(lambda a: a[:, None], now)
        y_Bci, state = form(arrays_Bci, one, state, of_one)
        return state, y_Bci[:, 0]

    def some(now):
        cut, state = now
        by_turn = jax.tree.map(lambda a: a.swapaxes(0, 1), cut)
        after, y = jax.lax.scan(jax.checkpoint(chunk, prevent_cse=False), state, by_turn)
        return y.swapaxes(0, 1), after

    grouped = jax.tree.map(lambda a: a.reshape(-1, rows, *a.shape[1:]), (cut, state))
    return jax.tree.map(lambda a: a.reshape(batch, *a.shape[2:]), jax.lax.map(some, grouped))


def chunked(ex: Execution, q_BTGK, k_BTGK, v_BTHW, log_BTH, state_BHKW, document_BT=None):
    """(y_BTHW, the state after the last token)."""
    channels = log_BTH is not None and log_BTH.ndim == 4
    if log_BTH is None:
        log_BTH = jnp.zeros(v_BTHW.shape[:3], state_BHKW.dtype)
    arrays_BT = q_BTGK, k_BTGK, v_BTHW, precise(log_BTH)
    chunk = chunk_of(ex, v_BTHW.shape[1], channels)
    form, rows = functools.partial(_form, ex), rows_of(ex, chunk)
    return in_turns(form, arrays_BT, state_BHKW, document_BT, chunk, rows)


def _form(ex: Execution, arrays_Bci, one: Same, state_BHKW, over):
    q_BciGK, k_BciGK, v_BciHW, log_BciH = arrays_Bci
    (batch, _, chunk, groups, _), dtype = q_BciGK.shape, v_BciHW.dtype
    heads, channels = v_BciHW.shape[3], log_BciH.ndim == 5
    each = heads // groups

    def by_group(a_Bci, n):
        """B c G r i ..., for the `n` heads of a group."""
        a = a_Bci.reshape(*a_Bci.shape[:3], groups, n, *a_Bci.shape[4:])
        return a.transpose(0, 1, 3, 4, 2, *range(5, a.ndim))

    q, k = by_group(q_BciGK, 1)[:, :, :, 0], by_group(k_BciGK, 1)[:, :, :, 0]  # B c G i K
    v = by_group(v_BciHW, each)  # B c G r i W
    sums = running(by_group(log_BciH, each), 4, one)
    last = sums[:, :, :, :, -1:]
    if channels:
        q, k = q[:, :, :, None], k[:, :, :, None]
        map_ij = _map_of_channels(q[:, :, :, 0], k[:, :, :, 0], sums[:, :, :, 0], one)
        map_ij = map_ij[:, :, :, None]
        to_end = only(jnp.exp(last - sums), one.end_Bci, 1)
        from_start = only(jnp.exp(sums), one.start_Bci, 1)
        k_end = (precise(k) * to_end).astype(dtype)[:, :, :, 0]
        q_start = (precise(q) * from_start).astype(dtype)[:, :, :, 0]
        update = scores("bcgik,bcgriw->bcgrkw", k_end, v)
        decay = only(jnp.exp(last), one.whole_Bc).swapaxes(-1, -2)
    else:
        lower = jnp.tril(jnp.ones((chunk, chunk), bool))
        apart = jnp.where(lower, sums[..., :, None] - sums[..., None, :], -jnp.inf)
        map_ij = by_head(ex, scores("bcgik,bcgjk->bcgij", q, k), jnp.exp(apart), 3)
        v_end = precise(v) * only(jnp.exp(last - sums), one.end_Bci)[..., None]
        v_end = v_end.astype(dtype)
        update = scores("bcgik,bcgriw->bcgrkw", k, v_end)
        q_start = q
        decay = only(jnp.exp(last), one.whole_Bc)[..., None]
    before, after = between(
        over, state_BHKW.reshape(batch, groups, each, *state_BHKW.shape[2:]), update, decay
    )
    map_ij = only(map_ij, one.within_Bcij).astype(dtype)
    inside = einsum("bcgrij,bcgrjw->bcgriw", map_ij, v)
    earlier = einsum("bcgik,bcgrkw->bcgriw", q_start, before.astype(dtype))
    if not channels:
        earlier = precise(earlier) * only(jnp.exp(sums), one.start_Bci)[..., None]
        earlier = earlier.astype(dtype)
    y = (inside + earlier).transpose(0, 1, 4, 2, 3, 5)
    return y.reshape(v_BciHW.shape), after.reshape(state_BHKW.shape)


def _map_of_channels(q, k, sums, one: Same):
    """sum_K q_i k_j exp(sums_i - sums_j) for j <= i, of B c G i K."""
    chunk, rows = q.shape[-2], []
    q, k = precise(q), precise(k)
    for first in range(0, chunk, BLOCK):
        end = min(first + BLOCK, chunk)
        here = slice(first, end)
        lower = jnp.tril(jnp.ones((end - first, end - first), bool))[..., None]
        apart = jnp.where(lower, sums[..., here, None, :] - sums[..., None, here, :], -jnp.inf)
        own = (q[..., here, None, :] * k[..., None, here, :] * jnp.exp(apart)).sum(-1)
        parts = [own, jnp.zeros((*own.shape[:-1], chunk - end), own.dtype)]
        if first:
            at = level(sums[..., first - 1 : first, :], one)
            q_from = q[..., here, :] * jnp.exp(sums[..., here, :] - at)
            k_to = k[..., :first, :] * jnp.exp(at - sums[..., :first, :])
            parts = [einsum("bcgik,bcgjk->bcgij", q_from, k_to), *parts]
        rows.append(jnp.concatenate(parts, -1))
    return jnp.concatenate(rows, -2)


def flops(heads: int, keys: int, values: int) -> int:
    """A token's, by the recurrence: the update and the read of a state, 2 each for every number of
    it.
    """
    return 4 * heads * keys * values


def work(
    ex: Execution, batch: int, length: int, groups: int, heads: int, keys: int, values: int,
    channels: bool = False, learned: bool = True,
) -> Work:  # fmt: skip
    """Executed: a map of every chunk for each group of heads, its product with the values, update
    and read of the state. Kept: the maps, and the states between chunks; in turns the states alone,
    and made again are the map, and what is read of a state where a head's decays are learned.
    """
    chunk = chunk_of(ex, length, channels)
    count = batch * -(-length // chunk)
    pairs = chunk * chunk
    if channels:  # blocks see each other through matmuls, tokens of a block one by one
        pairs = sum(
            (min(first + BLOCK, chunk) - first) * first for first in range(BLOCK, chunk, BLOCK)
        )
    mapped, read = groups * pairs * keys, heads * chunk * keys * values
    one = mapped + heads * chunk**2 * values + 2 * read
    again = mapped + read * (learned and not channels)
    numbers = (heads + groups) * chunk**2 + heads * (2 * keys * values + chunk * 3 * values)
    numbers += 2 * heads * chunk * BLOCK * keys * channels
    states = heads * (keys + chunk) * values
    inner = in_turns_or_not(ex, matmuls(2 * count * one), count, again, numbers, states, chunk)
    decays = heads * (keys if channels else 1)
    return total((inner, running_work(ex, batch, length, chunk, decays, learned)))


def in_turns_or_not(
    ex: Execution, work: Work, count: int, again: int, numbers: int, states: int, chunk: int
) -> Work:
    """`work` of so many chunks with its bytes: `numbers` of each, or in turns only its state and
    result, the rest of few chunks at a time; where `again` multiply-adds of each are made again.
    """
    wide = max(4, size(ex))
    if not ex.turn:
        return work._replace(kept=count * numbers * wide)
    spare = rows_of(ex, chunk) * numbers * wide
    more = work.backward + 2 * count * again
    return work._replace(backward=more, kept=count * states * wide, spare=spare)
