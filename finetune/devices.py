"""What a run would need on cards that are not here, from their data sheets. Pure.

An estimate: FLOPs by the usual 6 for each parameter and token, at a share of the card's peak that
training really reaches. What was measured on a card of one's own is worth more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GIB = 2**30
UTILISATION = 0.35  # of the peak, which a tuned loop reaches; small models stay below it
FLOPS = 6  # for each parameter and token; DPO asks the base as well, forward only
_FLOPS_OF_THE_BASE = 2
_USABLE = 0.9  # of the memory: the rest goes in pieces between tensors


@dataclass(frozen=True, slots=True)
class Device:
    """A card as its maker describes it: GiB, dense bf16 TFLOPS without sparsity, W."""

    name: str
    gib: int
    tflops: float
    watts: int


# From the makers' data sheets; of cards in several forms, the one that draws most.
DEVICES = (
    Device("RTX 3090", 24, 71, 350),
    Device("RTX 4090", 24, 165, 450),
    Device("A10", 24, 125, 150),
    Device("L4", 24, 121, 72),
    Device("L40S", 48, 362, 350),
    Device("A100 40 GB", 40, 312, 400),
    Device("A100 80 GB", 80, 312, 400),
    Device("H100 80 GB", 80, 989, 700),
    Device("H200", 140, 989, 700),
    Device("MI300X", 192, 1307, 750),
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """`seconds` until the run ends; energy and cost of all its cards."""

    device: Device
    needed_bytes: int
    fits: bool
    seconds: float
    energy_wh: float
    cost: float

    @property
    def needed_gib(self) -> float:
        return self.needed_bytes / GIB


def estimate(
    report: Mapping[str, Any], device: Device, *, hour_price: float, energy_price: float
) -> Estimate | None:
    """Reckon a pre-flight's run on other cards, as many as it is planned for.

    `report` needs "tokens" (of the whole run), "memory_on_card" and "processes"; None without.
    Prices in the currency of the settings, an hour of a card and a kWh.
    """
    memory, tokens = report.get("memory_on_card"), report.get("tokens")
    if not tokens or not memory or "problem" in memory:
        return None
    flops = FLOPS + (_FLOPS_OF_THE_BASE if report.get("method") == "dpo" else 0)
    work = flops * memory["parameters"] * tokens
    device_s = work / (device.tflops * 1e12 * UTILISATION)
    energy_wh = device.watts * device_s / 3600
    return Estimate(
        device=device,
        needed_bytes=memory["total"],
        fits=memory["total"] <= _USABLE * device.gib * GIB,
        seconds=device_s / report.get("processes", 1),
        energy_wh=energy_wh,
        cost=device_s / 3600 * hour_price + energy_wh / 1000 * energy_price,
    )


def estimates(
    report: Mapping[str, Any], *, hour_price: float, energy_price: float
) -> list[Estimate]:
    """Reckon a pre-flight's run on every card of the list, at one price."""
    found = (
        estimate(report, device, hour_price=hour_price, energy_price=energy_price)
        for device in DEVICES
    )
    return [each for each in found if each]
