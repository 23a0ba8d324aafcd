"""Which loss of a record is the L of a law: that on all validation windows, in nats per token; per
byte of text, which tokenizers share; or that on one source of a mixture.
"""

from experiments.laws.exceptions import FitError

PER_BYTE = "bits_per_byte"


def unit(loss: str) -> str:
    """In words, for axes and tables."""
    if loss == PER_BYTE:
        return "bits/byte"
    return f"nats/token of {loss}" if loss else "nats/token"


def names(results: list[dict]) -> list[str]:
    """The sources that every result has a loss of."""
    found = [set(r.get("sources") or {}) for r in results]
    return sorted(set.intersection(*found)) if found else []


def measured(results: list[dict], loss: str) -> list[dict]:
    """Results whose validation loss is the one that `loss` names: "", bits_per_byte or a source.
    Bits per byte are comparable between tokenizers, so these no longer tell runs apart. Raises
    FitError.
    """
    if not loss:
        return results
    known = names(results)
    if loss != PER_BYTE and loss not in known:
        raise FitError(
            f"--loss={loss}: these runs have {', '.join([PER_BYTE, *known])}"
            + ("" if known else "; losses by source are those of a mixture (data.mixture)")
        )
    return [_with(r, loss) for r in results]


def _with(r: dict, loss: str) -> dict:
    if loss == PER_BYTE:
        value = r["validation"].get(PER_BYTE)
        prints = {**(r.get("fingerprints") or {}), "tokenizer": ""}
        # of nats per token: what a unigram model would have, and the true source
        rest = {"unigram_entropy": None, "fingerprints": prints}
    else:
        value, rest = r["sources"][loss]["validation"].get("loss"), {}
    validation = {**r["validation"], "loss": value, "se": None}
    return {**r, **rest, "validation": {**validation, "excess": None, "excess_se": None}}
