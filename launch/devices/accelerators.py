"""Accelerators: what one device can do, and who says so. A figure that no official page gives is
missing, or says that it is secondary; what is missing stays unknown wherever a prediction would
need it.
"""

import difflib
import re
from typing import NamedTuple

NVIDIA, TORCHTITAN, NANOCHAT = (
    "NVIDIA datasheet",
    "torchtitan get_peak_flops",
    "nanochat's device table",
)
LEVANTER = "levanter flop_utils, after the NVIDIA datasheet"
KLOCKWOOD = "glennklockwood.com/garden/processors"
SECONDARY = "secondary specification pages"
WHITEPAPER = f"{NANOCHAT}, not seen in NVIDIA's whitepaper"
DATASHEET = "NVIDIA's datasheet, quoted by levanter flop_utils"
TPU = "cloud.google.com/tpu/docs"


class Figure(NamedTuple):
    value: float
    source: str


class Device(NamedTuple):
    """Dense bf16 peak in FLOP/s (never the figure with sparsity), memory in bytes, board power in
    watts; None where no figure is known.
    """

    name: str
    peak: float | None
    memory: float | None
    watts: float | None
    sources: dict  # of peak, memory and watts: who says so, or why the figure is missing

    def figure(self, field: str) -> Figure | None:
        value = getattr(self, field)
        return None if value is None else Figure(value, self.sources[field])


def _device(name, peak, memory, watts) -> Device:
    """Each figure as (value, source), or as the reason why there is none."""
    sources, values = {}, []
    for field, f in (("peak", peak), ("memory", memory), ("watts", watts)):
        value, sources[field] = (None, f) if isinstance(f, str) else f
        values.append(value)
    return Device(name, values[0], values[1], values[2], sources)


TWO_CORES = ("TPU v2", "TPU v3")  # a chip of the table is two of jax's devices
GB, GIB, T = 1e9, 2**30, 1e12
NO_WATTS = "no official figure"
NO_BF16 = "no bf16 units"

DEVICES = {
    d.name: d
    for d in (
        _device("V100", NO_BF16 + " (fp16: 125 TFLOP/s)", "16 or 32 GB by model", (300, SECONDARY)),
        _device("T4", NO_BF16 + " (fp16: 65 TFLOP/s)", (16 * GB, LEVANTER), (70, SECONDARY)),
        _device("A100 40GB", (312 * T, LEVANTER), (40 * GB, LEVANTER), (400, SECONDARY)),
        _device(
            "A100 80GB",
            (312 * T, LEVANTER),
            (80 * GB, LEVANTER),
            (400, f"{SECONDARY}, not seen in an official one"),
        ),
        _device(
            "H100",
            (989 * T, TORCHTITAN),
            (80 * GB, f"{KLOCKWOOD}/h100"),
            (700, f"{KLOCKWOOD}/h100"),
        ),
        _device(
            "H100 NVL",
            (835 * T, f"{TORCHTITAN}; {NANOCHAT}"),
            (94 * GB, NANOCHAT),
            f"350 to 400 W in {SECONDARY}: no one figure",
        ),
        _device(
            "H200",
            (989 * T, TORCHTITAN),
            (141 * GB, TORCHTITAN),
            (700, "MLCommons system description: TGP 700W"),
        ),
        _device(
            "GH200",
            "not confirmed officially (tables give 989.5, one the sparse 1979)",
            "96 or 144 GB by model",
            NO_WATTS,
        ),
        _device(
            "B200",
            (2250 * T, TORCHTITAN),
            (180 * GB, f"{KLOCKWOOD}/B200 (192); Vultr: 179 on a node"),
            (1000, f"{KLOCKWOOD}/B200"),
        ),
        _device(
            "GB200",
            (2500 * T, f"{KLOCKWOOD}/B200; torchtitan"),
            "no figure found",
            (1200, f"{KLOCKWOOD}/B200"),
        ),
        _device("L4", (121 * T, NANOCHAT), (24 * GB, NANOCHAT), (72, SECONDARY)),
        _device(
            "L40S",
            (362.05 * T, "NVIDIA product sheet"),
            (48 * GB, "NVIDIA product sheet"),
            (350, "NVIDIA product sheet"),
        ),
        # GeForce: bf16 with float32 sums, half the rate of fp16 with fp16 sums
        _device("RTX 3090", (71 * T, WHITEPAPER), (24 * GB, SECONDARY), (350, SECONDARY)),
        _device("RTX 4090", (165.2 * T, WHITEPAPER), (24 * GB, SECONDARY), (450, SECONDARY)),
        _device("RTX 5090", (209.5 * T, WHITEPAPER), (32 * GB, SECONDARY), (575, SECONDARY)),
        _device(
            "RTX A6000",
            (154.85 * T, f"{DATASHEET} (309.7 with sparsity, halved)"),
            (48 * GB, SECONDARY),
            (300, SECONDARY),
        ),
        _device("A10", (125 * T, DATASHEET), (24 * GB, SECONDARY), (150, SECONDARY)),
        _device("MI300X", (1307.4 * T, NANOCHAT), (192 * GB, NANOCHAT), (750, SECONDARY)),
        _device(
            "TPU v2", (46 * T, "jax pallas tpu_info"), (16 * GB, "jax pallas tpu_info"), NO_WATTS
        ),
        _device(
            "TPU v3",
            (123 * T, f"{TPU}/v3 (jax: 140)"),
            (32 * GIB, f"{TPU}/v3"),
            (262, f"{TPU}/v3, the maximum (mean 220)"),
        ),
        _device(
            "TPU v4",
            (275 * T, f"{TPU}/v4"),
            (32 * GIB, f"{TPU}/v4"),
            (192, f"{TPU}/v4, the maximum (mean 170)"),
        ),
        _device("TPU v5e", (197 * T, f"{TPU}/v5e"), (16 * GB, f"{TPU}/v5e"), NO_WATTS),
        _device(
            "TPU v5p", (459 * T, f"{TPU}/v5p-training"), (95 * GB, f"{TPU}/v5p-training"), NO_WATTS
        ),
        _device("TPU v6e", (918 * T, f"{TPU}/v6e"), (32 * GB, f"{TPU}/v6e"), NO_WATTS),
        _device("TPU v7x", (2307 * T, f"{TPU}/tpu7x"), (192 * GIB, f"{TPU}/tpu7x"), NO_WATTS),
    )
}

