"""Optimizers, a file each. The contract of an optimizer, a frozen dataclass of its own fields
beside the common ones (base.py):

direction(leaves, dtype) -> transform  of optax: clipped gradients to updates, before learning rate
                                       and decay; its state starts at zero, in float32, in trees
                                       like the parameters, so that a mesh shards it as them
state_bytes(inventory) -> int          equal to the state's tree
update_flops(inventory) -> int         matmul FLOPs that one update executes
AGAINST_ADAMW                          its best learning rate over AdamW's, about
check()                                raises ValueError, in words that say what to change

`leaves` say what each array is, an inventory counts them (model/leaves.py). A new optimizer is a
file and a line here.
"""

from model.config import Model
from model.optimizers.adafactor import Adafactor
from model.optimizers.adamw import AdamW
from model.optimizers.base import Optimizer
from model.optimizers.lion import Lion
from model.optimizers.muon import Muon

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adamw": AdamW,  # of a record that names none
    "lion": Lion,
    "adafactor": Adafactor,
    "muon": Muon,
}
DEFAULT = "adamw"
NAMES = {cls: name for name, cls in OPTIMIZERS.items()}


def check(o: Optimizer, m: Model) -> None:
    """Raises ValueError, in words that say what to change, unless `o` can train `m`."""
    o.check()
    if o.head_lr and m.tied:
        raise ValueError(
            "optimizer.head_lr: the head is the embedding (model.tied), whose rate is"
            " optimizer.embed_lr: set optimizer.head_lr=0"
        )
    if m.parametrisation.scales and not o.TRANSFERS:
        able = [n for n, cls in OPTIMIZERS.items() if cls.TRANSFERS]
        raise ValueError(
            f"optimizer={name(o)}: model.parametrisation does not know how its rates follow the"
            f" width: choose from {', '.join(able)}, or set model.parametrisation=standard"
        )


def name(o: Optimizer) -> str:
    """What text and records call it."""
    return NAMES[type(o)]
