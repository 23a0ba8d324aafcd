"""What the flags name of the laws, without the solver behind them."""

N_CONVENTIONS = {
    "multiplied": "parameters a token is multiplied by",
    "total": "total parameters",
    "active": "active parameters",
    "non_embedding": "non-embedding parameters",
    "active_non_embedding": "active non-embedding parameters",
    "non_vocabulary": "active parameters without embedding and head",
}


def n_of(parameters: dict, name: str) -> int:
    """N of a record's counts. `non_vocabulary`, the N of Kaplan et al. 2020 (arXiv 2001.08361,
    section 2.1), stands in no record: it is `active_non_embedding` without an untied head.
    """
    if name == "non_vocabulary":
        return parameters["active_non_embedding"] - parameters["groups"].get("head", 0)
    return parameters[name]


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
