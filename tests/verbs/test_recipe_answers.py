"""What the summary of every sweep among the recipes says first, from made-up records."""

import pytest

from experiments.laws import sweep_analysis
from experiments.report import answer_text
from launch.runs import record
from tests.verbs.made_up_sweeps import results_of
from tests.verbs.test_recipe_reports import SWEEPS, few

# the words in which a recipe's own question is answered, and what must come first
ANSWERS = {
    "quickstart": ("N_opt ~ C^", "MoE - dense", "best of each"),
    "isoflop": ("N_opt ~ C^", "D_opt ~ C^", "beta: E 1."),
    "dense_vs_moe": ("lower beyond the noise in 16 of 16 cells", "equal active parameters (x1."),
    "predict": ("lower beyond the noise in 16 of 16 cells", "best of each at 2.94e+11"),
    "kaplan_to_chinchilla": ("minus short's at equal FLOPs", "long: best rate x1 in 16 of 16"),
    "repeats": ("passes_16: loss", "from once", "FLOPs x1.000"),
    "mixtures": ("english_most: loss", "from even", "FLOPs x1.000"),
    "vocabulary": ("v4096: loss", "from bytes", "matmul FLOPs x1.0", "tokens x0.3"),
    "positions": ("rope: loss -0.0", "from sinusoidal", "active x1.10"),
    "granularity": ("64 experts, top-8: loss -0.06", "from 8 experts, top-1", "FLOPs x1.0"),
    "transfer": ("mup: best rate 0.01, 0.01, 0.01, 0.01", "moves by x1", "moves by x8"),
    "batch": ("critical batch: ", "d_model 16, 200k tokens: 2.", "20% more tokens"),
    "trunks": ("beyond the noise in", "d_model 32, 760k tokens"),
    "learning_rate": ("best rate x1 in 3 of 3", "ladder's rule"),
    "optimizers": ("muon: loss", "from adamw", "best rate x1 in 3 of 3", "FLOPs x1.000"),
    "known_entropy": ("above the source", "falls as D^-"),
    "known_truth": ("the source's entropy",),
    # made-up minima lie outside these sizes: tests/laws/test_architectures.py has others
    "architectures": ("attention_moe: loss", "from attention;", "best rate x1 in 1 of 1"),
    "context": ("2,048 tokens of context instead of 128 gain", "window, d_model 32"),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_summary_answers_the_question(name):
    a = record.finite(sweep_analysis.analyse(results_of(few(name)), resamples=30))
    lines = answer_text.lines(a)
    assert 0 < len(lines) <= answer_text.MOST
    text = "\n".join(lines)
    assert all(words in text for words in ANSWERS[name]), text
    if name in ("positions", "granularity"):  # best first
        best = {"positions": "rope", "granularity": "64 experts"}[name]
        assert lines[0].startswith(best) and "C^" not in text
    if name == "dense_vs_moe":
        assert lines[0].startswith("MoE - dense")
    if name in ("quickstart", "isoflop"):
        assert "C^" in lines[0]
