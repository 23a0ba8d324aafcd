"""Tokens a second of a model with each mixer, over attention's, on a card (gpu.py)."""

import sys

from experiments.benchmarks import steps
from experiments.benchmarks.mixers import MADE
from model import account, parts
from model.registry import MIXERS

# d_model 768, 12 layers, as the dense model of 124M parameters; tokens of a batch are the same
CONTEXTS = {1024: 32, 8192: 4}
FIRST = ("attention", "mamba2", "gated_delta", "gla", "retnet", "rwkv7", "mamba", "lstm")
AT_A_TIME = 4  # programs that are compiled beside each other, before any of them is timed


def cases(context: int, batch: int, dtype: str, toy: bool) -> dict[str, steps.Case]:
    """A model for each mixer, the ones that are asked about first; layers are scanned, so that
    compiling takes a layer's time.
    """
    size = {"d_model": 32, "n_layers": 2, "vocab_size": 64} if toy else {"d_model": 768}
    size = {"n_layers": 12, "vocab_size": 50_304, **size}
    out = {}
    for name in dict.fromkeys((*FIRST, *MIXERS)):
        c = parts.model(f"{MADE.get(name, name)}/dense", seq_len=context, tied=True, **size)
        ex = steps.by_auto(c, batch, dtype, scan=True)
        out[name] = steps.Case(c, ex, batch)
    return out


def part(toy: bool, say) -> dict:
    """Rows of tokens/s, parameters and the ratio to attention's; what the time did not reach is
    left out.
    """
    contexts = {16: 2} if toy else CONTEXTS
    for context, batch in contexts.items():
        made, own = cases(context, batch, "float32" if toy else "bfloat16", toy), None
        names = [n for n in made if not toy or n in FIRST[:3]]
        for i in range(0, len(names), AT_A_TIME):
            if say.late():
                print("isoflop: no time for more mixers", file=sys.stderr)
                break
            some = {n: made[n] for n in names[i : i + AT_A_TIME]}
            for name, row in steps.found(steps.times(some, say)).items():
                rate = row["tokens_per_s"] if isinstance(row, dict) else None
                own = rate if name == "attention" else own
                about = {"parameters": account.parameters(made[name].c)["total"], "found": row}
                ratio = rate / own if rate and own else None
                say({"mixers": name, "context": context, "over_attention": ratio, **about})
    return {}
