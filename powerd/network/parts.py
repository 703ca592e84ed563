"""One branch at a time: what a feeder, a transformer or a switch may carry, and where that number came from."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from powerd.network.drawing import Cable
from powerd.network.electrical import BranchKind
from powerd.network.protection import feeder_overload, switch_overload, transfer_overload, transformer_overload
from powerd.network.tolerance import Overload
from powerd.site.schema import Feeder, Switch, TransferSwitch, Transformer
from powerd.units import SQRT3

NAN = math.nan
#: Zero-sequence over positive-sequence impedance of a four-core cable whose fourth core is the return (IEC TR 60909-2).
ZERO_SEQUENCE_RATIO = 4.0
#: Below this a quantity of a branch is 0, in ohm/km, nF/km, kW and %; a superconductor's joint has a nano-ohm.
NEGLIGIBLE = 1e-9

_GROUP = re.compile(r"([A-Z]+)([a-z]+)(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class BranchPart:
    """One branch before it becomes a row of ``Branches`` and ``Impedances``; units and meaning as there."""

    id: str
    kind: BranchKind
    from_bus: str
    to_bus: str
    in_service: bool
    source: str
    overload: Overload
    closed: bool = True
    capacity_from_a: float = NAN
    capacity_to_a: float = NAN
    neutral_a: float = NAN
    turns_ratio: float = 1.0
    clock: int = 0
    length_km: float = 0.0
    r_ohm: float = 0.0
    x_ohm: float = 0.0
    r0_ohm: float = 0.0
    x0_ohm: float = 0.0
    c_nf: float = 0.0
    rated_kva: float = 0.0
    high_v: float = 0.0
    low_v: float = 0.0
    vk_percent: float = 0.0
    vkr_percent: float = 0.0
    iron_loss_kw: float = 0.0
    no_load_current_percent: float = 0.0
    vector_group: str = ""


def feeder_part(feeder: Feeder, cable: Cable | None, continuous_factor: float) -> BranchPart:
    """A cable: the smaller of conductor and breaker counts; r and x of the file win over the catalogue's."""
    length = feeder.length_m / 1000
    share = length / feeder.parallel
    r = _solid(_first(feeder.r_ohm_per_km, cable.r_ohm_per_km if cable else None))
    x = _solid(_first(feeder.x_ohm_per_km, cable.x_ohm_per_km if cable else None))
    capacity, why = feeder_capacity(feeder, cable, continuous_factor)
    return BranchPart(
        id=feeder.id,
        kind=BranchKind.FEEDER,
        from_bus=feeder.from_bus,
        to_bus=feeder.to_bus,
        in_service=feeder.in_service,
        source=_stated(feeder.source, why),
        overload=feeder_overload(feeder, cable),
        capacity_from_a=capacity,
        neutral_a=_first(feeder.neutral_ampacity_a, NAN) * feeder.parallel * feeder.temperature_factor,
        length_km=length,
        r_ohm=r * share,
        x_ohm=x * share,
        r0_ohm=_solid(_first(feeder.r0_ohm_per_km, ZERO_SEQUENCE_RATIO * r)) * share,
        x0_ohm=_solid(_first(feeder.x0_ohm_per_km, ZERO_SEQUENCE_RATIO * x)) * share,
        c_nf=_solid(_first(feeder.c_nf_per_km, cable.c_nf_per_km if cable else None)) * length * feeder.parallel,
    )


def feeder_capacity(feeder: Feeder, cable: Cable | None, continuous_factor: float) -> tuple[float, str]:
    """Ampere a feeder may carry for hours and the arithmetic behind it; nan where nothing limits it."""
    options: list[tuple[float, str]] = []
    ampacity = feeder.ampacity_a if feeder.ampacity_a is not None else cable.ampacity_a if cable else None
    if ampacity is not None:
        derated = ampacity * feeder.parallel * feeder.temperature_factor
        kind = f" of {feeder.cable}" if feeder.cable and feeder.ampacity_a is None else ""
        times = _times(feeder.parallel, "cables") + _times(feeder.temperature_factor, "temperature")
        options.append((derated, f"{ampacity:g} A conductor{kind}{times}"))
    if feeder.breaker_a is not None:
        factor = _first(feeder.continuous_factor, continuous_factor)
        options.append((feeder.breaker_a * factor, f"{feeder.breaker_a:g} A breaker{_times(factor, 'continuous')}"))
    return min(options) if options else (NAN, "")


