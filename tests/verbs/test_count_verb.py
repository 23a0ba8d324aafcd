"""`isoflop count` as it is typed, on the published shapes: config.json in, exact numbers out."""

import dataclasses
import json
import os
import re

import pytest

from experiments import cli
from experiments.verbs import count_elsewhere, count_text
from launch.huggingface import folder
from model import account
from model.config import Execution
from tests.conftest import ROOT


def gpt2(width, depth, heads, length=1024):
    return {
        "model_type": "gpt2",
        "vocab_size": 50257,
        "n_positions": length,
        "n_embd": width,
        "n_layer": depth,
        "n_head": heads,
    }


def llama(kind, vocab, width, depth, heads, kv, hidden, length, **more):
    names = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
    )
    known = dict(
        zip((*names, "max_position_embeddings"), (vocab, width, depth, heads, kv, hidden, length))
    )
    return {
        "model_type": kind,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        **known,
        **more,
    }


DEEPSEEK = {
    **{
        "first_k_dense_replace": 3,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
    },
    **{
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "n_group": 8,
    },
    **{
        "topk_group": 4,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    },
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "original_max_position_embeddings": 4096,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
    **{
        "rope_theta": 10000,
        "num_nextn_predict_layers": 1,
        "attention_bias": False,
        "moe_layer_freq": 1,
        "ep_size": 1,
    },
}
OLMOE = {"num_experts": 64, "num_experts_per_tok": 8, "norm_topk_prob": False, "clip_qkv": None}
QWEN = {
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
}
# config.json as it is published, its architecture's numbers; total and active parameters
PUBLISHED = {
    "GPT-2": (gpt2(768, 12, 12), 124_439_808, None),
    "GPT-2 1.5B": (gpt2(1600, 48, 25), 1_557_611_200, None),
    "GPT-3 175B": (gpt2(12288, 96, 96, 2048), 174_604_259_328, None),
    "Llama-2-7B": (llama("llama", 32000, 4096, 32, 32, 32, 11008, 4096), 6_738_415_616, None),
    "Llama-3-8B": (
        llama("llama", 128256, 4096, 32, 32, 8, 14336, 8192, rope_theta=5e5),
        8_030_261_248,
        None,
    ),
    "Mixtral-8x7B": (
        llama(
            "mixtral",
            32000,
            4096,
            32,
            32,
            8,
            14336,
            32768,
            num_local_experts=8,
            num_experts_per_tok=2,
            sliding_window=None,
        ),
        46_702_792_704,
        12_879_925_248,
    ),
    "OLMoE-1B-7B": (
        llama("olmoe", 50304, 2048, 16, 16, 16, 1024, 4096, **OLMOE),
        6_919_161_856,
        1_282_017_280,
    ),
    "Qwen3-30B-A3B": (
        llama("qwen3_moe", 151936, 2048, 48, 32, 4, 6144, 40960, **QWEN),
        30_532_122_624,
        3_353_032_704,
    ),
    "DeepSeek-V3": (
        llama("deepseek_v3", 129280, 7168, 61, 128, 128, 18432, 163840, **DEEPSEEK),
        671_026_404_352,
        37_552_282_624,
    ),
}


def write(path, name):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(PUBLISHED[name][0]))
    return f"--hf_dir={path}"


def call(capsys, *argv):
    status = cli.main(["count", *argv])
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters(name, tmp_path, capsys):
    """From config.json alone, through the model's own parts."""
    _, total, active = PUBLISHED[name]
    status, out, err = call(capsys, write(tmp_path / "hf", name), "--format=json")
    d = json.loads(out)
    p = d["parameters"]
    assert status == 0 and not err
    assert p["total"] == total == sum(p["groups"].values()) and p["active"] == (active or total)
    assert p["non_embedding"] == total - p["groups"]["token_embedding"] - p["groups"]["positions"]
    assert set(p["groups"]) == set(count_text.GROUPS)
    assert d["bytes"]["parameters"] == 4 * total and d["bytes"]["kv_cache_per_token"] > 0
    assert set(d["flops_per_token"]) == set(account.CONVENTIONS)
    assert all(
        n["training"] == pytest.approx(3 * n["forward"]) for n in d["flops_per_token"].values()
    )
    assert not d["ignored"]


