"""Models from and to text, what --set reaches, records of version 1, and the arms and ladders of a
sweep.
"""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import cli, recipes
from experiments.planning import arms, grid, ladder
from experiments.planning.grid import Sweep, SweepJob
from launch import config, overrides
from launch.config import ConfigError, Job, Run
from model import account, parts, records_version1, text
from model.config import Layer, Model, check
from model.mlps.dense import Dense
from model.mlps.moe import MoE
from model.positions import Rope
from model.registry import MIXERS, MLPS, NORMS, PARAMETRISATIONS, POSITIONS
from tests.model import shapes

VALUES = {
    bool: st.booleans(),
    parts.FLOATS: st.lists(st.floats(0, 1e30), max_size=3).map(tuple),
    int: st.integers(0, 10**12),
    float: st.floats(0, 1e30),
    str: st.from_regex(r"[a-z_]{1,9}", fullmatch=True).filter(lambda w: w not in ("true", "false")),
}


@st.composite
def a_part(draw, table):
    cls = draw(st.sampled_from(sorted(table.values(), key=str)))
    own = {}
    for name, kind in parts.kinds(cls).items():
        if draw(st.booleans()):
            own[name] = draw(
                a_part(parts.REGISTRIES[kind]) if isinstance(kind, str) else VALUES[kind]
            )
    return cls(**own)


LAYER = st.builds(Layer, a_part(MIXERS), a_part(MLPS), VALUES[str], VALUES[str])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(LAYER, min_size=1, max_size=3),
    *map(a_part, (POSITIONS, NORMS, PARAMETRISATIONS)),
    st.booleans(),
)
def test_every_model_survives_its_text(layers, positions, norm, scaled, full):
    m = Model(positions, norm, scaled, pattern=tuple(layers), first=tuple(layers[1:]))
    assert parts.model(**json.loads(json.dumps(parts.to_dict(m, full)))) == m


def test_a_model_is_short_and_its_parts_say_the_rest():
    assert len(dataclasses.fields(Model)) <= 15
    written = "attention(window=128)/dense, attention/moe(n_experts=64,top_k=8)"
    m = parts.model(written)
    assert parts.written(m.pattern) == written
    assert parts.to_dict(m, full=False) == {"pattern": written}
    assert "n_kv_heads=0" in parts.to_dict(m)["pattern"]  # a record names every field


@pytest.mark.parametrize(
    "written,words",
    [
        ("attention", "must read mixer/mlp"),
        ("attention/dense/moe", "must read mixer/mlp"),
        ("atention/dense", "did you mean 'attention'"),
        ("attention/mo", "did you mean 'moe'"),
        ("attention(windw=3)/dense", "no field 'attention.windw': did you mean window"),
        ("attention(window=3/dense", "a comma or a closing bracket expected"),
        ("attention(window=)/dense", "expected after 'attention.window='"),
        ("attention(window=1.5)/dense", "int expected, not float"),
        ("attention(window=wide)/dense", "cannot read it as int"),
        ("attention(window=1,window=2)/dense", "window twice"),
        ("attention(cap=1e999)/dense", "a finite number"),
        ("attention/dense attention/dense", "a comma or the end"),
        ("attention/dense;", "a comma or the end"),
        ("attention(positions=rop)/dense", "did you mean 'rope'"),
        ("attention/dense/layer(nrm=post)", "did you mean norm"),
    ],
)
def test_wrong_text_is_named(written, words):
    with pytest.raises(ValueError, match=words):
        parts.layers(written)


TWO = parts.model("attention(window=8)/dense, latent(kv_rank=4)/moe", n_layers=4)


@pytest.mark.parametrize(
    "key,value,pattern",
    [
        ("attention.n_heads", "2", "attention(n_heads=2,window=8)/dense, latent(kv_rank=4)/moe"),
        (
            "mixer.n_heads",
            "2",
            "attention(n_heads=2,window=8)/dense, latent(n_heads=2,kv_rank=4)/moe",
        ),
        ("pattern[0].mixer.window", "0", "attention/dense, latent(kv_rank=4)/moe"),
        ("pattern[1]", "attention/moe", "attention(window=8)/dense, attention/moe"),
        ("pattern[1].mlp", "dense", "attention(window=8)/dense, latent(kv_rank=4)/dense"),
        ("moe.top_k", "1e0", "attention(window=8)/dense, latent(kv_rank=4)/moe(top_k=1)"),
        (
            "layer.norm",
            "post",
            "attention(window=8)/dense/layer(norm=post), latent(kv_rank=4)/moe/layer(norm=post)",
        ),
        (
            "pattern[0].mixer.positions",
            "rope(theta=5)",
            "attention(window=8,positions=rope(theta=5.0))/dense, latent(kv_rank=4)/moe",
        ),
    ],
)
def test_what_a_setting_reaches(key, value, pattern):
    assert parts.written(parts.set_field(TWO, key, value).pattern) == pattern