def switch_part(switch: Switch, continuous_factor: float) -> BranchPart:
    """A switch, rated or not."""
    factor = _first(switch.continuous_factor, continuous_factor)
    capacity, why = _switch_capacity(switch.rated_current_a, factor)
    return BranchPart(
        id=switch.id,
        kind=BranchKind.SWITCH,
        from_bus=switch.from_bus,
        to_bus=switch.to_bus,
        in_service=switch.in_service,
        source=_stated(switch.source, why),
        overload=switch_overload(switch),
        closed=switch.closed,
        capacity_from_a=capacity,
    )


def transfer_parts(switch: TransferSwitch, continuous_factor: float) -> tuple[BranchPart, BranchPart]:
    """Both halves of a transfer switch, each towards the load bus."""
    factor = _first(switch.continuous_factor, continuous_factor)
    capacity, why = _switch_capacity(switch.rated_current_a, factor)

    def half(side: str, bus: str) -> BranchPart:
        return BranchPart(
            id=f"{switch.id}/{side}",
            kind=BranchKind.SWITCH,
            from_bus=bus,
            to_bus=switch.load_bus,
            in_service=switch.in_service,
            source=_stated(switch.source, why),
            overload=transfer_overload(switch),
            closed=switch.position == side,
            capacity_from_a=capacity,
        )

    return half("preferred", switch.preferred_bus), half("alternate", switch.alternate_bus)


def transformer_part(transformer: Transformer, volts: dict[str, float]) -> BranchPart:
    """A transformer; ``volts`` are the buses' nominal voltages [V].

    Where losses count inside the rating the no-load current is taken off the high side: in ampere, series losses show
    as voltage drop, so the no-load current is all that flows in and not out.
    """
    t = transformer
    high_v, low_v = _first(t.high_v, volts[t.high_bus]), _first(t.low_v, volts[t.low_bus])
    factor = t.parallel * t.loading_factor
    rated_high = t.rated_power_kva * 1000 / (SQRT3 * high_v)
    rated_low = t.rated_power_kva * 1000 / (SQRT3 * low_v)
    idle_share = max(t.no_load_current_percent / 100, t.iron_loss_kw / t.rated_power_kva)
    idle_a = rated_high * t.parallel * idle_share if t.losses_inside_rating else 0.0
    letters = vector_letters(t.vector_group)
    return BranchPart(
        id=t.id,
        kind=BranchKind.TRANSFORMER,
        from_bus=t.high_bus,
        to_bus=t.low_bus,
        in_service=t.in_service,
        source=_stated(t.source, _nameplate(t)),
        overload=transformer_overload(t, high_v, low_v),
        capacity_from_a=max(0.0, _first(t.rated_current_high_a, rated_high) * factor - idle_a),
        capacity_to_a=_first(t.rated_current_low_a, rated_low) * factor,
        turns_ratio=high_v * (1 + t.tap_position * t.tap_step_percent / 100) / low_v,
        clock=letters[2] % 12,
        rated_kva=t.rated_power_kva * t.parallel,
        high_v=high_v,
        low_v=low_v,
        vk_percent=t.vk_percent,
        vkr_percent=_solid(t.vkr_percent),
        iron_loss_kw=_solid(t.iron_loss_kw) * t.parallel,
        no_load_current_percent=_solid(t.no_load_current_percent),
        vector_group=letters[0] + letters[1],
    )


def vector_letters(group: str) -> tuple[str, str, int]:
    """High winding, low winding and clock number of a vector group: "Dyn11" gives ("D", "yn", 11)."""
    match = _GROUP.fullmatch(group)
    if match is None:
        raise ValueError(f"{group} is not a vector group with clock number, e.g. Dyn11")
    return match[1], match[2], int(match[3])


def _nameplate(t: Transformer) -> str:
    stated = [f"{a:g} A {side}" for a, side in ((t.rated_current_high_a, "high"), (t.rated_current_low_a, "low")) if a]
    name = f"{t.rated_power_kva:g} kVA nameplate"
    return f"{', '.join([name, *stated])}{_times(t.parallel, 'units')}{_times(t.loading_factor, 'loading')}"


def _switch_capacity(rated_a: float | None, factor: float) -> tuple[float, str]:
    if rated_a is None:
        return NAN, ""
    return rated_a * factor, f"{rated_a:g} A rated{_times(factor, 'continuous')}"


def _times(factor: float, word: str) -> str:
    return "" if factor == 1 else f" × {factor:g} {word}"


def _stated(source: str, why: str) -> str:
    """The file's own words, with the arithmetic behind them."""
    return f"{source} ({why})" if source and why else source or why


def _solid(value: float) -> float:
    """``value``, or 0 where it is too small to be meant: 1e-308 ohm underflows in a power flow."""
    return value if value >= NEGLIGIBLE else 0.0


def _first(*values: float | None) -> float:
    """The first value that is stated, else 0."""
    return next((value for value in values if value is not None), 0.0)