def test_gpt2_flops_and_context(tmp_path, capsys):
    at = write(tmp_path / "hf", "GPT-2")
    own = json.loads(call(capsys, at, "--format=json")[1])
    assert own["flops_per_token"]["matmul"] == {"forward": 284_812_800, "training": 854_438_400}
    assert own["flops_per_token"]["matmul_causal"]["training"] == 797_870_592
    long = json.loads(call(capsys, at, "--format=json", "--context=3000")[1])
    assert long["parameters"]["total"] - own["parameters"]["total"] == (3000 - 1024) * 768
    llamas = [
        json.loads(
            call(
                capsys, write(tmp_path / "llama", "Llama-2-7B"), f"--context={t}", "--format=json"
            )[1]
        )
        for t in (64, 8192)
    ]
    assert llamas[0]["parameters"] == llamas[1]["parameters"] and llamas[1]["context"] == 8192
    assert (
        "Learned positions own 1,024 x 768 of them: a context longer by one token adds 768."
        in call(capsys, at)[1]
    )
    assert (
        "Context adds no parameters: positions are rope"
        in call(capsys, f"--hf_dir={tmp_path / 'llama'}")[1]
    )


def test_the_text_explains(tmp_path, capsys):
    mixtral = call(capsys, write(tmp_path / "mixtral", "Mixtral-8x7B"))[1]
    for words in (
        "Why 46.7B, and not 8 x 7.24B = 57.9B (by a name such as 8 x 7B: 56B)",
        "1.61B + 8 x 5.64B = 46.7B",
        "A token passes 2 of 8 experts: 1.61B + 2 x 5.64B = 12.9B active",
        "the attention map",
        "the head",
    ):
        assert words in mixtral
    seven = call(capsys, write(tmp_path / "seven", "Llama-2-7B"))[1]
    assert (
        "Weights in 2-byte numbers: 6.74B x 2 = 13.5 GB. With 90% of them zero 674M of 6.74B would"
        " be left." in seven
    )
    assert "in 2-byte numbers 524,288" in seven  # 32 layers x 2 x 4096 x 2 bytes
    assert max(map(len, (mixtral + seven).splitlines())) < 160
    quantised = {**PUBLISHED["DeepSeek-V3"][0], "quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds/config.json").write_text(json.dumps(quantised))
    passed = call(capsys, f"--hf_dir={tmp_path / 'ds'}")[1]
    assert "passed over in config.json, for no count depends on it: quantization_config={" in passed


def test_shares_are_of_the_whole(tmp_path, capsys):
    for name in ("GPT-2", "Mixtral-8x7B", "DeepSeek-V3"):
        d = json.loads(call(capsys, write(tmp_path / "hf", name), "--format=json")[1])
        assert sum(d["forward_shares"].values()) == pytest.approx(1, abs=1e-12)
    assert set(d["forward_shares"]) == set(count_text.SHARES)


def test_the_compiler_is_named(capsys):
    argv = [
        "--config=tiny_moe",
        "--set=model.d_model=16",
        "--set=model.attention.n_heads=2",
        "--compile",
    ]
    k = json.loads(call(capsys, *argv, "--format=json")[1])["compiler"]
    assert (
        k["device"] == "cpu"
        and "XLA" in k["compiler"]
        and k["step"]["temporaries"] > 0
        and k["step"]["donated"] > 0
    )
    text = call(capsys, *argv)[1]
    assert f"the compiler's own figures ({k['compiler']}, cpu), not counts of this account" in text


