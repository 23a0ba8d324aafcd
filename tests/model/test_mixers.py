"""Mixers with a state against their papers' equations, and against other people's code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import parts
from model.config import Execution
from model.registry import MIXERS
from tests.model.recurrences import REFERENCES, channel_mix

# what the equation has to be right for, besides the default
MORE = [
    "mamba2(n_heads=4,n_groups=2,d_state=3)",
    "gated_delta(n_heads=2,n_value_heads=4,d_value=3)",
    "gated_delta(n_heads=2,decay=false,gate=false)",
    "lstm(n_units=5)",
    "mamba(thin_norm=plain,bias=true,conv_bias=false,norm_eps=0.1)",
    "mamba(thin_norm=scaled)",
    "mamba2(n_heads=4,bias=true,conv_bias=false,norm_eps=0.1)",
    "gated_delta(n_heads=2,norm_eps=0.1)",
    "s4d(d_state=6)",
]
CHANNELS = ("gla", "rwkv7")  # in blocks and chunks of a chunk's quarter
IN_TURNS = ("linear_attention", "mamba", "retnet", "gla", "mamba2", "gated_delta", "rwkv7")
TURNED = ("retnet",)  # angles are kept in float32
CASES = [*(f"{name}" for name in REFERENCES), *MORE]


def prepared(written: str, length: int = 19, batch: int = 2):
    """(part, model, parameters at random, x_BTD), in float64."""
    m = parts.model(f"{written}/dense", d_model=8, n_layers=1, seq_len=length, vocab_size=7)
    part, rng = m.pattern[0].mixer, np.random.default_rng(3)
    module = part.module(m, Execution("float64"), "mixer")
    x_BTD = jnp.asarray(rng.standard_normal((batch, length, m.d_model)))
    boxed = jax.eval_shape(module.init, jax.random.key(0), x_BTD)["params"]
    w = jax.tree.map(
        lambda box: jnp.asarray(box.drawn(rng, box.value.shape) + 0.3 * rng.standard_normal(
            box.value.shape)), boxed, is_leaf=lambda b: hasattr(b, "drawn"),
    )  # fmt: skip
    return part, m, w, x_BTD


def test_every_state_has_a_witness():
    for name, cls in MIXERS.items():
        m = parts.model(f"{name}(kv_rank=2)/dense" if name == "latent" else f"{name}/dense")
        assert name in REFERENCES or not cls.state(m.pattern[0].mixer, m).per_sequence


@pytest.mark.parametrize(
    "written,turn", [(c, 0) for c in CASES] + [(c, 1) for c in CASES if c.split("(")[0] in IN_TURNS]
)
def test_equals_the_paper_in_float64(written, turn):
    """Forward and every gradient, in chunks that the length is no multiple of, all at once and one
    after the other.
    """
    with jax.enable_x64(True):
        part, m, w, x_BTD = prepared(written)
        name = written.split("(")[0]
        of, ex = (
            REFERENCES[name],
            Execution("float64", chunk=64 if name in CHANNELS else 12, turn=turn),
        )
        g_BTD = jnp.asarray(np.random.default_rng(0).standard_normal(x_BTD.shape))

        def ours(w, x_BTD):
            return part.module(m, ex, "mixer").apply({"params": w}, x_BTD)

        def papers(w, x_BTD):
            return jax.vmap(lambda x_TD: of(part, m, w, x_TD))(x_BTD)

        def passes(f):
            y, back = jax.vjp(f, w, x_BTD)
            return y, back(g_BTD)

        (y, grads), (want, wanted) = jax.jit(lambda: (passes(ours), passes(papers)))()
        exact = 1e5 if name in TURNED else 1.0
        np.testing.assert_allclose(y, want, rtol=0, atol=1e-12 * exact * float(jnp.abs(want).max()))
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(wanted), jax.tree.leaves(grads)
        ):
            size = float(jnp.abs(a).max())
            assert size > 0, path
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-11 * exact * size, err_msg=str(path))


def test_channel_mix_equals_the_paper():
    with jax.enable_x64(True):
        m, rng = parts.model("rwkv4/channel_mix(d_ff=12)", d_model=8), np.random.default_rng(0)
        module = m.pattern[0].mlp.module(m, Execution("float64"), "mlp")
        x_BTD = jnp.asarray(rng.standard_normal((1, 9, 8)))
        boxed = jax.eval_shape(module.init, jax.random.key(0), x_BTD)["params"]
        w = jax.tree.map(lambda b: jnp.asarray(rng.standard_normal(b.value.shape)), boxed,
                         is_leaf=lambda b: hasattr(b, "drawn"))  # fmt: skip
        got, _ = module.apply({"params": w}, x_BTD)
        np.testing.assert_allclose(got[0], channel_mix(w, x_BTD[0]), rtol=1e-12)


def test_sparse_attention_equals_dense_attention_under_its_mask():
    """Longformer's and BigBird's masks, said once more in words; the map whole, and in blocks."""
    with jax.enable_x64(True):
        for written, window, first, drawn in (
            ("sparse(n_heads=2,block=4,local=6,n_global=2,n_random=0)", 6, 2, 0),
            ("sparse(n_heads=2,block=4,local=4,n_global=4,n_random=1)", 4, 4, 1),
        ):
            part, m, w, x_BTD = prepared(written, 30, 1)
            i, j = np.arange(30)[:, None], np.arange(30)[None]
            seen = (j <= i) & ((i - j < window) | (j < first))
            more = part.visible(i[:, 0], j[0]) & ~seen
            assert (part.visible(i[:, 0], j[0]) >= seen).all() and not (more & (j > i)).any()
            blocks = {(a // 4, b // 4) for a, b in zip(*np.nonzero(more))}
            assert max([0, *(sum(a == row for a, _ in blocks) for row in range(8))]) == drawn
            q, k, v = (jnp.einsum("td,dhk->htk", x_BTD[0], w[n]["kernel"]) for n in "qkv")
            q, k = (m.positions.rotate(m, a.swapaxes(0, 1), i[:, 0]).swapaxes(0, 1) for a in (q, k))
            raw = jnp.where(seen | more, q @ k.swapaxes(1, 2) * q.shape[-1] ** -0.5, -jnp.inf)
            want = jnp.einsum("htk,hkd->td", jax.nn.softmax(raw, -1) @ v, w["out"]["kernel"])
            for chunk in (0, 4):
                ex = Execution("float64", attention_chunk=chunk)
                got = part.module(m, ex, "mixer").apply({"params": w}, x_BTD)[0]
                np.testing.assert_allclose(got, want, atol=1e-12)


def test_hashed_attention_equals_dense_attention_under_its_mask():
    """The last tokens of a bucket, in any round; the map whole, and sorted."""
    with jax.enable_x64(True):
        part, m, w, x_BTD = prepared("reformer(n_heads=2,n_buckets=4,n_rounds=2,span=3)", 23, 1)
        q, v = (jnp.einsum("td,dhk->thk", x_BTD[0], w[n]["kernel"]) for n in ("qk", "v"))
        found = np.asarray(part.buckets(q[None]))[0]
        seen = np.zeros((2, 23, 23), bool)
        for h, i, r in np.ndindex(2, 23, 2):
            alike = [j for j in range(i + 1) if found[h, j, r] == found[h, i, r]]
            seen[h, i, alike[-3:]] = True
        assert 3 < seen.sum(-1).max() <= 5 and (seen.sum(-1) == 1).any()
        q, k = (m.positions.rotate(m, a, np.arange(23)) for a in (q, q / jnp.sqrt((q * q).sum(
            -1, keepdims=True) + 1e-12)))  # fmt: skip
        raw = jnp.einsum("thk,jhk->htj", q, k) * q.shape[-1] ** -0.5 - 1e5 * np.eye(23)
        weights = jax.nn.softmax(jnp.where(seen, raw, -jnp.inf), -1)
        want = jnp.einsum("htj,jhk,hkd->td", weights, v, w["out"]["kernel"])
        for chunk in (0, 4):
            ex = Execution("float64", attention_chunk=chunk)
            got = part.module(m, ex, "mixer").apply({"params": w}, x_BTD)[0]
            np.testing.assert_allclose(got, want, atol=1e-10)
