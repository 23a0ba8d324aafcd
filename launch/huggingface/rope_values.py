"""Rotary positions in a config.json: `rope_parameters`, or `rope_theta` and `rope_scaling` of older
files; of all layers, or of full and sliding attention each.
"""

import math

from launch.huggingface.config_values import Config
from model.config import Model
from model.positions import NoPositions, Rope
from model.rope_scaling import Dynamic, Linear, Llama3, LongRope, Yarn

KINDS = ("full_attention", "sliding_attention")


def rope(
    cfg: Config, interleaved: bool = False, theta: float = 10_000.0, fraction: float = 1.0
) -> Rope:
    """Of all layers. theta, fraction: where the file names none."""
    given = {**(cfg.get("rope_parameters") or {}), **(cfg.get("rope_scaling") or {})}
    return _made(cfg, given, interleaved, theta, fraction)


def ropes(cfg: Config, theta: float, local: float) -> tuple[Rope, Rope]:
    """Of full and of sliding attention. theta, local: where the file names none."""
    given = cfg.get("rope_parameters") or {}
    if any(given.get(kind) for kind in KINDS):
        full, sliding = (given.get(kind) or {} for kind in KINDS)
    else:
        full = {**given, **(cfg.get("rope_scaling") or {})}
        sliding = {"rope_theta": cfg.get("rope_local_base_freq") or local}
    alone = Config({**cfg, "rope_theta": None}, {}, cfg.counting)
    alone.ignored = cfg.ignored
    return _made(cfg, full, False, theta, 1.0), _made(alone, sliding, False, local, 1.0)


def _made(cfg: Config, given: dict, interleaved: bool, theta: float, fraction: float) -> Rope:
    theta = given.get("rope_theta") or cfg.get("rope_theta") or theta
    share = given.get("partial_rotary_factor") or cfg.get("partial_rotary_factor") or fraction
    return Rope(float(theta), float(share), interleaved, _scaling(cfg, given))


def _original(cfg: Config, given: dict) -> int:
    name = "original_max_position_embeddings"
    return int(given.get(name) or cfg.get(name) or cfg["max_position_embeddings"])


def mscale(factor: float, weight: float) -> float:
    """By how much YaRN multiplies (arXiv 2309.00071, eq 22; DeepSeek weights its logarithm)."""
    return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0


def _yarn(cfg: Config, given: dict) -> Yarn:
    original = _original(cfg, given)
    factor = float(given.get("factor") or cfg["max_position_embeddings"] / original)
    magnitude = given.get("attention_factor") or 0.0
    if not magnitude and given.get("mscale") and given.get("mscale_all_dim"):
        magnitude = mscale(factor, given["mscale"]) / mscale(factor, given["mscale_all_dim"])
    return Yarn(
        factor,
        original,
        float(given.get("beta_fast") or 32),
        float(given.get("beta_slow") or 1),
        float(magnitude),
        bool(given.get("truncate", True)),
    )


def _longrope(cfg: Config, given: dict) -> LongRope:
    original = _original(cfg, given)
    return LongRope(
        *(tuple(float(x) for x in given[name]) for name in ("short_factor", "long_factor")),
        original,
        float(given.get("attention_factor") or 0.0),
        float(given.get("factor") or cfg["max_position_embeddings"] / original),
    )


READ = {
    "linear": lambda cfg, given: Linear(float(given["factor"])),
    "dynamic": lambda cfg, given: Dynamic(float(given["factor"]), cfg["max_position_embeddings"]),
    "yarn": _yarn,
    "llama3": lambda cfg, given: Llama3(
        float(given["factor"]),
        _original(cfg, given),
        float(given["low_freq_factor"]),
        float(given["high_freq_factor"]),
    ),
    "longrope": _longrope,
    "su": _longrope,  # the name of Phi-3's first files
}


def _scaling(cfg: Config, given: dict):
    kind = given.get("rope_type", given.get("type", "default"))
    if kind in ("default", None):
        return None
    if kind not in READ:
        cfg.refuse(
            f"rope_parameters.rope_type={kind!r} is not supported: choose from default,"
            f" {', '.join(READ)}",
            harmless=True,
        )
        return None
    try:
        return READ[kind](cfg, given)
    except KeyError as e:
        cfg.refuse(f"rope_parameters of rope_type={kind!r} have no {e.args[0]!r}")


def rope_fields(positions: NoPositions, partial: bool = False) -> dict:
    """`rope_parameters` of a config.json; of positions that are none, rope's defaults. partial: the
    family turns a share of a head.
    """
    return {"rope_parameters": written(positions, partial)}


def written(positions: NoPositions, partial: bool = False) -> dict:
    """The parameters of one kind of attention."""
    own = positions if isinstance(positions, Rope) else Rope()
    out = {"rope_type": "default", "rope_theta": own.theta, **_scaling_fields(own.scaling)}
    return {**out, "partial_rotary_factor": own.fraction} if partial else out


def write_ropes(m: Model) -> dict:
    """The inverse of `ropes`; the positions of sliding attention are those of the first layer that
    has a window.
    """
    local = next((p.positions for p in (x.mixer for x in m.layers) if p.window), None)
    each = (m.positions, local or m.positions)
    return {"rope_parameters": {kind: written(own) for kind, own in zip(KINDS, each)}}


def _scaling_fields(s) -> dict:
    if s is None:
        return {}
    kinds = {Linear: "linear", Dynamic: "dynamic", Yarn: "yarn", Llama3: "llama3"}
    out: dict = {"rope_type": kinds.get(type(s), "longrope")}
    if s.factor:
        out["factor"] = s.factor
    if type(s) in (Yarn, Llama3, LongRope):
        out["original_max_position_embeddings"] = s.original
    if isinstance(s, Yarn):
        out |= {"beta_fast": s.beta_fast, "beta_slow": s.beta_slow, "truncate": s.truncate}
    if isinstance(s, Llama3):
        out |= {"low_freq_factor": s.low, "high_freq_factor": s.high}
    if isinstance(s, LongRope):
        out |= {"short_factor": list(s.short), "long_factor": list(s.long)}
    if getattr(s, "magnitude", 0):
        out["attention_factor"] = s.magnitude
    return out