# words of jax's device_kind, or of what a person types, that mean an entry; the first that occurs
# as whole words
NAMES = {
    "h100 pcie": None,  # slower than the SXM, and no official figure was found
    "h200 nvl": None,  # slower than the SXM too
    # other chips or clocks under the same number
    **{f"{n} {other}": None for n in (3090, 4090, 5090) for other in ("d", "ti", "laptop")},
    **{
        name.lower(): name
        for name in (
            "GB200",
            "GH200",
            "B200",
            "H200",
            "H100 NVL",
            "H100",
            "L40S",
            "L4",
            "RTX 3090",
            "RTX 4090",
            "RTX 5090",
            "RTX A6000",
            "A10",
            "MI300X",
            "V100",
            "T4",
        )
    },
    **{f"{n}": f"RTX {n}" for n in (3090, 4090, 5090)},
    "a6000": "RTX A6000",
    "a100 sxm4 80gb": "A100 80GB",
    "a100 80gb": "A100 80GB",
    "a100 pcie 80gb": "A100 80GB",
    "a100": "A100 40GB",
    "v5 lite": "TPU v5e",
    "v5litepod": "TPU v5e",
    "v6 lite": "TPU v6e",
    "tpu7x": "TPU v7x",
    "ironwood": "TPU v7x",
    **{f"v{v}": f"TPU v{v}" for v in ("2", "3", "4", "5e", "5p", "6e", "7x")},
    "tpu v5": "TPU v5p",
}


def device(kind: str) -> Device | None:
    """The table's entry for jax's `device_kind`, or for a name as typed; None if it is not
    known.
    """
    words = f" {re.sub(r'[^a-z0-9]+', ' ', kind.lower()).strip()} "
    return DEVICES.get(next((name for key, name in NAMES.items() if f" {key} " in words), None))


def nearest(kind: str) -> str | None:
    """The known name that `kind` may have been meant for."""
    near = difflib.get_close_matches(kind.lower(), [k for k, name in NAMES.items() if name], 1, 0.6)
    return NAMES[near[0]] if near else None
