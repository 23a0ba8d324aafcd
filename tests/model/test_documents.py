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
from model.registry import MIXERS, MLPS, POSITIONS
from tests.model.test_model import variables

END, T = 3, 14  # the separator's id; tokens of a window, even: cuDNN's kernel wants it
# documents of 5, 6 and 3 tokens, separators among them: spans of a window that ends in a third
SPANS = ((0, 5), (5, 11), (11, 14))
MADE = {  # the fields that a mixer of these tests has
    "attention": "attention(n_heads=2,n_kv_heads=1{})",
    "latent": "latent(n_heads=2,kv_rank=8,d_rope=4{})",
    "linear_attention": "linear_attention(n_heads=2)",
    "retnet": "retnet(n_heads=2)",
    "gla": "gla(n_heads=2)",
    "gated_delta": "gated_delta(n_heads=2)",
    "s4d": "s4d(d_state=4)",
    "rg_lru": "rg_lru(n_heads=2)",
    "mamba": "mamba(d_state=4)",
    "mamba2": "mamba2(n_heads=2,d_state=4)",
    "rwkv7": "rwkv7(n_heads=2)",
    "sparse": "sparse(n_heads=2,block=1,local=2,n_global=1,n_random=1)",
    "reformer": "reformer(n_heads=2,n_buckets=2,span=4)",
}
ABLE = [name for name, cls in MIXERS.items() if getattr(cls, "apart", False)]
PLACED = [name for name, cls in MIXERS.items() if hasattr(cls, "positions")]
WINDOWED = ("attention", "latent")
# chunks of 3 tokens, so that one lies within a document, and others hold an end
CHUNK = {"gla": 12, "rwkv7": 12, "gated_delta": 6, "mamba": 12}
CHUNK |= {"mamba2": 3, "retnet": 3, "linear_attention": 3}
EXECUTIONS = {
    "whole": Execution(),
    "chunks": Execution(attention_chunk=5, chunk=3),
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
    """A program that makes of (variables, tokens, shift_TD, g_BTV) the logits, how much those of
    the first row at i move with what enters the layers at j, (T, T), and the gradients of their
    products with g.
    """

    class Probed(LM):
        def _embed(self, table_VD, tokens_BT, ctx):
            shift_TD = self.get_variable("probe", "shift")
            return super()._embed(table_VD, tokens_BT, ctx).at[0].add(shift_TD)

    def program(held, t_BT, shift_TD, g_BTV):
        def logits(shift_TD, weights):
            held_now = {**held, "params": weights, "probe": {"shift": shift_TD}}
            return Probed(c, ex, separator).apply(held_now, t_BT)[0]

        logits_BTV, back = jax.vjp(logits, shift_TD, held["params"])
        one_TBTV = jnp.zeros((T, *logits_BTV.shape)).at[np.arange(T), 0, np.arange(T)].set(1)
        moved_TTD = jax.vmap(lambda g: back(g)[0])(one_TBTV)
        return logits_BTV, jnp.abs(moved_TTD).sum(-1), back(g_BTV)[1]

    return jax.jit(program)


@functools.cache
def joined_model(c):
    """A program that makes of (variables, tokens, g_BTV) the logits of joined documents, and the
    gradients of their products with g.
    """

    def program(held, t_BT, g_BTV):
        logits = lambda weights: LM(c).apply({**held, "params": weights}, t_BT)[0]  # noqa: E731
        logits_BTV, back = jax.vjp(logits, held["params"])
        return logits_BTV, back(g_BTV)[0]

    return jax.jit(program)


def seen_by(c) -> np.ndarray | None:
    """Which tokens of a document each of it sees; None where that is a matter of hashing."""
    mixer, at = c.pattern[0].mixer, np.arange(T)
    if hasattr(mixer, "visible"):
        return mixer.visible(at, at)
    if hasattr(mixer, "n_buckets"):
        return None
    lag = at[:, None] - at
    return (lag >= 0) & (lag < (getattr(mixer, "window", 0) or T))


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


SINKS = model("attention(n_heads=2,sinks=true{})", window=4)


def cases(windowed: bool):
    """Every mixer with a window, or every other one, position and execution. In the fast lane
    chunks of every mixer at one position; of attention one that turns and one that is added to the
    scores.
    """
    for mixer in ABLE:
        if (mixer in WINDOWED) != windowed:
            continue
        for n, positions in enumerate(POSITIONS if mixer in PLACED else ["rope"]):
            for how in [*EXECUTIONS, "turns"] if mixer in CHUNK else EXECUTIONS:
                quick = how == "chunks" and positions == "rope"
                quick |= how == "turns" and mixer in ("mamba", "mamba2", "gated_delta")
                if mixer in WINDOWED:
                    attended = mixer == "attention" and positions in ("rope", "alibi")
                    quick = how == "whole" or attended
                window = 4 * (n % 2) if mixer in WINDOWED else 0
                mlp = "channel_mix" if mixer == "rwkv4" else "dense"
                c, ex = model(mixer, positions, window, mlp=mlp), EXECUTIONS.get(how, Execution())
                if how != "whole" and mixer in CHUNK:
                    ex = dataclasses.replace(ex, chunk=CHUNK[mixer], turn=how == "turns")
                marks = () if quick else pytest.mark.slow
                yield pytest.param(c, ex, id=f"{mixer}-{positions}-{how}", marks=marks)


def test_every_part_that_could_is_among_them():
    """A convolution by Fourier transforms over the whole window knows no ends."""
    assert [name for name in MIXERS if name not in ABLE] == ["hyena"]
    assert all(getattr(cls, "apart", False) for cls in MLPS.values())


def by_themselves(t_BT):
    """Each document at the front of a window of its own, (documents, B, T)."""
    alone = np.full((len(SPANS), *t_BT.shape), 9, np.int32)
    for n, (begin, end) in enumerate(SPANS):
        alone[n, :, : end - begin] = t_BT[:, begin:end]
    return alone


@pytest.mark.parametrize(
    "c,ex", [*cases(True), *((SINKS, EXECUTIONS[how]) for how in ("whole", "chunks", "kept"))]
)
def test_a_document_is_read_by_itself(c, ex):
    read_by_itself(c, ex)


def read_by_itself(c, ex):
    """By gradient: of its own document a token sees all that the mixer lets through, of the others
    nothing. Its logits are those of the document at the front of a window of its own, which a
    joined model reads; and so are the gradients of the weights, of all documents together.
    """
    held, t = variables(c), window_of()[:, :-1]
    g = np.random.default_rng(1).standard_normal((*t.shape, c.vocab_size)).astype(np.float32)
    alone_t = np.concatenate([by_themselves(t), t[None]]).reshape(-1, T)
    alone_g = np.zeros((len(SPANS) + 1, *g.shape), np.float32)
    for n, (begin, end) in enumerate(SPANS):
        alone_g[n, :, : end - begin] = g[:, begin:end]
    zeros_TD = jnp.zeros((T, c.d_model), ex.dtype)
    got, moved_TT, grads = read(c, ex, Separator(END))(held, t, zeros_TD, g)
    want, wanted = joined_model(c)(held, alone_t, alone_g.reshape(-1, *g.shape[1:]))
    *want, joined = want.reshape(alone_g.shape)
    shown = np.zeros((T, T), bool)
    for begin, end in SPANS:
        seen_TT = seen_by(c)
        within = np.tril(np.ones((T, T), bool)) if seen_TT is None else seen_TT
        shown[begin:end, begin:end] = within[: end - begin, : end - begin]
    assert np.isfinite(moved_TT).all()
    assert not (moved_TT > 0)[~shown].any()
    if seen_by(c) is None:
        assert (moved_TT > 0)[shown].mean() > 0.5
    else:
        assert (moved_TT > 0)[shown].all()
    exact = ex.dtype == "float32"
    for (begin, end), alone in zip(SPANS, want):
        np.testing.assert_allclose(
            got[:, begin:end], alone[:, : end - begin], atol=2e-5 if exact else 0.3
        )
    assert np.abs(joined - got)[:, SPANS[1][0] :].max() > 0.01
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(wanted), jax.tree.leaves(grads)):
        size = float(jnp.linalg.norm(a))
        assert float(jnp.linalg.norm(a - b)) <= (1e-4 if exact else 0.5) * size + 1e-6, path


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