BAD = [
    (["--hf_dir={new}"], "holds no config.json"),
    (["--hf_dir={new}", "--config=tiny_moe"], "one of --config"),
    (["--config=tiny_moe", "--context=0"], "at least 1 token"),
    (["--config=tiny_moe", "--context=many"], "context"),
    (["--config=quickstart", "--compile"], "is a sweep"),
    (["--config=quickstart", "--set=where.moe=blocks"], "choose from auto, block"),
    (["--config=tiny_moe", "--set=where.moe=capacity"], "set model.moe.capacity_factor"),
    (["--config=tiny_moe", "--set=batch=0"], "positive multiple"),
    (["--hf_dir={hf}", "--set=model.moe.top_k=9"], "cannot choose more experts"),
    (["--hf_dir={hf}", "--set=dtype=float8"], "choose from auto, float32, bfloat16"),
]


@pytest.mark.parametrize("argv,words", BAD)
def test_bad_input(argv, words, tmp_path, capsys):
    write(tmp_path / "hf", "Mixtral-8x7B")
    status, out, err = call(
        capsys, *[a.format(new=tmp_path / "new", hf=tmp_path / "hf") for a in argv]
    )
    assert status == 2 and not out and err.count("\n") == 1 and words in err, err


# what the sources give for GPT-2 124M at T = 1024, worked out by hand: L 12, D 768, F 3072, V
# 50,257
BY_HAND = {
    "Kaplan 6N": 6 * 12 * 12 * 768**2,
    "Kaplan with context": 6 * 12 * 12 * 768**2 + 6 * 12 * 1024 * 768,
    "Hoffmann": 3 * (4 * 768 * 50257 + 12 * (24 * 768**2 + 4 * 1024 * 768 + 3 * 12 * 1024)),
    "PaLM MFU": 6 * 124_439_808 + 12 * 12 * 768 * 1024,
    "nanoGPT": 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024,
    "MaxText": 6 * (12 * 12 * 768**2 + 768 * 50257) + 6 * 12 * 768 * 1024,
    "torchtitan": 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024,
    "Levanter": 3 * (12 * (24 * 768**2 + 4 * 1024 * 768 + 3 * 1024 * 12) + 2 * 768 * 50257),
}


def test_elsewhere_by_hand(tmp_path):
    write(tmp_path / "hf", "GPT-2")
    c = folder.read_config(str(tmp_path / "hf"), counting=True)[1]
    assert {name: f["training"] for name, f in count_elsewhere.compare(c).items()} == BY_HAND


def test_the_documented_tables_are_computed(tmp_path):
    """Every figure of the two tables of docs/counting.md, from the product."""
    with open(os.path.join(ROOT, "docs", "counting.md")) as f:
        document = f.read()
    models = {}
    for name in PUBLISHED:
        write(tmp_path / "hf", name)
        models[name] = folder.read_config(str(tmp_path / "hf"), counting=True)[1]
        p = account.parameters(models[name])
        n = account.flops_per_token(models[name])
        row = (
            f"| {name} | {p['total']:,} | {p['active']:,} | {p['non_embedding']:,} |"
            f" {models[name].seq_len:,} | {n['matmul']:,} | {n['matmul_causal']:,} |"
        )
        assert row in document, row
    for name in count_elsewhere.ELSEWHERE:
        cells = []
        for model, length in (("GPT-2", 1024), ("Llama-3-8B", 8192), ("Mixtral-8x7B", 4096)):
            found = count_elsewhere.compare(dataclasses.replace(models[model], seq_len=length))[
                name
            ]
            cells.append(f"{found['training']:,.0f} ({found['ratio']:.3f})")
        row = f"| {name} | {' | '.join(cells)} |"
        assert re.search(re.escape(row), document), row
    assert account.memory(models["GPT-2"], Execution(), 1)["kv_cache_per_token"] == 12 * 2 * 768 * 4