@pytest.mark.parametrize(
    "setting,words",
    [
        ("model.n_heads=2", "did you mean model.attention.n_heads or model.latent.n_heads"),
        ("model.topk=2", "did you mean model.moe.top_k"),
        ("n_heads=2", "did you mean model.attention.n_heads"),
        ("model.atention.window=2", "did you mean model.attention"),
        ("model.attention.windows=2", "did you mean window"),
        ("model.moe.top_k=2", "this model has no moe: set model.pattern first"),
        ("model.pattern[3].mixer.window=2", "no such place"),
        ("model.pattern[1]=attention/dense", "one layer for one that is there"),
        ("model.positions=learnt", "did you mean 'learned'"),
        ("model.attention.window=2.5", "int expected, not float"),
        ("model.dense.bias=3", "bool expected"),
        ("model.attention=3", "no field 'model.attention'"),
    ],
)
def test_wrong_settings_are_named(setting, words):
    with pytest.raises(ConfigError, match=words):
        overrides.set_fields(Job(), [setting])


def test_a_run_keeps_its_id_through_its_records():
    run = Run(model=TWO, horizon=config.Horizon(steps=3))
    for kept in (config.to_dict(run), config.brief(run)):
        again = config.from_dict(Run, json.loads(json.dumps(kept)))
        assert again == run and config.run_id(again) == config.run_id(run)
    assert config.to_dict(run)["version"] == 2
    with pytest.raises(ConfigError, match="newer isoflop"):
        config.from_dict(Run, {**config.to_dict(run), "version": 3})
    with pytest.raises(ConfigError, match="another version"):
        config.from_dict(Run, {"version": 2, "model": {"pattern": "attention(width=3)/dense"}})


def test_a_record_of_version_1_is_read_in_one_place():
    flat = {"pattern": ["attention/moe"], "first_layers": ["latent/dense"], "kv_rank": 4}
    flat |= {"rope_theta": 5.0, "norm": "layernorm", "norm_eps": 0.0, "attention_cap": 2.0}
    flat |= {"post_norm": True, "n_layers": 3, "d_ff": 64, "d_model": 16, "top_k": 1, "window": 3}
    m = config.from_dict(Run, {"model": flat, "seed": 1}).model
    assert parts.to_dict(m, full=False) == {
        "positions": "rope(theta=5.0)",
        "norm": "layernorm",
        "pattern": "attention(window=3,cap=2.0)/moe(top_k=1)/layer(norm=post)",
        "first": "latent(kv_rank=4,window=3,cap=2.0)/dense/layer(norm=post)",
        "d_model": 16,
        "n_layers": 3,
    }
    assert records_version1.model().pattern == parts.layers("attention/dense")
    with pytest.raises(ConfigError, match="another version"):
        config.from_dict(Run, {"model": {"n_head": 3}})


# arms and ladders


def test_arms_of_ones_own_are_one_line():
    own = {"wide": Dense(d_ff=512), "gated": "dense(activation=swiglu)", "few": MoE(n_experts=2)}
    own["hybrid"] = "attention(window=8)/dense, attention/dense"
    s = Sweep(arms=own, sizes=(16, 32), budgets=(1e10,))
    assert s.families == tuple(own)
    runs = grid.make(SweepJob(s, Run(batch=2)), "cpu").runs
    texts = {(p.family, p.size): parts.written(p.run.model.pattern) for p in runs}
    assert texts["wide", 16] == "attention(n_heads=2)/dense(d_ff=512)"
    assert texts["few", 32] == "attention(n_heads=2)/moe(n_experts=2)"
    assert texts["hybrid", 16] == (
        "attention(n_heads=2,window=8)/dense, attention(n_heads=2)/dense"
    )
    assert config.from_dict(Sweep, json.loads(json.dumps(config.to_dict(s)))) == s


def test_an_arm_takes_from_the_base_what_it_does_not_name():
    base = parts.model("attention(qkv_bias=true)/dense(activation=swiglu,bias=true)")
    assert parts.written(arms.apply(base, "moe(top_k=1)").pattern) == (
        "attention(qkv_bias=true)/moe(top_k=1,activation=swiglu,bias=true)"
    )
    assert arms.apply(base, "latent(kv_rank=4)").pattern[0].mixer.kv_rank == 4
    # what it names holds, also where that is the default
    many = parts.model("attention(n_heads=8)/moe(n_experts=64,top_k=4)/layer(norm=post)")
    own = "attention(n_heads=4)/moe(n_experts=8)/layer(norm=pre)"
    assert parts.written(arms.apply(many, own).pattern) == "attention/moe(top_k=4)"
    assert parts.written(arms.apply(many, "moe(top_k=2)").pattern[0].mlp) == "moe(n_experts=64)"
    assert ladder.shape(many, 16, own).pattern[0].mixer.n_heads == 4  # the ladder's are two
    assert ladder.shape(many, 16, "moe_8_1").routed[0].n_experts == 8
    assert arms.set_field("moe(n_experts=8)", "moe.top_k", "2") == "moe(n_experts=8,top_k=2)"
    assert arms.set_field("moe", "mixer.window", "2") == ""
    assert arms.set_field("attention/moe, attention/dense", "mlp.bias", "true") == (
        "attention/moe(bias=true), attention/dense(bias=true)"
    )
    assert arms.apply(base, "rope(theta=9)").positions == Rope(9.0)
    with pytest.raises(ConfigError, match="did you mean 'moe'"):
        arms.apply(base, "mo")


