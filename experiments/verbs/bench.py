"""Times a part of the product on this machine: contenders alternate in one run, CPU-seconds beside
wall time.

isoflop bench train
    our training loop against plain PyTorch, compiled (extra `bench`; two minutes on two cores)
isoflop bench train --set model.seq_len=1024 --set batch=4 --contender=isoflop \\
    --contender=torch --contender=torch_compiled
isoflop bench train --contender=isoflop --contender=isoflop_pack --contender=isoflop_pack_of_4
    a run by itself against the loop of packs, one run and four at once
isoflop bench moe
    experts against our dense model of equal active parameters and Hugging Face's Mixtral,
    compiled
isoflop bench data    batches, a seek to any step, tokenising
isoflop bench tokenizers
    ids and bytes of each token against the libraries' own batch calls (about five minutes)
isoflop bench corpora
    JSON lines, parquet and text against bare loops and plain copies
isoflop bench decode    prefill and decode; --contender=hf_llama for theirs
isoflop bench startup
    from the start of a process to the first step, cold, cached, and of a second run
isoflop bench checkpoint
    what saving in the background costs at 10M parameters (about five minutes on two cores)
OPENBLAS_NUM_THREADS=1 isoflop bench laws
    the vectorised fit against a scipy loop and the full grid of starts (ten minutes)
isoflop bench coverage --rounds=40
    intervals and verdicts of fits against made-up runs, 40 sets a design (half an hour)
isoflop bench next --rounds=100
    how often one more run lies inside its prediction interval, 100 made-up sweeps a design
isoflop bench optimizers    a step by every optimizer over AdamW's (five minutes on two cores)
isoflop bench layouts
    the same training on every layout of the devices here against one of them (a quarter of an
    hour on two cores)
isoflop bench train --scale=toy --contender=isoflop    the same in seconds, to see that it runs
"""

import json
import sys

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.verbs import common


def _measure(part, name: str, fv) -> dict:
    rounds = fv.rounds or part.rounds
    if not part.contenders:
        if fv.contender or getattr(fv, "set"):
            raise UserError(f"bench {name} takes no --contender and no --set")
        return part.measure(fv.scale, rounds)
    unknown = [c for c in fv.contender if c not in part.contenders]
    if unknown:
        raise UserError(
            f"no contender {unknown[0]!r} in bench {name}: choose from {', '.join(part.contenders)}"
        )
    return part.measure(fv.scale, rounds, list(dict.fromkeys(fv.contender)), getattr(fv, "set"))


def main(argv=None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    part = argv.pop(0) if argv and not argv[0].startswith("-") else ""
    fv = cli.flag_values("set")
    flags.DEFINE_enum(
        "scale", "full", ["full", "toy"], "toy: small shapes, seconds", flag_values=fv
    )
    flags.DEFINE_integer(
        "rounds",
        0,
        "how often the contenders alternate; 0: as often as the part thinks enough",
        lower_bound=0,
        flag_values=fv,
    )
    flags.DEFINE_multi_string(
        "contender",
        [],
        "name of one, repeatable; the first is compared with the others",
        flag_values=fv,
    )

    def body(fv) -> int:
        from experiments.benchmarks.parts import PARTS

        if part not in PARTS:
            raise UserError(
                f"name a part: {', '.join(PARTS)}" + (f" (not {part!r})" if part else "")
            )
        with common.stdout_to_stderr(fv.format == "json"):
            answer = _measure(PARTS[part], part, fv)
        print(json.dumps(answer) if fv.format == "json" else PARTS[part].text(answer))
        return 0

    return cli.run("bench", __doc__, fv, argv, body)


if __name__ == "__main__":
    sys.exit(main())
