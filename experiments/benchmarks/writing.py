"""Generation: prefill and decode of a Llama-shaped model, greedy, with a cache; transformers' own
loop on the same weights beside it.
"""

import os
import statistics
import sys
import tempfile

import numpy as np

from experiments.benchmarks import contest, training
from launch import config

CONTENDERS = {"isoflop_llama": None, "hf_llama": ("--kind=hf",)}
PROMPT = {"full": (8, 128, 64), "toy": (2, 8, 4)}  # sequences, tokens of a prompt, tokens after it


def _command(name: str, scale: str, settings: list[str], place: str) -> tuple[list[str], dict]:
    argv, more = training.command(name, scale, settings, place, PROMPT[scale][2])
    rows, given, count = PROMPT[scale]
    prompts = os.path.join(place, "prompts.npy")
    np.save(prompts, np.random.default_rng(0).integers(0, 256, (1, rows, given)).astype(np.int32))
    if CONTENDERS[name] is None:
        return [
            "-m",
            "experiments.benchmarks.writing",
            os.path.dirname(argv[-1]),
            prompts,
            str(count),
        ], more
    return [
        argv[0],
        *CONTENDERS[name],
        f"--weights={os.path.join(place, name, 'weights')}",
        f"--batches={prompts}",
        f"--steps={count}",
        "--decode",
    ], {}


def measure(part: str, scale: str, rounds: int, names: list[str], settings: list[str]) -> dict:
    """tokens_per_s of a contender are those of decoding; `prefill_tokens_per_s` stand beside
    them.
    """
    names = names or ["isoflop_llama"]
    c = training.job(names[0], scale, settings).run.model
    contest.need_torch([n for n in names if CONTENDERS[n]])
    rows, given, count = PROMPT[scale]
    with tempfile.TemporaryDirectory() as place:
        found = contest.run({n: _command(n, scale, settings, place) for n in names}, rounds)
    prefill = ", ".join(
        f"{n} {statistics.median(f['prefill']):,.0f} tokens/s" for n, f in found.items()
    )
    return {
        "part": part,
        "what": (
            f"decode: {rows} prompts of {given} tokens, {count} tokens after each; d_model"
            f" {c.d_model}, {c.n_layers} layers, vocabulary {c.vocab_size}"
        ),
        "machine": contest.machine(),
        "rounds": rounds,
        "contenders": found,
        "ratios": contest.ratios(found),
        "notes": [f"  prefill: {prefill}"],
    }


def main() -> int:
    """Our contender: FOLDER of spec.json and weights, FILE of prompts, COUNT."""
    import json
    import resource

    from launch.config import Run
    from launch.huggingface import folder
    from launch.runs import generate
    from model.sample import Sampling

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    place, prompts, count = sys.argv[1:]
    with open(os.path.join(place, "spec.json")) as f:
        run = config.from_dict(Run, json.load(f)["run"])
    _, held = folder.load(os.path.join(place, "weights"), run.model)
    tokens = list(np.load(prompts, allow_pickle=False)[0])
    session = generate.Session(run, held, tokens, int(count), Sampling(0.0))
    session.generate()
    answers.write(json.dumps({"ready": True}) + "\n")
    for _ in sys.stdin:
        out = session.generate()
        figures = {
            "tokens": out.tokens.size,
            "wall_s": out.decode_s,
            "cpu_s": out.cpu_s,
            "prefill_tokens_per_s": out.prompt_tokens / out.prefill_s,
        }
        answers.write(
            json.dumps(
                {**figures, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
            )
            + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
