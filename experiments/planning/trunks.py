"""What runs that hand a trunk on (launch/runs/trunk.py) cost alone, and what they cost here: of a
plan, of a folder, of its records.
"""

from collections.abc import Iterable


def costs(pairs: Iterable[tuple[float, float]]) -> dict | None:
    """Of (FLOPs alone, FLOPs here) of every run the sums, and the share that is saved; None where
    nothing is shared.
    """
    pairs = list(pairs)
    alone, here = (sum(column) for column in zip(*pairs)) if pairs else (0.0, 0.0)
    if alone == here:
        return None
    return {"alone": alone, "here": here, "saved": 1 - here / alone}


def spent(result: dict) -> float:
    """FLOPs (`matmul`) that a run of this record has trained itself."""
    shared = result.get("shared")
    return shared["here"]["flops"] if shared else result["flops"]["matmul"]


def of_results(results: list[dict]) -> dict | None:
    """What finished runs cost, of their records."""
    return costs((r["flops"]["matmul"], spent(r)) for r in results)


def words(found: dict | None) -> list[str]:
    """In a line, or none."""
    if not found:
        return []
    return [
        f"trunks: {found['alone']:.4g} FLOPs alone, {found['here']:.4g} here:"
        f" {found['saved']:.1%} saved"
    ]
