"""The same numbers on every layout, and what the compiler makes of a layout. The whole product of
models and layouts is in the slow lane, and for a user in `isoflop bench layouts`.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

from experiments.benchmarks import layouts as bench
from launch.config import ConfigError
from launch.devices import collectives, compiled
from launch.devices import layout as layouts
from launch.devices import mesh as meshes
from launch.runs import train
from model import account, params, step
from model.config import Execution
from model.mlps import dispatch
from model.optimizers import AdamW
from model.registry import MIXERS
from tests.model import shapes

QUICK = [
    ("dense", "data=2,fsdp=2,tensor=2"),
    ("moe block", "fsdp=2,tensor=2,expert=2"),
    ("moe ragged", "fsdp=2,expert=4"),
    ("moe capacity", "tensor=2,expert=4"),
    ("windows", "data=2,fsdp=2,tensor=2"),
    ("two widths", "fsdp=2,tensor=2,expert=2"),
    *((name, "data=2,fsdp=2,tensor=2") for name in bench.STATES),
]


@functools.cache
def reference(name, dtype="float64"):
    with jax.enable_x64(dtype == "float64"):
        return bench.follow(*bench.MODELS[name], dtype=dtype)


def differs(name, mesh, dtype="float64", **how):
    model, moe = bench.MODELS[name]
    with jax.enable_x64(dtype == "float64"):
        return bench.compare(
            name, dtype, reference(name, dtype), bench.follow(model, moe, mesh, dtype, **how)
        )


def test_every_axis_is_tried():
    assert {name for name, _ in QUICK} == set(bench.MODELS) and len(bench.LAYOUTS) >= 10
    mixers = {type(layer.mixer) for model, _ in bench.MODELS.values() for layer in model.layers}
    assert mixers == set(MIXERS.values())
    for axis in ("fsdp", "tensor", "expert"):
        assert sum(meshes.parse(mesh)[axis] > 1 for mesh in bench.LAYOUTS) >= 2


@pytest.mark.parametrize(
    "name,mesh",
    [
        # a dense model on this mesh: tests/launch/test_launch.py, through its record
        q if q[0] == "moe capacity" else pytest.param(*q, marks=pytest.mark.slow)
        for q in QUICK
    ],
)
def test_layouts_agree_with_one_device(name, mesh):
    """float64: loss to 1e-9 over 20 steps, every leaf of the gradient to 1e-8, router included."""
    d = differs(name, mesh, **bench.LAYOUTS[mesh])
    assert not bench.excess(d, "float64", name), d


@pytest.mark.slow
def test_layouts_agree_in_float32(name="moe capacity", mesh="data=2,expert=4"):
    d = differs(name, mesh, "float32", **bench.LAYOUTS[mesh])
    print(f"{name} on {mesh}: {d.rerouted[0]} of {d.rerouted[1]} choices of experts changed")
    assert not bench.excess(d, "float32"), d


@pytest.mark.slow
def test_every_model_on_every_layout():
    """The table of docs/meshes.md, two processes included. About ten minutes."""
    answer = bench.measure("full", 1)
    print(bench.text(answer))
    routed = sum(bool(model.routed) for model, _ in bench.MODELS.values())
    fit = 12 * routed + 7 * (len(bench.MODELS) - routed) + len(bench.MODELS)
    assert len(answer["layouts"]) == 2 * fit and all(r["within"] for r in answer["layouts"])


def planted(sort):
    """Experts as one would write them first: tokens replicated over the axis of the experts, gates
    permuted into the experts' order.
    """

    def ragged(x_GnD, expert_GnS, gate_GnS, rank_GnS, w, act, p, ex):
        def local(x_nD, expert_nS, gate_nS, w):
            held = w["out"].shape[0]
            own_A = expert_nS.reshape(-1) - jax.lax.axis_index("expert") * held
            own_A = jax.numpy.where((own_A >= 0) & (own_A < held), own_A, held)
            order_A = sort(own_A)
            sizes = jax.nn.one_hot(own_A, held, dtype=np.int32).sum(0)

            def times(x, w_EDF):
                return jax.lax.ragged_dot(x, w_EDF, sizes)

            y_AD = (
                dispatch._mlp(x_nD[order_A // p.top_k], w, act, times, None)
                * gate_nS.reshape(-1)[order_A][:, None]
            )
            return jax.lax.psum(
                jax.numpy.zeros_like(x_nD).at[order_A // p.top_k].add(y_AD), ("expert", "tensor")
            )

        flat = [a.reshape(-1, a.shape[-1]) for a in (x_GnD, expert_GnS, gate_GnS)]
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or mesh.size == 1:
            return dispatch._ragged_local(*flat, w, act, p).reshape(x_GnD.shape)
        rows = jax.P(("data", "fsdp"))
        specs = {
            name: nn.logical_to_mesh_axes(
                ("experts", *(("mlp", None) if name == "out" else (None, "mlp")))
            )
            for name in w
        }
        return jax.shard_map(local, in_specs=(rows, rows, rows, specs), out_specs=rows)(
            *flat, w
        ).reshape(x_GnD.shape)

    return ragged


@pytest.mark.slow
def test_a_planted_argsort_is_seen(monkeypatch):
    """jnp.argsort inside shard_map is typed as equal on all devices: the loss is right and the
    router's gradient is not. jax.lax.sort in its place is right in both.
    """
    monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "ragged", planted(dispatch.sort_order))
    assert not bench.excess(differs("moe ragged", "data=2,expert=4"), "float64")
    monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "ragged", planted(jax.numpy.argsort))
    d = differs("moe ragged", "data=2,expert=4")
    print(d)
    assert (
        d.first_loss < 1e-9
        and "first_gradient" in bench.excess(d, "float64")
        and "router" in d.first_gradient[1]
    )


wide = shapes.maker(
    vocab_size=1040,
    seq_len=32,
    d_model=128,
    n_layers=2,
    n_heads=4,
    d_ff=256,
    n_experts=8,
    activation="swiglu",
)
WIDE = wide()
routed = functools.partial(wide, pattern=("attention/moe",), capacity_factor=1.25)
ROUTED = routed()


def test_what_is_compiled(monkeypatch):
    """Capacity exchanges tokens over the experts' axis and nothing but gradients over data; nothing
    is rematerialised involuntarily; what a loop over micro-batches carries of gradients is sharded
    as the parameters are.
    """
    sizes, texts, table = meshes.parse("data=2,fsdp=2,expert=2"), [], collectives.table
    monkeypatch.setattr(
        collectives, "table", lambda text, sizes: texts.append(text) or table(text, sizes)
    )
    d = compiled.over(
        ROUTED, Execution(moe="capacity", moe_groups=8, accumulate=2), 16, meshes.make(sizes)
    )
    assert d["involuntary_rematerialisations"] == 0
    rows = {(r["axes"], r["op"]): r for r in d["collectives"]}
    assert (
        rows["expert", "all-to-all"]["count"] == 2 * 2 * 4
    )  # there and back, forward and backward, 2 layers, 2 micro-batches
    room = 32 * ROUTED.routed[0].top_k * 1.25 / 8
    held = (
        1 * 8 * room * 128 * 4
    )  # one group of a micro-batch on a device: experts x rows x d_model
    assert rows["expert", "all-to-all"]["bytes"] == 16 * held / 2
    over_data = {op for axes, op in rows if "data" in axes}
    assert over_data == {"all-reduce"}
    carried = [
        line.split(" while(")[0]
        for line in texts[0].splitlines()
        if " while(" in line and "f32[4,64,128]" in line
    ]
    assert carried and not any(
        "f32[8,128,128]" in c or "f32[1040,128]" in c or "f32[128,1040]" in c for c in carried
    )


def test_state_is_spread_evenly():
    """Bytes of state per device fall as 1 / (fsdp x tensor x expert) within 5%."""
    for name, model, mesh in (
        ("dense", WIDE, "fsdp=4,tensor=2"),
        ("moe", ROUTED, "fsdp=2,tensor=2,expert=2"),
        ("moe", ROUTED, "expert=8"),
    ):
        sizes = meshes.parse(mesh)
        l = layouts.lay(
            model, AdamW(), Execution(moe_groups=meshes.rows(sizes)), meshes.make(sizes)
        )
        leaves = list(zip(jax.tree.leaves(l.state), jax.tree.leaves(l.shardings)))
        held = sum(a.dtype.itemsize * int(np.prod(s.shard_shape(a.shape))) for a, s in leaves)
        counted = account.memory(model, Execution(), 8)
        assert held / ((counted["parameters"] + counted["optimizer_state"]) / 8) == pytest.approx(
            1, abs=0.05
        ), (name, mesh)


@pytest.mark.parametrize("scan", [False, True])
def test_the_first_state_is_born_in_shards(scan, monkeypatch):
    """Shard by shard the values of one device; nothing larger than a shard is ever put on a
    device.
    """
    c = routed(seq_len=8, d_model=32, d_ff=32, positions="learned")
    l = layouts.lay(
        c,
        AdamW(),
        Execution(moe_groups=8, scan=scan),
        meshes.make(meshes.parse("data=2,fsdp=2,expert=2")),
    )
    put, most = [], max(a.size * 4 for a in jax.tree.leaves(l.state))
    real = jax.make_array_from_callback

    def note(shape, sharding, f):
        return real(shape, sharding, lambda index: put.append(f(index).nbytes) or f(index))

    monkeypatch.setattr(jax, "make_array_from_callback", note)
    state = layouts.initial(l, 5)
    want = step.create(l.lm, AdamW(), params.initial(l.boxed, 5))
    jax.tree.map(np.testing.assert_array_equal, state, want)
    assert max(put) <= most / 2
    for array, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(l.shardings)):
        assert {s.data.shape for s in array.addressable_shards} == {
            sharding.shard_shape(array.shape)
        }


HLO = """
%piece (p: f32[]) -> f32[] {
  %a = f32[4]{0} all-gather(%x), channel_id=9, replica_groups=[4,2]<=[4,2], frontend_attributes={chain_id="6"}
}

