"""Logits of a model in Hugging Face's format, for checking it against another program.

isoflop logits --hf_dir=DIR --tokens=tokens.npy --out=logits.npy

DIR holds config.json and model.safetensors (gpt2, opt, xglm, bloom, llama, mistral, qwen3, mixtral,
olmoe, qwen3_moe, deepseek_v3). tokens.npy: integers (batch, time). logits.npy: float32 (batch,
time, vocabulary), computed in float32.
"""

import sys

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.verbs import common


def read_tokens(path: str):
    """An integer array (batch, time) from a .npy file; never unpickles."""
    import numpy as np

    if not path:
        raise UserError("--tokens is missing: name a .npy file of integers (batch, time)")
    try:
        tokens = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise UserError(f"--tokens={path} is not a readable .npy file ({e})") from None
    if (
        not isinstance(tokens, np.ndarray)
        or tokens.ndim != 2
        or tokens.dtype.kind not in "iu"
        or not tokens.size
    ):
        shape = (
            f"{tokens.dtype} {list(tokens.shape)}"
            if isinstance(tokens, np.ndarray)
            else type(tokens).__name__
        )
        raise UserError(
            f"--tokens={path} holds {shape}: integers of shape (batch, time) are needed"
        )
    return tokens


def _body(fv) -> int:
    import numpy as np

    from launch.devices import environment_check
    from launch.huggingface import folder
    from model.config import Execution
    from model.lm import LM

    if not fv.hf_dir or not fv.out:
        raise UserError(
            f"--{'out' if fv.hf_dir else 'hf_dir'} is missing: isoflop logits --hf_dir=DIR"
            " --tokens=tokens.npy --out=logits.npy"
        )
    environment_check.check()
    tokens = read_tokens(fv.tokens)
    common.check_out(fv.out)
    _, c, _ = folder.read_config(fv.hf_dir)
    if tokens.min() < 0 or tokens.max() >= c.vocab_size:
        raise UserError(
            f"--tokens={fv.tokens} holds id {tokens.min() if tokens.min() < 0 else tokens.max()}:"
            f" the vocabulary is 0 .. {c.vocab_size - 1}"
        )
    if c.positions.bounded and tokens.shape[1] > c.seq_len:
        raise UserError(
            f"--tokens={fv.tokens} is {tokens.shape[1]} long: the model has {c.seq_len} learned"
            " positions"
        )
    c, variables = folder.load(fv.hf_dir, c)
    import jax

    logits = jax.jit(lambda v, t: LM(c, Execution()).apply(v, t)[0])(
        variables, tokens.astype(np.int32)
    )
    with open(fv.out, "wb") as f:
        np.save(f, np.asarray(logits, np.float32))
    print(f"{fv.out}: float32 {list(logits.shape)}")
    return 0


def main(argv=None) -> int:
    fv = cli.flag_values()
    flags.DEFINE_string(
        "hf_dir", "", "folder with config.json and model.safetensors", flag_values=fv
    )
    flags.DEFINE_string("tokens", "", ".npy file of integers (batch, time)", flag_values=fv)
    flags.DEFINE_string("out", "", ".npy file to write", flag_values=fv)
    return cli.run("logits", __doc__, fv, sys.argv[1:] if argv is None else argv, _body)


if __name__ == "__main__":
    sys.exit(main())
