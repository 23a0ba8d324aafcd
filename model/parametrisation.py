"""How a model is scaled to other widths and depths, so that what was tuned at a base stays tuned.

WIDTH and DEPTH are the table: for each kind of array, and for activations, the power of m (the
width over the base's) and of l (the depth over the base's) that its standard value is multiplied
by. All factors are 1 at the base, where every parametrisation is the standard one, to the bit.

mup: WIDTH alone, which is table 8 of Yang et al. 2022 (arXiv 2203.03466). The head, tied or not,
keeps its rate and its spread, and logits are divided by m. Outputs inside the network, the router
and the gate of shared experts, take the equal form without a multiplier (table 3 there; the router
of Malasnicki et al. 2025, arXiv 2508.09752, is one); an expert's matrices are hidden ones.
completep: both, which is table 1 of Dey et al. 2025 (arXiv 2505.01618) with alpha = 1.

Muon's update is orthogonal: its rate is the one that gives it the spectral norm sqrt(outputs /
inputs) (Yang et al. 2023, arXiv 2310.17813, condition 1), where Liu et al. have sqrt(max of both).
Weight decay is multiplied by the inverse of the rate's factor, since it is scaled by the rate.
Sinusoidal and rotary positions have no array, and numbers of one size whatever the width.
"""

import dataclasses
from typing import ClassVar, NamedTuple

from model import config
from model.config import Model
from model.mixers.softmax import head_width


class Row(NamedTuple):
    """Of one kind of array; as powers in the tables, as factors where they are applied."""

    std: float  # the initial spread
    rate: float  # learning rates of AdamW, Lion and Adafactor, whose updates' numbers have one size
    spectral: float  # and of Muon's matrices
    eps: float  # what AdamW adds to the root of the squares


# powers of m
WIDTH = {
    # kind             std     rate  spectral  eps
    "embed":     Row(  0,      0,    0,        -1),  # token embedding
    "positions": Row(  0,      0,    0,        -1),  # learned ones
    "hidden":    Row(  0,      -1,   -1 / 2,   -1),  # standard spreads fall as 1/sqrt(inputs)
    "written":   Row(  0,      -1,   -1 / 2,   -1),  # hidden, onto the residual stream
    "output":    Row(  -1 / 2, -1,   -1,       0),   # router, gate of shared experts
    "head":      Row(  0,      0,    0,        -1),  # where it is not tied; it starts at 0
    "vector":    Row(  0,      0,    0,        -1),  # norms, biases and the like of a layer
    "outer":     Row(  0,      0,    0,        -1),  # norms beside the embedding and the head
}  # fmt: skip
LOGITS = -1  # power of m that logits are multiplied by
SCORES = 1 / 2  # power of (width of a base head over that of a head) that attention's scores are

# powers of l, completep alone; "written" starts with the base's 1/sqrt(2 layers) (GPT-2)
DEPTH = {
    # kind           std     rate  spectral  eps
    "hidden":  Row(  0,      0,    0,        -1),
    "written": Row(  1 / 2,  0,    0,        -1),
    "output":  Row(  0,      0,    0,        -1),
    "vector":  Row(  0,      0,    0,        -1),
}  # fmt: skip
BRANCHES = -1  # power of l that what a mixer or an MLP adds to the residual stream is multiplied by

SAME = Row(1.0, 1.0, 1.0, 1.0)
OUTPUTS = ("router", "shared_gate")  # by their names in the tree of parameters


def kind(path: tuple[str, ...], matrix: bool) -> str:
    """The kind of an array, of WIDTH."""
    ends = [name for name in ("embed", "positions", "head") if name in path]
    if ends:
        return ends[0]
    if path[-1] in OUTPUTS:
        return "output"
    if matrix:
        return "written" if "out" in path else "hidden"
    return "vector" if path[0].startswith(("first_", "group")) else "outer"


@dataclasses.dataclass(frozen=True)
class Standard:
    """Initial spreads by the inputs of a matrix, one rate for all widths and depths, scores over
    sqrt(head width), no multipliers.
    """

    scales: ClassVar[bool] = False  # something with width or depth

    def check(self, m: Model) -> None:
        pass

    def factors(self, m: Model, path: tuple[str, ...], matrix: bool) -> Row:
        """Of the array at `path` of the parameters."""
        return SAME

    def plain(self, m: Model) -> Model:
        """`m` with the multipliers of activations as fields of its own, and no parametrisation."""
        return m

    def tuned(self, m: Model) -> tuple[int, int]:
        """(width, layers) that the learning rates of a run of `m` were tuned at."""
        return m.d_model, m.n_layers


@dataclasses.dataclass(frozen=True)
class Mup(Standard):
    """Maximal update parametrisation: learning rates are those of the base width."""

    base_width: int = 64  # d_model at which rates were tuned
    base_head: int = 16  # width of its attention heads

    scales = True

    def check(self, m: Model) -> None:
        name = "model.parametrisation"
        config.positive(self, tuple(f.name for f in dataclasses.fields(self)), name)
        if m.embed_scale:
            raise ValueError(
                f"{name}: model.embed_scale multiplies embeddings by a root of the width, which"
                " would undo it: set model.embed_scale=false, and model.embed_multiplier if wanted"
            )

    def factors(self, m, path, matrix):
        wide = m.d_model / self.base_width
        return Row(*(wide**power for power in WIDTH[kind(path, matrix)]))

    def plain(self, m):
        layers = {name: tuple(map(self._layer(m), getattr(m, name))) for name in LAYERS}
        return dataclasses.replace(
            m,
            parametrisation=Standard(),
            logit_scale=m.logit_scale * (m.d_model / self.base_width) ** LOGITS,
            **layers,
        )

    def tuned(self, m):
        return self.base_width, m.n_layers

    def _layer(self, m: Model):
        def one(layer):
            mixer = layer.mixer
            if hasattr(mixer, "scale") and (wide := head_width(mixer, m)) != self.base_head:
                scale = (mixer.scale or wide**-0.5) * (self.base_head / wide) ** SCORES
                mixer = dataclasses.replace(mixer, scale=scale)
            return dataclasses.replace(
                layer, mixer=mixer, residual_scale=layer.residual_scale * self.branches(m)
            )

        return one

    def branches(self, m: Model) -> float:
        """What mixers and MLPs add is multiplied by it."""
        return 1.0


LAYERS = ("pattern", "first")  # fields of a model that hold layers


@dataclasses.dataclass(frozen=True)
class CompleteP(Mup):
    """muP, and what makes depths alike: learning rates are those of the base width and depth."""

    base_depth: int = 2  # layers at which rates were tuned

    def check(self, m):
        super().check(m)
        if m.layers[0].norm == "post":
            raise ValueError(
                "model.parametrisation=completep: norm=post norms the residual stream itself, which"
                " is not covered: set another model.layer.norm, or mup"
            )

    def factors(self, m, path, matrix):
        deep, powers = m.n_layers / self.base_depth, DEPTH.get(kind(path, matrix))
        wide = super().factors(m, path, matrix)
        return wide if powers is None else Row(*(f * deep**p for f, p in zip(wide, powers)))

    def tuned(self, m):
        return self.base_width, self.base_depth

    def branches(self, m):
        return (m.n_layers / self.base_depth) ** BRANCHES
