"""What the flags name of the laws, without the solver behind them."""

N_CONVENTIONS = {
    "multiplied": "parameters a token is multiplied by",
    "total": "total parameters",
    "active": "active parameters",
    "non_embedding": "non-embedding parameters",
    "active_non_embedding": "active non-embedding parameters",
}
LAWS = (
    "kaplan_n",
    "kaplan_d",
    "kaplan_c",
    "kaplan_nd",
    "power_floor",
    "chinchilla3",
    "muennighoff2023",
    "gadre2024",
    "gadre2024_error",
    "clark2022",
    "krajewski2024",
    "abnar2025",
    "ludziejewski2025",
    "frantar2023",
    "learning_rate",
    "critical_batch",
    "batch_size",
    "chinchilla1",
    "chinchilla2",
    "chinchilla2_interpolated",
)  # of law_forms.FORMS and procedures.PROCEDURES; a test compares them


POOL = ("corpus", "tokenizer", "family", "lr", "repeats")  # what selection.py keeps apart
