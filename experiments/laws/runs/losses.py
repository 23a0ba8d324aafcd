"""Which loss of a record is the L of a law: that on all validation windows, in nats per token; per
byte of text, which tokenizers share; that of averaged weights; or that on one source of a mixture.
"""

from experiments.laws.exceptions import FitError
from model import averages

PER_BYTE = "bits_per_byte"


def unit(loss: str) -> str:
    """In words, for axes and tables."""
    if loss == PER_BYTE:
        return "bits/byte"
    if loss in averages.AVERAGES:
        return f"nats/token of the averaged weights ({loss})"
    return f"nats/token of {loss}" if loss else "nats/token"


def names(results: list[dict]) -> list[str]:
    """The averages of weights and the sources that every result has a loss of."""
    found = [{*(r.get("averages") or {}), *(r.get("sources") or {})} for r in results]
    return sorted(set.intersection(*found)) if found else []


def measured(results: list[dict], loss: str) -> list[dict]:
    """Results whose validation loss is the one that `loss` names: "", bits_per_byte, an
    average or a source.
    Bits per byte are comparable between tokenizers, so these no longer tell runs apart. Raises
    FitError.
    """
    if not loss:
        return results
    known = names(results)
    if loss != PER_BYTE and loss not in known:
        raise FitError(
            f"--loss={loss}: these runs have {', '.join([PER_BYTE, *known])}"
            + (
                ""
                if known
                else "; losses by source are those of a mixture (data.mixture), ema and lawa those"
                " of runs that have an average"
            )
        )
    return [_with(r, loss) for r in results]


def _with(r: dict, loss: str) -> dict:
    if loss == PER_BYTE:
        value = r["validation"].get(PER_BYTE)
        prints = {**(r.get("fingerprints") or {}), "tokenizer": ""}
        # of nats per token: what a unigram model would have, and the true source
        rest = {"unigram_entropy": None, "fingerprints": prints}
    elif loss in (r.get("averages") or {}):
        return {**r, "validation": {**r["validation"], **r["averages"][loss]}}
    else:
        value, rest = r["sources"][loss]["validation"].get("loss"), {}
    validation = {**r["validation"], "loss": value, "se": None}
    return {**r, **rest, "validation": {**validation, "excess": None, "excess_se": None}}