def sweep_of(*argv):
    from experiments.verbs import common

    fv = cli.flag_values("config", "set")
    fv(["isoflop", "--config=dense_vs_moe", *(f"--set={s}" for s in argv)])
    return common.load(fv)


def test_settings_of_a_sweep_reach_its_arms():
    job = sweep_of("model.moe.n_shared=1", "model.mlp.activation=swiglu")
    assert dict(job.sweep.arms) == {"moe": "moe(n_shared=1)"}
    moe = job.sweep.shape(job.run, 16, "moe").routed[0]
    assert (moe.n_shared, moe.activation) == (1, "swiglu")
    job = sweep_of("sweep.arms.wide=dense(d_ff=99)", "sweep.families=dense,wide")
    assert job.sweep.shape(job.run, 16, "wide").layers[0].mlp.d_ff == 99
    for wrong, words in (
        ("model.attention.n_heads=4", "set sweep.shapes"),
        ("model.latent.kv_rank=4", "this model has no latent"),
        ("sweep.arms.wide=dens", "did you mean 'dense'"),
        ("sweep.arms=dense", "sweep.arms.NAME"),
        ("sweep.ladder=widht", "did you mean 'width'"),
        ("sweep.ladder=depth(d_modl=3)", "did you mean d_model"),
    ):
        with pytest.raises(ConfigError, match=words):
            grid.make(sweep_of(wrong), "cpu")


@pytest.mark.parametrize(
    "written,sizes,want",
    [
        ("both", (16, 192), [(16, 2, 2), (192, 3, 4)]),
        ("width(n_layers=3)", (16, 192), [(16, 3, 2), (192, 3, 4)]),
        ("depth(d_model=32)", (1, 5), [(32, 1, 2), (32, 5, 2)]),
        ("aspect(ratio=16)", (16, 64), [(16, 1, 2), (64, 4, 4)]),
    ],
)
def test_ladders(written, sizes, want):
    s = Sweep(sizes=sizes, budgets=(1e11,), ladder=written)
    got = [s.shape(Run(), d) for d in sizes]
    assert [(m.d_model, m.n_layers, m.layers[0].mixer.n_heads) for m in got] == want
    for m in got:
        check(m)


def test_shapes_of_ones_own(tmp_path):
    path = tmp_path / "shapes.csv"
    path.write_text("\ufeffd_model, n_layers, n_heads, d_ff\n16,1,2,\n16,3,2,40\n")
    s = sweep_of(f"sweep.shapes={path}", "sweep.budgets=1e10").sweep
    assert s.sizes == (1, 2)  # two shapes of one width: by their number
    dense, moe = (s.shape(Run(), 2, f) for f in ("dense", "moe"))
    assert (dense.n_layers, dense.layers[0].mlp.d_ff, moe.routed[0].width(moe)) == (3, 40, 20)
    assert account.parameters(dense)["active"] < account.parameters(moe)["active"]
    path.write_text("d_model,n_layers,n_heads\n16,2,2\n24,4,2\n")
    assert sweep_of(f"sweep.shapes={path}").sweep.sizes == (16, 24)
    for content, words in (
        ("d_model,n_layers\n1,2\n", "column n_heads is missing"),
        ("d_model,n_layers,n_heads\n16,2,x\n", "line 2"),
        ("d_model,n_layers,n_heads\n16,0,2\n", "at least 1"),
        ("", "is missing"),
    ):
        path.write_text(content)
        with pytest.raises(ConfigError, match=words):
            sweep_of(f"sweep.shapes={path}")
    with pytest.raises(ConfigError, match="cannot be read"):
        sweep_of("sweep.shapes=nowhere.csv")


def test_every_recipe_has_arms_that_are_models():
    for name in recipes.RECIPES:
        job = recipes.load(name)
        if isinstance(job, SweepJob):
            for family in job.sweep.families:
                check(job.sweep.shape(job.run, job.sweep.sizes[0], family))


def test_layers_that_differ_are_exported_by_no_family():
    from launch.huggingface import folder

    for name in ("windows", "some without rope", "sandwich", "parallel"):
        m = parts.model(shapes.BY_LAYER[name], d_model=16)
        with pytest.raises(ConfigError, match="no Hugging Face family"):
            folder.family_of(m)


def test_text_is_read_without_jax():
    import subprocess
    import sys

    code = (
        "import sys; from model import text; text.parse('a(b=1)/c'); sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert text.one("rope(theta=1e4)").fields == {"theta": 1e4}
