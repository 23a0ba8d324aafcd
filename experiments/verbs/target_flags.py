"""The flags that say which devices a plan is for."""

from absl import flags

from experiments.cli import UserError
from experiments.console.lazy import Lazy
from launch.devices.accelerators import Figure

choice = Lazy("launch.devices.choice")
step_time = Lazy("experiments.planning.step_time")


def define(fv) -> None:
    """Adds --device, --devices, --memory, --peak_flops and --utilisation."""
    flags.DEFINE_string(
        "device",
        "",
        "kind of device, such as h200, a100-80gb, tpu v5e; default: this machine's",
        flag_values=fv,
    )
    flags.DEFINE_integer(
        "devices", None, "how many; default: those of this machine, else 1", flag_values=fv
    )
    for name, text in (
        ("memory", "GB of one device, instead of the table's"),
        ("peak_flops", "peak of one device in FLOP/s, instead of the table's"),
        (
            "utilisation",
            "model FLOPs over the peak; default: .40 dense, .35 MoE, unless the device was"
            " calibrated",
        ),
    ):
        flags.DEFINE_float(name, None, text, flag_values=fv)


def check(fv) -> None:
    """Raises UserError for a number that cannot be."""
    if fv.utilisation is not None and not 0 < fv.utilisation <= 1:
        raise UserError(
            f"--utilisation={fv.utilisation:g} must lie above 0 and at most 1: .4 stands for 40% of"
            " the peak"
        )
    if fv.devices is not None and fv.devices < 1:
        raise UserError(f"--devices={fv.devices} must be at least 1")


def _utilisation(fv) -> dict:
    return (
        step_time.UTILISATION
        if fv.utilisation is None
        else dict.fromkeys(step_time.UTILISATION, Figure(fv.utilisation, "given"))
    )


def target(fv, where):
    """The devices of the flags (planning.step_time.Target): a kind of the table, whatever has
    --peak_flops, or this machine's.
    """
    platform = choice.probe()[0]
    if fv.device.lower() == "cpu" and platform != "cpu":
        raise UserError(
            "--device=cpu: this machine has an accelerator; set JAX_PLATFORMS=cpu to plan for"
            " its CPU"
        )
    if (fv.device or "cpu").lower() == "cpu" and platform == "cpu" and fv.peak_flops is None:
        t = step_time.this_machine(where, platform, _utilisation(fv))
        t = t._replace(count=fv.devices or t.count)
    elif fv.device:
        t = step_time.named(fv.device, fv.devices or 1, where, _utilisation(fv))
    elif fv.peak_flops is not None:
        t = step_time.named("device of --peak_flops", fv.devices or 1, where, _utilisation(fv))
    else:
        t = step_time.this_machine(where, platform, _utilisation(fv))
        t = t._replace(count=fv.devices or t.count)
    if fv.peak_flops is not None:
        t = t._replace(peak=Figure(fv.peak_flops, "given"))
    return t._replace(memory=Figure(fv.memory * 1e9, "given")) if fv.memory is not None else t
