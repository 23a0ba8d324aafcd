"""The table of accelerators: every figure has a source, and names are recognised."""

import pytest

from experiments import recipes
from launch.devices import accelerators, choice


def test_every_figure_of_the_table_has_a_source():
    for d in accelerators.DEVICES.values():
        assert set(d.sources) == {"peak", "memory", "watts"} and all(d.sources.values())
        assert all((d.figure(k) is None) == (getattr(d, k) is None) for k in d.sources)
    assert set(accelerators.NAMES.values()) - {None} == set(accelerators.DEVICES)


@pytest.mark.parametrize(
    "kind,name",
    [
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40", None),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("TPU v5 lite", "TPU v5e"),
        ("TPU v5p", "TPU v5p"),
        ("TPU v6 lite", "TPU v6e"),
        ("tpu-v5e", "TPU v5e"),
        ("h200", "H200"),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 5090", "RTX 5090"),
        ("NVIDIA GeForce RTX 5090 Laptop GPU", None),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA RTX 6000 Ada Generation", None),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", None),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("AMD Instinct MI300X", "MI300X"),
        ("TPU v4", "TPU v4"),
        ("TPU v5", "TPU v5p"),
        ("TPU7x", "TPU v7x"),
        ("rtx4090", None),
        ("cpu", None),
    ],
)
def test_devices_are_recognised_by_whole_words(kind, name):
    d = accelerators.device(kind)
    assert (d.name if d else None) == name


@pytest.mark.parametrize(
    "name,peak,memory,watts",
    [
        ("RTX 3090", 71e12, 24e9, 350),
        ("RTX 4090", 165.2e12, 24e9, 450),
        ("RTX 5090", 209.5e12, 32e9, 575),
        ("RTX A6000", 154.85e12, 48e9, 300),
        ("A10", 125e12, 24e9, 150),
        ("L40S", 362.05e12, 48e9, 350),
        ("MI300X", 1307.4e12, 192e9, 750),
        ("T4", None, 16e9, 70),
        ("V100", None, None, 300),
        ("TPU v4", 275e12, 32 * 2**30, 192),
        ("TPU v5p", 459e12, 95e9, None),
        ("TPU v6e", 918e12, 32e9, None),
        ("TPU v7x", 2307e12, 192 * 2**30, None),
    ],
)
def test_figures_of_the_table(name, peak, memory, watts):
    """Dense bf16 with float32 sums, never the figure with sparsity."""
    d = accelerators.device(name)
    assert (d.name, d.peak, d.memory, d.watts) == (name, peak, memory, watts)


def test_no_bf16_units_no_peak():
    assert (
        accelerators.device("Tesla V100-SXM2-16GB").peak is None
        and choice.mfu(recipes.load("tiny_dense").run.model, 1e6, "Tesla T4", 1) is None
    )
