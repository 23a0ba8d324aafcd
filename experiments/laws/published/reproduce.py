"""Published fits, repeated from the authors' runs by the authors' recipe: rows of published against
reproduced, a verdict each. A new one is a file in reproductions/ and an entry here.
"""

from experiments.laws.exceptions import FitError
from experiments.laws.published.reproductions import (
    besiroglu2024,
    clark2022,
    gadre2024,
    muennighoff2023,
)
from experiments.laws.published.reproductions.rows import Row

REPRODUCTIONS = {
    "besiroglu2024": besiroglu2024.reproduce,
    "gadre2024": gadre2024.reproduce,
    "clark2022": clark2022.reproduce,
    "muennighoff2023": muennighoff2023.reproduce,
}


def run(name: str, table, resamples: int = 1000, seed: int = 0) -> tuple[list[Row], dict]:
    """Rows, and what the figure draws. Raises FitError if a column is missing."""
    try:
        return REPRODUCTIONS[name](table, resamples, seed)
    except KeyError as e:
        raise FitError(
            f"the file has no column {e}: {name} needs the authors' file or the common columns"
        ) from None
