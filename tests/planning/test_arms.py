"""Arms that have a name, and what an arm may set besides its part."""

import dataclasses
import json
import re

import numpy as np
import pytest

from experiments import cli
from experiments.planning import arms, grid, ladder
from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart
from experiments.verbs import plan
from launch.config import ConfigError
from launch.runs import generate
from model import account, parts
from model.config import Execution, check
from model.mixers.attention import Attention
from model.mixers.gated_delta import GatedDelta
from model.mixers.mamba2 import Mamba2
from model.sample import Sampling
from tests.launch.test_launch import BASE
from tests.model.test_model import forward, variables

HYBRIDS = {  # layers by mixer, and how many have experts: of the papers
    "jamba": ({"mamba": 7, "attention": 1}, 4),
    "samba": ({"mamba": 1, "attention": 1}, 0),
    "griffin": ({"rg_lru": 2, "attention": 1}, 0),
    "qwen3_next": ({"gated_delta": 3, "attention": 1}, 4),
}


@pytest.mark.parametrize("name", HYBRIDS)
@pytest.mark.parametrize("size", (16, 48))
def test_a_hybrid_has_its_papers_layers_at_the_ladders_sizes(name, size):
    base = parts.model(seq_len=96)
    m = ladder.shape(base, size, name)
    check(m)
    mixers, experts = HYBRIDS[name]
    count = dict.fromkeys(mixers, 0)
    for layer in m.pattern:
        count[parts.NAMES[type(layer.mixer)]] += 1
    assert count == mixers and sum(bool(x.mlp.n_experts) for x in m.pattern) == experts
    assert m.d_model == size and m.n_layers % len(m.pattern) == 0
    assert 0 <= m.n_layers - ladder.layers(size) < len(m.pattern)  # rounded up, and no further
    local = [x.mixer.window for x in m.pattern if getattr(x.mixer, "window", 0)]
    assert local == ([48] if name in ("samba", "griffin") else [])
    assert account.state(m).per_sequence > 0


def planned(**fields) -> list:
    sweep = Sweep(sizes=(16, 24), budgets=(1e10, 2e10), **fields)
    return grid.make(dataclasses.replace(quickstart.recipe(), sweep=sweep), "cpu").runs


def test_parts_and_layers_are_arms_by_their_own_names():
    runs = planned(families=("mamba2", "dense", "lstm/moe", "griffin"))
    assert {p.family for p in runs} == {"mamba2", "dense", "lstm/moe", "griffin"}
    assert {p.reference for p in runs} == {"mamba2"}  # the first
    assert {p.reference for p in planned(families=("samba", "dense"))} == {"samba"}
    lstm = next(p.run.model for p in runs if p.family == "lstm/moe")
    assert parts.written(lstm.pattern) == "lstm/moe"
    with pytest.raises(ConfigError, match="unknown family 'mamba3'"):
        planned(families=("dense", "mamba3"))


def test_a_part_takes_what_was_set_and_no_default_of_another_kind():
    """Attention's gate is off by default, a delta rule's on: they share nothing but the name."""
    base = ladder.resized(parts.model(), ladder.BOTH.shape(16))
    assert {"gate"} <= set(parts.kinds(Attention)) & set(parts.kinds(GatedDelta))
    assert arms.apply(base, "gated_delta").pattern[0].mixer == GatedDelta(n_heads=2)
    assert arms.apply(base, "mamba2/moe").pattern[0].mixer == Mamba2(n_heads=2)
    gated = parts.model("attention(window=8)/dense(activation=swiglu,d_ff=24)")
    mlp = arms.apply(gated, "sparse/moe").pattern[0].mlp
    assert (mlp.activation, mlp.d_ff) == ("swiglu", 24)


def test_a_bracket_stands_beside_the_grid():
    cell = {"replicate_size": 16, "replicate_budget": 2e10}
    runs = planned(families=("dense", "lstm"), bracket=(0.5, 2.0), **cell)
    extra = [p for p in runs if p.role == "bracket"]
    assert len(runs) == 2 * 4 + 2 * 2
    assert {(p.family, p.lr_multiplier) for p in extra} == {
        (f, m) for f in ("dense", "lstm") for m in (0.5, 2.0)
    }
    assert {(p.size, p.budget, p.run.seed) for p in extra} == {(16, 2e10, 0)}
    with pytest.raises(ConfigError, match="together"):
        planned(bracket=(0.5,))
    with pytest.raises(ConfigError, match="sweep.bracket must be positive"):
        planned(bracket=(0.0,), **cell)


