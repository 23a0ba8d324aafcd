"""What is computed in float32 wherever it runs, and what a GPU is given to compute."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch.config import Run, Where
from launch.devices import choice
from launch.runs import program as programs
from model import account, context, lm, loss, params
from model.config import Execution, Model
from model.mixers import softmax
from model.mlps import dispatch
from model.positions import Sinusoidal
from model.registry import MIXERS
from tests.model import shapes, walk
from tests.model.test_model import TINY, forward, make, rich_shapes, tokens, variables

replace = dataclasses.replace
WIDE = replace(TINY, vocab_size=1056)  # above the one-hot embedding's
gpt2 = shapes.maker(
    vocab_size=50304, seq_len=1024, d_model=768, n_layers=12, n_heads=12, d_ff=3072, tied=True
)
GPT2 = gpt2()


def _exact(e) -> bool:
    asked = e.params["precision"]
    return set(asked if isinstance(asked, tuple) else (asked,)) == {jax.lax.Precision.HIGHEST}


def _products():
    """Every mixer in chunks; how experts are computed is another matter, asked of attention
    alone but in the slow lane.
    """
    chunks = Execution(attention_chunk=4, loss_chunk=4, chunk=4)
    every = [*(Execution(moe=name, moe_rows=8) for name in dispatch.IMPLEMENTATIONS), chunks]
    for (mixer, vocab), ex in itertools.product(zip(MIXERS, itertools.cycle((32, 1056))), every):
        quick = ex == chunks or mixer == "attention"
        yield pytest.param(ex, mixer, vocab, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("ex,mixer,vocab", [*_products()])
def test_float32_is_multiplied_in_float32(ex, dtype, mixer, vocab):
    """Accelerators take fewer bits of float32 unless told: every product of two float32 arrays
    tells them, the router's too.
    """
    pattern = (f"{mixer}/dense", f"{mixer}/moe")
    c = make(vocab_size=vocab, pattern=pattern, capacity_factor=1.25 * (ex.moe == "capacity"))
    traced = walk.products(walk.training(c, replace(ex, dtype=dtype), 4), turns=1)
    found = [e for e, _ in traced if all(v.aval.dtype == jnp.float32 for v in e.invars[:2])]
    assert len(found) >= (3 if dtype == "bfloat16" else 20)
    assert all(_exact(e) for e in found)


def test_a_frequent_token_has_its_whole_gradient():
    """In bfloat16 a sum of ones stands still at 256."""
    table_VD, tokens_BT = jnp.ones((4, 8), jnp.bfloat16), jnp.zeros((3, 1000), int)
    g_VD = jax.grad(lambda w: lm._rows(w, tokens_BT).astype(jnp.float32).sum())(table_VD)
    assert g_VD.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        g_VD.astype(jnp.float32), np.outer([3000, 0, 0, 0], np.ones(8)), rtol=2**-8
    )


@rich_shapes
def test_weights_cast_once_change_nothing(c):
    c, ex = replace(c, vocab_size=1056), Execution(dtype="bfloat16")
    held = variables(c)
    cast = {**held, "params": params.at_use(held["params"], "bfloat16")}
    assert any(a.dtype == jnp.bfloat16 for a in jax.tree.leaves(cast["params"]))
    t = tokens(c, 2)[:, :-1]
    np.testing.assert_array_equal(forward(c, ex, held, t), forward(c, ex, cast, t))


def gpu(c: Model, dtype: str = "bfloat16", batch: int = 64) -> Execution:
    return choice.execution(c, Where(), dtype, "gpu", 1, batch * c.seq_len)


@pytest.mark.parametrize(
    "change,kernel",
    [
        ({}, "cudnn"),
        ({"n_kv_heads": 4}, "cudnn"),
        ({"window": 256}, "cudnn"),
        ({"positions": "alibi"}, "xla"),
        ({"attention_cap": 30.0}, "xla"),
        ({"d_head": 20}, "xla"),
        ({"d_head": 192}, "xla"),
        ({"seq_len": 1023}, "xla"),
        ({"pattern": ("latent/dense",), "kv_rank": 64, "d_rope": 32}, "xla"),
        ({"pattern": ("latent/dense",), "kv_rank": 64, "d_rope": 32, "d_value": 96}, "cudnn"),
    ],
)
def test_which_attention_a_gpu_gets(change, kernel):
    c = gpt2(**change)
    flat, rule = shapes.view(c), c.layers[0].mixer.rule(c)
    widths = flat.d_head + flat.d_rope, flat.d_value

    def takes(ex):
        return "cudnn" if softmax.fused(rule, ex, c.seq_len, *widths) else "xla"

    assert takes(gpu(c)) == kernel
    assert (
        takes(gpu(c, "float32"))
        == takes(choice.execution(c, Where(), "bfloat16", "tpu", 1, 65_536))
        == "xla"
    )
    counted = [account.work(c, replace(gpu(c), attention=how), 64) for how in ("cudnn", "xla")]
    assert (counted[0] != counted[1]) == (kernel == "cudnn")


@pytest.mark.parametrize(
    "change",
    [{"positions": "alibi"}, {"attention_cap": 5.0}, {"pattern": ("latent/dense",)}],
    ids=str,
)
def test_a_kernel_asked_for_where_it_computes_something_else_is_not_taken(change):
    c = make(vocab_size=1056, **change)
    held, t = variables(c), tokens(c, 2)[:, :-1]
    a, b = (
        forward(c, Execution(dtype="bfloat16", attention=how), held, t) for how in ("xla", "cudnn")
    )
    np.testing.assert_array_equal(a, b)


def test_the_kernel_is_counted_by_what_is_attended_to():
    """And one number a row is kept, where XLA keeps the map."""
    ex, batch = gpu(GPT2), 64
    work, each = account.work(GPT2, ex, batch), account.flops_per_token(GPT2)["matmul_causal"]
    tokens = batch * GPT2.seq_len
    scores_again = 2 * GPT2.n_layers * GPT2.d_model * (GPT2.seq_len + 1) // 2
    assert work.training(False) == tokens * (each + scores_again)

    def held(ex):
        return account.memory(GPT2, ex, batch)["activations"]

    # 19.4 GiB of temporaries in the program compiled for an H200, gradients among them
    # (docs/counting.md)
    assert 18 < held(ex) / 2**30 < 24 < 80 < held(replace(ex, attention="xla")) / 2**30


def test_a_device_without_the_kernel_takes_xla(monkeypatch):
    chosen = choice.execution
    monkeypatch.setattr(choice, "execution", lambda *a: replace(chosen(*a), attention="cudnn"))
    assert not choice.has_cudnn()
    p = programs.program(Run(model=WIDE, batch=2, dtype="bfloat16"), Where(mesh="data=1"))
    assert p.layout.lm.ex.attention == "xla"


def test_blocks_of_a_gpu_are_wide():
    """2,048 rows where an expert has 16,384: an eighth of padding, an eighth as many copies of
    weights as blocks of 256 (docs/benchmarks.md).
    """
    ex = gpu(gpt2(pattern=("attention/moe",)))
    assert (ex.moe, ex.moe_rows) == ("block", 2048)


@pytest.mark.parametrize("chunk", [0, 4])
def test_logits_are_kept_in_float32(chunk):
    """Rounded to bfloat16, logits near 60 would be .25 apart, and so would losses."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 8, 16)) * 4, jnp.bfloat16)
    w = jnp.asarray(rng.standard_normal((24, 16)) * 4, jnp.bfloat16)
    targets = jnp.asarray(rng.integers(0, 24, (2, 8)))
    exact = np.asarray(x, np.float64) @ np.asarray(w, np.float64).T
    top = exact.max(-1, keepdims=True)
    logsumexp = (top + np.log(np.exp(exact - top).sum(-1, keepdims=True)))[..., 0]
    want = logsumexp - np.take_along_axis(exact, np.asarray(targets)[..., None], -1)[..., 0]
    ex = Execution(dtype="bfloat16", loss_chunk=chunk)
    got = loss.each(x, w, targets, 0.0, ex)
    np.testing.assert_allclose(got, want, atol=1e-4)
    np.testing.assert_allclose(loss.mean(x, w, targets, 0.0, ex), want.mean(), atol=1e-4)


@pytest.mark.parametrize("chunk", [0, 4])
def test_scores_are_kept_in_float32(chunk):
    rng = np.random.default_rng(0)
    rule = softmax.Rule(2, 0, 0.0, Sinusoidal())
    q, k, v = (
        jnp.asarray(rng.standard_normal((2, 8, 2, 24)) * s, jnp.bfloat16) for s in (12, 12, 1)
    )
    q64, k64, v64 = (np.asarray(a, np.float64) for a in (q, k, v))
    raw = np.einsum("bthk,bjhk->bhtj", q64, k64) * 24**-0.5
    raw = np.where(np.tril(np.ones((8, 8), bool)), raw, -np.inf)
    weights = np.exp(raw - raw.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    want = np.einsum("bhtj,bjhk->bthk", weights, v64)
    ex = Execution(dtype="bfloat16", attention_chunk=chunk)
    got = softmax.attend(rule, ex, context.plain(8), q, k, v, 24**-0.5, None)
    np.testing.assert_allclose(np.asarray(got, np.float64), want, atol=0.02)
