"""Writes a trained run as the Hugging Face family that computes the same function, tokenizer
included.

isoflop export --run=runs/llama --hf_dir=out

In Python: transformers.AutoModelForCausalLM.from_pretrained("out"), AutoTokenizer likewise.

If no family does, the fields that stand in the way are named, by the nearest family.
"""

import sys

from absl import flags

from experiments import cli
from experiments.cli import UserError


def _body(fv) -> int:
    if not fv.run or not fv.hf_dir:
        raise UserError(
            f"--{'hf_dir' if fv.run else 'run'} is missing: isoflop export --run=RUN_DIR"
            " --hf_dir=OUT"
        )
    from launch.huggingface import folder, tokenizer
    from launch.runs import generate

    saved = generate.load(fv.run, lambda text: print(f"isoflop: {text}", file=sys.stderr))
    written = None if saved.run.data.source == "synthetic" else generate.tokenizer(saved.run)
    if written:
        tokenizer.made(saved.run.data)  # what cannot be written is said before anything is
    ends = {
        "bos_token_id": None,
        "eos_token_id": int(written.separator) if written else None,
        "pad_token_id": None,
    }
    family = folder.save(fv.hf_dir, saved.run.model, saved.variables, ends)
    if written:
        tokenizer.save(fv.hf_dir, saved.run.data, written.separator)
    print(
        f"{fv.hf_dir}: {family}, step {saved.step}"
        + ("" if written else "; no tokenizer: the synthetic source is no text")
    )
    return 0


def main(argv=None) -> int:
    fv = cli.flag_values()
    flags.DEFINE_string("run", "", "folder of a trained run", flag_values=fv)
    flags.DEFINE_string("hf_dir", "", "folder to write", flag_values=fv)
    return cli.run("export", __doc__, fv, sys.argv[1:] if argv is None else argv, _body)


if __name__ == "__main__":
    sys.exit(main())
