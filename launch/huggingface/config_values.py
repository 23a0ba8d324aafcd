"""What the families share in reading and writing a config.json: defaults, fields that must have
one value, activations. Rope: rope_values.py.
"""

from launch.config import ConfigError

# theirs -> (ours, ours where the MLP is gated)
ACTIVATIONS = {
    "relu": ("relu", None),
    "gelu_new": ("gelu", "geglu"),
    "gelu_pytorch_tanh": ("gelu", "geglu"),
    "gelu_fast": ("gelu", "geglu"),
    "gelu": ("gelu_exact", None),
    "silu": (None, "swiglu"),
    "swish": (None, "swiglu"),
}


def activation(theirs: str, gated: bool) -> str:
    """Our name of an activation. Raises ConfigError."""
    ours = ACTIVATIONS.get(theirs, (None, None))[gated]
    if ours is None:
        known = ", ".join(k for k, v in ACTIVATIONS.items() if v[gated])
        raise ConfigError(f"config.json: activation {theirs!r} is not supported here: {known}")
    return ours


def named(ours: str) -> str:
    """Their name of an activation; empty where they have none."""
    return next((k for k, v in ACTIVATIONS.items() if ours in v), "")


class Config(dict):
    """A config.json over its family's defaults. A field that has neither raises ConfigError.
    `ignored` names what changes no count and was passed over, which only a reader for counting
    does.
    """

    def __init__(self, given: dict, defaults: dict, counting: bool = False):
        super().__init__({**defaults, **given})
        self.counting, self.ignored = counting, []

    def __missing__(self, key):
        raise ConfigError(f"config.json has no field {key!r}, and its family no default for it")

    def refuse(self, text: str, harmless: bool = False) -> None:
        """Raises ConfigError; if only the counts are wanted and the field does not change them,
        notes it instead.
        """
        if not (harmless and self.counting):
            raise ConfigError(f"config.json: {text}")
        self.ignored.append(text)


def fixed(cfg: Config, values: dict) -> None:
    """Refuses any field of `values` that stands in the config with another value; one that is None
    there counts as not set.
    """
    for name, value in values.items():
        if cfg.get(name) is not None and cfg[name] != value:
            cfg.refuse(f"{name}={cfg[name]!r} is not supported (only {value!r})", harmless=True)


def whole(x: float):
    """`x` without the rounding of a square root or a division that led to it, as an int where it is
    one.
    """
    near = round(x, 9)
    return int(near) if near == int(near) else near
