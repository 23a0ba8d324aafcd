"""Text from a trained run: prefill, then one token at a time from a cache.

isoflop sample --run=runs/dense --prompt="def "
isoflop sample --run=runs/dense --prompt="import os" --prompt="class " --temperature=0 \\
    --tokens=200
"""

import json
import sys

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.verbs import common


def _prompts(fv, tokenizer, vocab_size: int):
    import numpy as np

    out = []
    for text in fv.prompt or [""]:
        ids = np.asarray(tokenizer.encode(text.encode()), np.int32)
        out.append(
            ids if ids.size else np.array([tokenizer.separator], np.int32)
        )  # a document's beginning
        if out[-1].max() >= vocab_size:
            raise UserError(
                f"--prompt={text!r} has token {out[-1].max()}: the vocabulary is 0 .."
                f" {vocab_size - 1}"
            )
    return out


def _text(tokenizer, ids) -> str:
    """The text up to the end of the document."""
    ends = [i for i, t in enumerate(ids) if t == tokenizer.separator]
    return tokenizer.decode(ids[: ends[0]] if ends else ids).decode("utf-8", "replace")


def _body(fv) -> int:
    if not fv.run:
        raise UserError("--run is missing: name the folder of a trained run")
    if not (0 <= fv.temperature < 1e6 and fv.top_k >= 0 and 0 < fv.top_p <= 1):
        raise UserError("--temperature and --top_k cannot be negative, --top_p must lie in (0, 1]")
    from launch.runs import generate
    from model.sample import Sampling

    with common.stdout_to_stderr(True):
        saved = generate.load(fv.run, lambda text: print(f"isoflop: {text}", file=sys.stderr))
        tokenizer = generate.tokenizer(saved.run)
        prompts = _prompts(fv, tokenizer, saved.run.model.vocab_size)
        how = Sampling(fv.temperature, fv.top_k, fv.top_p)
        g = generate.generate(saved.run, saved.variables, prompts, fv.tokens, how, fv.seed)
    texts = [_text(tokenizer, row) for row in g.tokens]
    rates = {
        "prefill_tokens_per_s": g.prompt_tokens / g.prefill_s,
        "decode_tokens_per_s": g.tokens.size / g.decode_s,
    }
    if fv.format == "json":
        rows = [
            {"prompt": p, "text": t, "tokens": ids.tolist()}
            for p, t, ids in zip(fv.prompt or [""], texts, g.tokens)
        ]
        print(json.dumps({"step": saved.step, "samples": rows, **rates, "compile_s": g.compile_s}))
        return 0
    print("\n\n".join(p + t for p, t in zip(fv.prompt or [""], texts)))
    print(
        f"step {saved.step}; prefill {rates['prefill_tokens_per_s']:,.0f} tokens/s"
        f" ({g.prompt_tokens} tokens), decode {rates['decode_tokens_per_s']:,.0f} tokens/s"
        f" ({g.tokens.size} tokens), {g.compile_s:.1f} s to compile",
        file=sys.stderr,
    )
    return 0


def main(argv=None) -> int:
    fv = cli.flag_values()
    flags.DEFINE_string("run", "", "folder of a trained run", flag_values=fv)
    flags.DEFINE_multi_string(
        "prompt",
        [],
        "text to go on from; repeatable; default: the beginning of a document",
        flag_values=fv,
    )
    flags.DEFINE_integer("tokens", 200, "how many tokens to add", lower_bound=1, flag_values=fv)
    flags.DEFINE_float("temperature", 0.8, "0: the most probable token each time", flag_values=fv)
    flags.DEFINE_integer(
        "top_k", 0, "draw among so many most probable tokens; 0: all", flag_values=fv
    )
    flags.DEFINE_float(
        "top_p",
        1.0,
        "draw among the most probable tokens that hold this probability",
        flag_values=fv,
    )
    flags.DEFINE_integer(
        "seed", 0, "of the draws", lower_bound=0, upper_bound=2**31 - 1, flag_values=fv
    )
    return cli.run("sample", __doc__, fv, sys.argv[1:] if argv is None else argv, _body)


if __name__ == "__main__":
    sys.exit(main())
