"""Analyses side by side: one that cannot be made is left out with a sentence, and takes no other
with it.
"""

import os
import traceback

from experiments.laws.exceptions import FitError

# set by the tests: a slip of the code is raised there, where a user would read a sentence
STRICT = "ISOFLOP_STRICT"


def attempt(what: str, make, otherwise, left_out: list[dict]):
    """`make()`; or `otherwise`, with {what, why} added to `left_out`, where it raises."""
    try:
        return make()
    except FitError as e:
        left_out.append({"what": what, "why": str(e)})
    except Exception as e:
        if os.environ.get(STRICT):
            raise
        at = traceback.extract_tb(e.__traceback__)[-1]
        place = f"{os.path.basename(at.filename)}:{at.lineno}"
        left_out.append(
            {
                "what": what,
                "why": f"could not be made ({type(e).__name__}: {e}, at {place}); everything else"
                " stands. Please report it",
            }
        )
    return otherwise