%body (p: f32[]) -> f32[] {
  %g = f32[8,16]{1,0} all-gather(%x), replica_groups=[4,2]<=[4,2], dimensions={0}
  %s = (f32[4,16]{1,0}, f32[8,16]{1,0}) all-gather-start(%x), replica_groups={{0,4},{1,5},{2,6},{3,7}}, dimensions={0}
}

ENTRY %main (p: f32[]) -> f32[] {
  %w = f32[] while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %r = (f32[2,2]{1,0}, bf16[4]{0}) all-reduce(%a, %b), replica_groups=[2,4]<=[2,2,2]T(1,0,2), to_apply=%add
  %m = f32[6]{0} reduce-scatter(%a), replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,2,2]T(0,2,1)) {'c'}, to_apply=%add
  %t = f32[10]{0} all-to-all(%a), replica_groups=mesh['a'=2,'b'=4] {'a', 'b':(2)2}, dimensions={0}
  %p = f32[3]{0} collective-permute(%a), source_target_pairs={{0,1},{1,0},{2,3},{3,2}}
  %z = f32[3]{0} all-reduce(%a), replica_groups={}, to_apply=%add
  %f = f32[3]{0} fusion(%a), kind=kCustom, calls=%piece
  %f.2 = f32[4]{0} all-gather(%x), channel_id=9, replica_groups=[4,2]<=[4,2], frontend_attributes={chain_id="6"}
}
"""  # noqa: E501


def test_collectives_are_read_by_axis():
    sizes = {"data": 2, "fsdp": 2, "tensor": 2}
    rows = {(r["axes"], r["op"]): (r["count"], r["bytes"]) for r in collectives.table(HLO, sizes)}
    assert rows == {
        ("tensor", "all-gather"): (3 + 1, 3 * 8 * 16 * 4 // 2 + 4 * 4 // 2),
        ("data", "all-gather"): (3, 3 * 8 * 16 * 4 // 2),
        ("data+tensor", "all-reduce"): (1, 2 * (16 + 8) * 3 // 4),
        ("fsdp", "reduce-scatter"): (1, 24),
        ("data+tensor", "all-to-all"): (1, 30),
        ("tensor", "collective-permute"): (1, 12),
        ("data+fsdp+tensor", "all-reduce"): (1, 21),
    }
    unknown = HLO.replace("known_trip_count", "unknown")
    with pytest.raises(ValueError, match="does not know"):
        collectives.table(unknown, sizes)
    loop = """
