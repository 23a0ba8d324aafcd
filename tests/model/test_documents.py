"""Documents that are kept apart: no gradient across an end, positions anew, and within a document
the numbers of the document alone. Over every registered mixer and position, and every way to
execute a map.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import context, params, parts, step
from model.config import Execution
from model.context import Separator
from model.lm import LM
from model.registry import MIXERS, POSITIONS
from tests.model.test_model import variables

END, T = 3, 14  # the separator's id; tokens of a window, even: cuDNN's kernel wants it
# documents of 5, 6 and 3 tokens, separators among them: spans of a window that ends in a third
SPANS = ((0, 5), (5, 11), (11, 14))
MADE = {  # the fields that a mixer of these tests has
    "attention": "attention(n_heads=2,n_kv_heads=1{})",
    "latent": "latent(n_heads=2,kv_rank=8,d_rope=4{})",
}
ABLE = [name for name, cls in MIXERS.items() if getattr(cls, "apart", False)]
EXECUTIONS = {
    "whole": Execution(),
    "chunks": Execution(attention_chunk=5),
    "kept": Execution(attention_chunk=5, settle=True),
    "cudnn": Execution("bfloat16", attention="cudnn"),  # computes none of it
}


def model(mixer="attention", positions="rope", window=0, n_layers=1, mlp="dense"):
    field = f",window={window}" if window else ""
    layer = MADE.get(mixer, mixer).format(field)
    return parts.model(
        f"{layer}/{mlp}",
        positions=positions,
        vocab_size=16,
        seq_len=T,
        d_model=16,
        n_layers=n_layers,
    )


def window_of(batch=2, first=False):
    """Tokens (B, T + 1) whose documents are SPANS."""
    rng = np.random.default_rng(0)
    t = rng.integers(END + 1, 16, (batch, T + 1)).astype(np.int32)
    for begin, end in SPANS:
        if first:
            t[:, begin] = END
        elif end < T:
            t[:, end - 1] = END
    return t


def number(i: int) -> int:
    return next(k for k, (begin, end) in enumerate(SPANS) if begin <= i < end)


@functools.cache
def read(c, ex, separator):
    """A program that makes of (variables, tokens, shift_TD) the logits, and how much those of the
    first row at i move with what enters the layers at j: (T, T).
    """

    class Probed(LM):
        def _embed(self, table_VD, tokens_BT, ctx):
            shift_TD = self.get_variable("probe", "shift")
            return super()._embed(table_VD, tokens_BT, ctx).at[0].add(shift_TD)

    def logits(shift_TD, held, t_BT):
        held = {**held, "probe": {"shift": shift_TD}}
        logits_BTV = Probed(c, ex, separator).apply(held, t_BT)[0]
        return logits_BTV[0].sum(-1), logits_BTV

    def both(held, t_BT, shift_TD):
        moved_TTD, logits_BTV = jax.jacrev(logits, has_aux=True)(shift_TD, held, t_BT)
        return logits_BTV, jnp.abs(moved_TTD).sum(-1)

    return jax.jit(both)


@functools.cache
def joined_model(c):
    return jax.jit(lambda held, t: LM(c).apply(held, t)[0])


def seen(i: int, j: int, window: int) -> bool:
    return j <= i and number(i) == number(j) and (not window or i - j < window)


@pytest.mark.parametrize("first", [False, True])
def test_documents_are_numbered_and_positions_restart(first):
    ctx = context.apart(jnp.asarray(window_of(3, first)[:, :-1]), Separator(END, first))
    want = [number(i) for i in range(T)], [i - SPANS[number(i)][0] for i in range(T)]
    for got, row in ((ctx.document_BT, want[0]), (ctx.at, want[1])):
        assert got.dtype == jnp.int32
        np.testing.assert_array_equal(got, np.tile(row, (3, 1)))
    # separators in a row are documents of one token, wherever the window begins
    t_BT = jnp.array([[END, END, 7, END, 7, 7]])
    ctx = context.apart(t_BT, Separator(END, first))
    wanted = (
        [[0, 1, 1, 2, 2, 2], [0, 0, 1, 0, 1, 2]]
        if first
        else [[0, 1, 2, 2, 3, 3], [0, 0, 0, 1, 0, 1]]
    )
    np.testing.assert_array_equal(ctx.document_BT[0], wanted[0])
    np.testing.assert_array_equal(ctx.at[0], wanted[1])


def cases():
    """Every mixer, position and execution; of the chunks one position that turns and one that is
    added to the scores in the fast lane.
    """
    for mixer in ABLE:
        for n, positions in enumerate(POSITIONS):
            for how in EXECUTIONS:
                quick = how == "whole" or mixer == "attention" and positions in ("rope", "alibi")
                marks = () if quick else pytest.mark.slow
                window = 4 * (n % 2) if mixer in MADE else 0
                c = model(mixer, positions, window)
                yield pytest.param(c, how, window, id=f"{mixer}-{positions}-{how}", marks=marks)


@pytest.mark.parametrize("c,how,window", [*cases()])
def test_a_document_is_read_by_itself(c, how, window):
    """By gradient: of its own document a token sees all that a window lets through, of the others
    nothing. And its logits are those of the document at the front of a window of its own, which a
    joined model reads.
    """
    ex, held, t = EXECUTIONS[how], variables(c), window_of()[:, :-1]
    zeros_TD = jnp.zeros((T, c.d_model), ex.dtype)
    got, moved_TT = read(c, ex, Separator(END))(held, t, zeros_TD)
    want = [[seen(i, j, window) for j in range(T)] for i in range(T)]
    np.testing.assert_array_equal(moved_TT > 0, want)
    exact = ex.dtype == "float32"
    joined = functools.partial(joined_model(c), held)
    assert np.abs(joined(t) - got)[:, SPANS[1][0] :].max() > 0.1
    for begin, end in SPANS:
        alone = np.full_like(t, 9)
        alone[:, : end - begin] = t[:, begin:end]
        want = joined(alone)[:, : end - begin]
        np.testing.assert_allclose(got[:, begin:end], want, atol=2e-5 if exact else 0.3)


def test_scan_remat_and_micro_batches_change_nothing():
    """Loss and every leaf of the gradient of a step."""
    c, t, want = model(n_layers=2), window_of(4), None
    for ex in (
        Execution(),
        Execution(scan=True, remat=True, attention_chunk=5),
        Execution(accumulate=2, loss_chunk=4, remat=True),
    ):
        lm = LM(c, ex, Separator(END))
        state = step.State(variables(c, ex)["params"], None, {})
        grads, (metrics, _) = jax.jit(functools.partial(step.accumulated, lm))(state, t)
        got = params.unrolled({**grads})
        want = want or (metrics["loss"], got)
        np.testing.assert_allclose(metrics["loss"], want[0], rtol=1e-5)
        for a, b in zip(jax.tree.leaves(want[1]), jax.tree.leaves(got), strict=True):
            np.testing.assert_allclose(b, a, atol=2e-5, err_msg=str(ex))


def test_evaluation_keeps_apart_too():
    c, t = model(), window_of()
    held, lm = variables(c), LM(c, Execution(loss_chunk=4), Separator(END))
    nll = jax.jit(functools.partial(step.eval_step, lm))(held, t)[0]
    logits = jax.jit(LM(c, separator=Separator(END)).apply)(held, t[:, :-1])[0]
    logp = jax.nn.log_softmax(logits)
    want = -np.take_along_axis(np.asarray(logp), t[:, 1:, None], -1)[..., 0]
    np.testing.assert_allclose(nll, want, atol=1e-5)


def test_a_part_that_does_not_stop_at_an_end_is_refused(monkeypatch):
    c = model()

    @dataclasses.dataclass(frozen=True)
    class Running:  # a mixer of somebody who has not thought of documents
        pass

    monkeypatch.setitem(parts.NAMES, Running, "running")
    layer = dataclasses.replace(c.pattern[0], mixer=Running())
    for bad in (
        dataclasses.replace(c, pattern=(layer,)),
        dataclasses.replace(c, first=(layer,), n_layers=2),
    ):
        with pytest.raises(ValueError, match="mixer running does not stop .* attention, latent"):
            jax.eval_shape(LM(bad, separator=Separator(END)).init, jax.random.key(0), window_of())
