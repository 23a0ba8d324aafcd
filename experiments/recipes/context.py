"""How much does a longer context buy? Attention, a window, Mamba-2 and an LSTM at 128 to 2,048
tokens, on as many tokens of one text, with as many in every batch.

Each arm is compared with itself at 128 tokens. Validation covers as many tokens at every length
(Kaplan et al. 2020, arXiv 2001.08361, fig. 7: LSTMs stop gaining where attention goes on).
"""

import dataclasses

from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart

MIXERS = {
    "attention": "attention",
    "window": "attention(window=64)",
    "mamba2": "mamba2",
    "lstm": "lstm",
}
CONTEXTS = (128, 256, 512, 1024, 2048)
BATCH = CONTEXTS[-1]  # tokens of a batch
VALIDATED = 65_536  # tokens


def recipe() -> SweepJob:
    arms = {}
    for name, mixer in MIXERS.items():
        for t in CONTEXTS:
            arms[f"{name}_{t}"] = (
                f"{mixer}/dense; model.seq_len={t}; batch={BATCH // t};"
                f" data.validation_windows={VALIDATED // t}"
            )
    sweep = Sweep(
        name="context",
        sizes=(32,),
        budgets=(),
        tokens=(400_000,),
        arms=tuple(arms.items()),
        seeds=(0, 1, 2),
    )
    job = quickstart.recipe()
    run = dataclasses.replace(
        job.run,
        batch=BATCH // CONTEXTS[0],
        model=dataclasses.replace(job.run.model, seq_len=CONTEXTS[0]),
    )
    return dataclasses.replace(job, sweep=sweep, run=run)