%c (p: s32[]) -> pred[] {
  %i = u32[]{:T(128)} get-tuple-element(%p), index=1
  %k = u32[]{:T(128)} constant(6)
  ROOT %l = pred[] compare(%i, %k), direction=LT
}
"""
    counted = unknown.replace(
        "%body (p: f32[]) -> f32[] {",
        "%body (p: f32[]) -> f32[] {\n  %two = u32[] constant(2)\n  %n = u32[] add(%i, %two)\n "
        " ROOT %o = (f32[], u32[]) tuple(%x, /*index=1*/%n)",
    )
    assert collectives.table(loop + counted, sizes) == collectives.table(HLO, sizes)


def test_accumulation_is_one_batch(tmp_path):
    """Through the loop, on a mesh, with statistics of the whole batch."""
    from tests.launch.test_launch import ALONE, BASE, MOE

    run = dataclasses.replace(BASE, model=MOE)
    results = [
        train.train(run, dataclasses.replace(ALONE, accumulate=n, mesh=m), str(tmp_path / m))
        for n, m in ((1, "data=1"), (4, "expert=2"))
    ]
    np.testing.assert_allclose(*(r["validation"]["loss"] for r in results), rtol=1e-5)
    np.testing.assert_allclose(*(r["moe"]["expert_load"] for r in results), rtol=1e-5)
    assert results[0]["id"] == results[1]["id"]


def test_bad_accumulation():
    with pytest.raises(
        ConfigError, match="accumulate = 3 times data x fsdp x expert of the mesh = 2: try batch=12"
    ):
        meshes.check(meshes.parse("data=2"), WIDE, 8, 8, 3)


CHUNKS = dict(attention_chunk=6, loss_chunk=4, loss_groups=4)


@pytest.mark.slow  # in float64; what chunks send is looked at in the fast lane
def test_chunks_agree_with_one_device():
    """The map and the logits in chunks on eight devices against both whole on one, in float64."""
    d = differs("dense", "data=2,fsdp=2,tensor=2", **CHUNKS)
    assert not bench.excess(d, "float64"), d


def test_chunks_of_the_loss_send_no_more():
    """The head's gradient is summed over chunks where it is, and sent once."""
    sizes, sent = meshes.parse("data=2,fsdp=2,tensor=2"), []
    for chunk in (2, 8):
        ex = Execution(loss_chunk=chunk, loss_groups=4)
        l = layouts.lay(bench.MODELS["dense"][0], bench.OPTIMIZER, ex, meshes.make(sizes))
        rows = collectives.table(layouts.lower_step(l, bench.BATCH).compile().as_text(), sizes)
        sent.append(sum(r["bytes"] for r in rows if r["axes"] != "tensor"))
    assert sent[0] < 1.02 * sent[1]