def test_an_arm_has_a_rate_a_batch_and_a_context_of_its_own():
    long = "lstm; model.seq_len=256; batch=1; lr_multiplier=0.5"
    runs = planned(arms={"dense": "dense", "long": long})
    for p in runs:
        rate = ladder.learning_rate(p.size, "dense")
        assert p.run.optimizer.lr == rate * (0.5 if p.family == "long" else 1.0)
    for a, b in zip(runs[::2], runs[1::2]):
        assert (b.run.batch, b.run.model.seq_len) == (1, 256) and a.tokens == b.tokens
    twice = planned(arms={"dense": "dense", "wide": "dense; batch=4"})
    for a, b in zip(twice[::2], twice[1::2]):  # as many tokens in half as many steps
        assert abs(a.tokens - b.tokens) <= 4 * 128
    with pytest.raises(ConfigError, match="cannot read it as float"):
        planned(arms={"a": "dense; lr_multiplier=fast"})


def test_every_name_is_a_model():
    for name in arms.ARMS:
        check(ladder.shape(SweepJob().run.model, 32, name))


def test_a_plan_says_where_depths_differ(capsys):
    small = ["--set=sweep.sizes=16", "--set=sweep.replicate_seeds=", "--set=sweep.replicate_size=0"]
    small += ["--set=sweep.replicate_budget=0"]
    argv = ["plan", "--config=quickstart", "--set=sweep.families=dense,jamba", *small]
    assert cli.main([*argv, "--format=json"]) == 0
    (note,) = (n for n in json.loads(capsys.readouterr().out)["notes"] if "depths differ" in n)
    assert "dense 2, jamba 8 layers" in note and "width(n_layers=8)" in note
    assert cli.main([*argv, "--set=sweep.ladder=width(n_layers=8)", "--format=json"]) == 0
    assert not any("depths" in n for n in json.loads(capsys.readouterr().out)["notes"])


def test_the_help_of_a_plan_names_every_arm():
    words = set(re.findall(r"[\w/]+", plan.__doc__))
    assert set(arms.ARMS) <= words and "mamba2/moe" in words


@pytest.mark.parametrize("name", HYBRIDS)
def test_count_says_what_a_decoder_of_a_hybrid_keeps(name, capsys):
    settings = [f"--set=sweep.families={name}", "--set=sweep.sizes=16", "--set=sweep.budgets=1e11"]
    assert cli.main(["count", "--config=dense_vs_moe", *settings]) == 0
    text = capsys.readouterr().out
    m = ladder.shape(quickstart.recipe().run.model, 16, name)
    kept = account.memory(m, Execution(), 2)
    state, cache = kept["state_per_sequence"], kept["kv_cache_per_token"]
    assert re.search(rf"state.*sequence.* {state:,}\b", text), text
    assert cache > 0 and re.search(rf"cache.*token.* {cache:,}\b", text), text


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n == "jamba" else ()) for n in HYBRIDS]
)
def test_a_hybrid_goes_on_from_prompts_of_unequal_length(name):
    """As `isoflop sample` does: what follows a prompt beside a longer one is what follows it
    alone, and what whole passes choose.
    """
    m = ladder.shape(parts.model(seq_len=24, vocab_size=32), 8, name)
    held = variables(m)
    run = dataclasses.replace(BASE, model=m, dtype="float32")
    prompts = [np.array([3, 1, 4, 1, 5, 9, 2], np.int32), np.array([2, 7], np.int32)]
    out = generate.generate(run, held, prompts, 5, Sampling(0.0)).tokens
    for prompt, row in zip(prompts, out):
        text = np.concatenate([prompt, row])
        logits = forward(m, Execution(), held, np.pad(text, (0, 24 - len(text)))[None])[0]
        assert row.tolist() == logits[len(prompt) - 1 : len(text) - 1].argmax(-1).tolist()
