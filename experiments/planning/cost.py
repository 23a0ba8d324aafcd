"""Device-hours to money, energy and carbon. Every factor is an input with a stated default; what
has none stays unknown.
"""

from typing import NamedTuple

from launch.devices.accelerators import Device, Figure

# Touvron et al. 2023 (LLaMA, arXiv 2302.13971), section 6: energy = device-hours x board power x
# PUE; 1.1 and the US average of 385 g/kWh
PUE = Figure(1.1, "default: Touvron et al. 2023, section 6")
GRID = Figure(385.0, "default: US average, Touvron et al. 2023, section 6")
# No price list is at hand offline: a round $2 stands for the H100 alone (docs/planning.md)
PRICES = {"H100": Figure(2.0, "default: a round $2 for an H100; prices are an input")}
UNKNOWN = "unknown"


class Rates(NamedTuple):
    """Dollars per device-hour, watts per device, power usage effectiveness, grams of CO2 per kWh;
    None is unknown, `why` says why.
    """

    price: Figure | None
    watts: Figure | None
    pue: Figure
    grid: Figure
    why: dict


def rates(
    device: Device | None,
    price: float | None = None,
    watts: float | None = None,
    cap: float | None = None,
    pue: float | None = None,
    grid: float | None = None,
    name: str = "the device",
) -> Rates:
    """The flags' values where given, else the table's or the stated default."""

    def given(v):
        return Figure(v, "given")

    known = device.figure("watts") if device else None
    power = given(watts) if watts is not None else known
    if cap is not None:
        power = (
            Figure(cap, "the power cap, an upper bound")
            if power is None or cap < power.value
            else power
        )
    missing = device.sources["watts"] if device else f"{name} is not in the device table"
    return Rates(
        given(price) if price is not None else PRICES.get(device.name) if device else None,
        power,
        PUE if pue is None else given(pue),
        GRID if grid is None else given(grid),
        {
            "money": f"{UNKNOWN}: no price is given (--price_per_hour)",
            "kwh": f"{UNKNOWN}: no power figure ({missing}); give --watts or --power_cap",
        },
    )


class Cost(NamedTuple):
    """Of so many device-hours; None is unknown."""

    money: float | None
    kwh: float | None
    kg_co2: float | None


def cost(device_hours: float | None, r: Rates) -> Cost:
    if device_hours is None:
        return Cost(None, None, None)
    kwh = None if r.watts is None else device_hours * r.watts.value / 1e3 * r.pue.value
    return Cost(
        None if r.price is None else device_hours * r.price.value,
        kwh,
        None if kwh is None else kwh * r.grid.value / 1e3,
    )


def sources(r: Rates) -> dict[str, str]:
    """Where money, kWh and kg CO2 come from."""
    kwh = r.why["kwh"] if r.watts is None else _energy(r)
    return {
        "money": (
            r.why["money"]
            if r.price is None
            else f"device-hours x ${r.price.value:g} ({r.price.source})"
        ),
        "kwh": kwh,
        "kg_co2": kwh if r.watts is None else f"kWh x {r.grid.value:g} g/kWh ({r.grid.source})",
    }


def _energy(r: Rates) -> str:
    return (
        f"device-hours x {r.watts.value:g} W, the board's bound ({r.watts.source}), x PUE"
        f" {r.pue.value:g} ({r.pue.source})"
    )


def assumed(r: Rates, cap: float | None, calibrated: bool) -> dict:
    """The inputs as {name: {"value", "source"}}."""

    def one(f, why):
        return {
            "value": None if f is None else f.value,
            "source": why if f is None else f.source,
        }

    effect = (
        "measured: the calibration ran on this device, under whatever cap was set"
        if calibrated
        else f"{UNKNOWN}: not measured, hours are without the cap"
    )
    capped = {
        "value": cap,
        "source": "given" if cap is not None else "default: none",
        "effect_on_speed": effect if cap else "none set",
    }
    return {
        "price_per_hour": one(r.price, r.why["money"]),
        "watts": one(r.watts, r.why["kwh"]),
        "power_cap": capped,
        "pue": one(r.pue, ""),
        "grid_carbon": one(r.grid, ""),
    }


class Compute(NamedTuple):
    """FLOPs on devices of one peak: days at 100% and at the utilisation, device-hours."""

    days_at_peak: float
    days: float
    device_hours: float


def compute(
    flops: float, devices: int, peak: float, utilisation: float, days_at_peak: float | None = None
) -> Compute:
    """`days_at_peak`: a rounded number of days at 100%, in the place of the exact one."""
    at_peak = flops / (devices * peak) / 86_400 if days_at_peak is None else days_at_peak
    return Compute(at_peak, at_peak / utilisation, devices * 24 * at_peak / utilisation)
