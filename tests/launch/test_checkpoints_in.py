"""Checkpoints as they are released: in several files, in 16 bits, of sizes that leave no room for a
second copy; and files that lie about themselves.
"""

import json
import os
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.config import Data
from experiments.verbs import train
from launch import config
from launch.config import ConfigError
from launch.huggingface import folder, tensor_files
from model import parts
from tests.model.test_model import variables

MODEL = parts.model(
    "attention(n_heads=2,n_kv_heads=1)/dense(d_ff=24,activation=swiglu)",
    vocab_size=40,
    seq_len=24,
    d_model=16,
    n_layers=2,
)


def split(hf_dir, dtype, count: int):
    """The one file of a folder as `count` files with an index, their numbers in `dtype`."""
    from safetensors.flax import load_file, save_file

    one = os.path.join(hf_dir, "model.safetensors")
    tensors = {name: jnp.asarray(a, dtype) for name, a in load_file(one).items()}
    os.remove(one)
    names, where = sorted(tensors), {}
    for i in range(count):
        own = f"model-{i + 1:05}-of-{count:05}.safetensors"
        save_file({n: tensors[n] for n in names[i::count]}, os.path.join(hf_dir, own))
        where |= {n: own for n in names[i::count]}
    with open(os.path.join(hf_dir, tensor_files.INDEX), "w") as f:
        json.dump({"metadata": {}, "weight_map": where}, f)


@pytest.fixture
def hf_dir(tmp_path):
    folder.save(str(tmp_path / "hf"), MODEL, variables(MODEL))
    return str(tmp_path / "hf")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_several_files_of_any_dtype(dtype, hf_dir):
    """Files that the index does not name are not read."""
    split(hf_dir, dtype, 3)
    with open(os.path.join(hf_dir, "consolidated.safetensors"), "wb") as f:
        f.write(b"another form of the same")
    _, held = folder.load(hf_dir)
    want = jax.tree.map(lambda a: np.asarray(jnp.asarray(a, dtype), np.float32), variables(MODEL))
    jax.tree.map(np.testing.assert_array_equal, held, want)
    assert all(a.dtype == np.float32 for a in jax.tree.leaves(held))


@pytest.mark.parametrize("damage", ["missing", "outside", "no map"])
def test_an_index_that_is_wrong_is_named(damage, hf_dir):
    split(hf_dir, "float32", 2)
    path = os.path.join(hf_dir, tensor_files.INDEX)
    if damage == "missing":
        os.remove(os.path.join(hf_dir, "model-00002-of-00002.safetensors"))
    else:
        held = {"weight_map": {"a": "../x.safetensors"}} if damage == "outside" else []
        with open(path, "w") as f:
            json.dump(held, f)
    words = "not a readable index" if damage == "no map" else "which does not lie beside it"
    with pytest.raises(ConfigError, match=words):
        folder.load(hf_dir)


def written(path, held, length=None, numbers=b"\0" * 64):
    """A file with the header `held`, which claims `length` bytes."""
    text = held if isinstance(held, bytes) else json.dumps(held).encode()
    length = len(text) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + text + numbers)
    return str(path)


def tensor(**changes):
    return {"a": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64], **changes}}


@pytest.mark.parametrize(
    "held,length,words",
    [
        (tensor(), 2**63, "claims 9,223,372,036,854,775,808 bytes"),
        (tensor(), 10_000, "claims 10,000 bytes"),
        (b"[]", None, "no JSON object"),
        (b"[" * 50_000, None, "not a readable safetensors"),
        (
            tensor(shape=[2**40, 2**40]),
            None,
            r"shape \[1099511627776, 1099511627776\] of F32 is not",
        ),
        (tensor(shape=[-4, -4]), None, "are no sizes"),
        (tensor(shape=[4.0, 4]), None, "are no sizes"),
        (tensor(data_offsets=[0, 2**50]), None, "lies in bytes 0 to 1,125,899,906,842,624"),
        (tensor(data_offsets=[64, 0]), None, "lies in bytes 64 to 0"),
        (tensor(data_offsets=[0]), None, "not a readable safetensors"),
        (tensor(dtype=None), None, "are no sizes"),
        ({"a": 3}, None, "not a readable safetensors"),
    ],
)
def test_a_header_is_held_against_the_file(held, length, words, tmp_path):
    with pytest.raises(ConfigError, match=words) as e:
        tensor_files.header(written(tmp_path / "x.safetensors", held, length))
    assert "\n" not in str(e.value)


def test_other_dtypes_are_named(tmp_path):
    path = written(tmp_path / "x.safetensors", tensor(dtype="F8_E4M3", shape=[64]))
    with pytest.raises(ConfigError, match="dtype F8_E4M3 is not read, only F64, F32, F16, BF16"):
        tensor_files.header(path)["a"].check()


def test_text_is_read_by_the_folders_tokenizer(tmp_path):
    """Unless another is named, or bytes are what the model reads."""
    job = config.Job(run=config.Run(model=MODEL))
    assert train.own_tokenizer(job, str(tmp_path), []) == job  # none is there
    for name, kind in (("tokenizer.model", "sentencepiece"), ("tokenizer.json", "hf")):
        (tmp_path / name).write_text("")
        got = train.own_tokenizer(job, str(tmp_path), ["data.source=text"]).run.data
        assert (got.tokenizer, got.tokenizer_path) == (kind, str(tmp_path / name))
    bytes_fit = config.Job(run=config.Run(model=parts.set_field(MODEL, "vocab_size", "256")))
    made = config.Job(run=config.Run(model=MODEL, data=Data(source="synthetic")))
    for own, settings in ((bytes_fit, []), (made, []), (job, ["data.tokenizer=bytes"])):
        assert train.own_tokenizer(own, str(tmp_path), settings) == own


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reading_takes_one_tensor_more_than_the_model(dtype, tmp_path):
    c = parts.model(
        "attention(n_heads=4)/dense(d_ff=512,activation=swiglu)",
        vocab_size=2048,
        d_model=256,
        n_layers=6,
    )
    held = jax.tree.map(np.asarray, variables(c))
    size = sum(a.nbytes for a in jax.tree.leaves(held))
    largest = max(a.nbytes for a in jax.tree.leaves(held))
    folder.save(str(tmp_path / "hf"), c, held)
    split(str(tmp_path / "hf"), dtype, 2)
    del held
    folder.load(str(tmp_path / "hf"))  # what is traced is traced once
    tracemalloc.start()
    _, read = folder.load(str(tmp_path / "hf"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(a.nbytes for a in jax.tree.leaves(read)) == size
    print(f"{dtype}: peak {peak / size:.3f} of the model, its largest tensor {largest / size:.3f}")
    assert size < peak < size + 1.1 * largest + 2**20
