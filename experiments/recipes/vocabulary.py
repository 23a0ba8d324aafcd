"""How large a vocabulary, at equal compute? 256 bytes to 16,384 pieces against model size, compared
in bits per byte of text, which tokenizers share.

Each tokenizer is trained on the corpus when it is first wanted (sentencepiece, unigram, byte
fallback). Larger vocabularies spend compute on the head and read more text per token (Tao et al.
2024, arXiv 2407.13623).
"""

import dataclasses

from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart

VOCABULARIES = (1024, 4096, 16384)


def recipe() -> SweepJob:
    arms = {"bytes": "dense"}
    for n in VOCABULARIES:
        arms[f"v{n}"] = f"dense; data.tokenizer=sentencepiece(vocab_size={n}); model.vocab_size={n}"
    sweep = Sweep(
        name="vocabulary",
        sizes=(16, 32, 48, 64),
        budgets=(1.6e11, 4.8e11),
        arms=tuple(arms.items()),
        match="flops",
        loss="bits_per_byte",
    )
    return dataclasses.replace(quickstart.recipe(), sweep=sweep)
