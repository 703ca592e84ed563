"""From a site file's words to what a branch tolerates; and the faults in those words."""

from __future__ import annotations

import math
from itertools import pairwise

from powerd.network.curves import (
    Conductor,
    Device,
    DryTransformer,
    Fuse,
    Mcb,
    McbType,
    OilTransformer,
    TripUnit,
    UnknownBreaker,
)
from powerd.network.drawing import Cable, Findings
from powerd.network.tolerance import Overload
from powerd.site.codes import Code
from powerd.site.schema import (
    Feeder,
    Insulation,
    Protection,
    Release,
    SiteFile,
    Switch,
    SwitchKind,
    TransferSwitch,
    Transformer,
)
from powerd.site.tree import Path
from powerd.units import SQRT3

#: Keys that only a trip unit has.
_SETTINGS = ("ir_a", "tr_s", "tr_multiple", "isd_a", "tsd_s", "ii_a")
#: What opens a switch of which nothing else is said: the least tolerant thing it can be.
_USUAL = {
    SwitchKind.BREAKER: Release.UNKNOWN,
    SwitchKind.BUS_TIE: Release.UNKNOWN,
    SwitchKind.FUSE: Release.GG,
    SwitchKind.DISCONNECTOR: Release.NONE,
}


def device_of(protection: Protection, rated_a: float | None) -> Device | None:
    """The overcurrent device; None where nothing opens, or where its rating is not known.

    Args:
        protection: the file's words.
        rated_a: rating of the element it is part of [A], where ``protection`` does not name one.
    """
    rated = protection.rated_a if protection.rated_a is not None else rated_a
    if protection.release is Release.NONE or rated is None:
        return None
    match protection.release:
        case Release.B | Release.C | Release.D:
            return Mcb(type=McbType(protection.release.value), rated_a=rated)
        case Release.GG:
            return Fuse(rated_a=rated)
        case Release.TRIP_UNIT if protection.tr_s is not None:
            return TripUnit(
                ir_a=protection.ir_a if protection.ir_a is not None else rated,
                tr_s=protection.tr_s,
                tr_multiple=protection.tr_multiple,
                isd_a=protection.isd_a if protection.isd_a is not None else math.inf,
                tsd_s=protection.tsd_s,
                ii_a=protection.ii_a if protection.ii_a is not None else math.inf,
            )
        case _:
            return UnknownBreaker(rated_a=rated)


def feeder_overload(feeder: Feeder, cable: Cable | None) -> Overload:
    """A conductor with its derated ampacity, and the device at its head if there is one."""
    devices: list[Device] = []
    ampacity = feeder.ampacity_a if feeder.ampacity_a is not None else cable.ampacity_a if cable is not None else None
    if ampacity is not None:
        derated = ampacity * feeder.parallel * feeder.temperature_factor
        devices.append(Conductor(ampacity_a=derated, time_constant_s=feeder.time_constant_s))
    device = device_of(feeder.protection or Protection(), feeder.breaker_a)
    return Overload(devices=(*devices, device) if device is not None else tuple(devices))


def switch_overload(switch: Switch) -> Overload:
    """Its release; contacts that nothing opens heat like a conductor."""
    device = device_of(switch.protection or Protection(release=_USUAL[switch.kind]), switch.rated_current_a)
    return _contacts(switch.rated_current_a) if device is None else Overload(devices=(device,))


def transfer_overload(switch: TransferSwitch) -> Overload:
    """Contacts without release (IEC 60947-6-1, class PC)."""
    return _contacts(switch.rated_current_a)


def transformer_overload(transformer: Transformer, high_v: float, low_v: float) -> Overload:
    """Windings at their nameplate, without ``loading_factor``: heat and harmonics that it stands for come on top.

    Rated currents that the file states count where they are smaller.
    """
    t = transformer
    nameplate = t.rated_power_kva * 1000.0 / (SQRT3 * high_v)
    stated = [a for a in (t.rated_current_high_a, _referred(t.rated_current_low_a, low_v / high_v)) if a is not None]
    rated = min(nameplate, *stated, nameplate * t.loading_factor) * t.parallel
    device: Device = DryTransformer(rated_a=rated)
    if t.insulation is Insulation.OIL:
        device = OilTransformer(rated_a=rated, unit_kva=t.rated_power_kva)
    return Overload(devices=(device,), ratio=high_v / low_v)


def _referred(low_a: float | None, ratio: float) -> float | None:
    return None if low_a is None else low_a * ratio


def _contacts(rated_a: float | None) -> Overload:
    return Overload(devices=() if rated_a is None else (Conductor(ampacity_a=rated_a),))


def find_protection_faults(site: SiteFile, findings: Findings, clouded: frozenset[str]) -> None:
    """Overcurrent devices whose words do not make a curve; ``clouded`` elements miss nothing."""
    for index, feeder in enumerate(site.feeders):
        if feeder.protection is not None and feeder.id not in clouded:
            path: Path = ("feeders", index, "protection")
            _protection(feeder.protection, feeder.breaker_a, "breaker_a", path, feeder.id, findings)
    for index, switch in enumerate(site.switches):
        if switch.protection is not None and switch.id not in clouded:
            path = ("switches", index, "protection")
            _protection(switch.protection, switch.rated_current_a, "rated_current_a", path, switch.id, findings)


def _protection(
    protection: Protection, rated_a: float | None, key: str, path: Path, element: str, findings: Findings
) -> None:
    rated = protection.rated_a if protection.rated_a is not None else rated_a
    if rated is None and protection.release is not Release.NONE:
        mend = f"write rated_a here, or {key} at {element}"
        findings.add(Code.PROTECTION_INCOMPLETE, path, element, "nothing says its rated current", mend)
    if protection.release is not Release.TRIP_UNIT:
        for name in [name for name in _SETTINGS if name in protection.model_fields_set]:
            message = f"{name} belongs to a trip unit, this is {protection.release}"
            findings.add(Code.PROTECTION_WRONG_KEY, (*path, name), element, message, "remove it: trip_unit has it")
        return
    if protection.tr_s is None:
        mend = "write tr_s, the delay at 6 Ir that its front plate shows"
        findings.add(Code.PROTECTION_INCOMPLETE, path, element, "the trip unit has no tr_s", mend)
    steps = [("ir_a", protection.ir_a or rated), ("isd_a", protection.isd_a), ("ii_a", protection.ii_a)]
    stated = [(name, value) for name, value in steps if value is not None]
    for (low, below), (high, above) in pairwise(stated):
        if above <= below:
            message = f"{high} {above:g} A is not above {low} {below:g} A"
            mend = f"write {high} above {below:g}; settings are in ampere, not in multiples"
            findings.add(Code.PROTECTION_ORDER, (*path, high), element, message, mend)
