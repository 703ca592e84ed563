"""Faults of what charges: EVSE types, how EVSEs hang on their bus, what controllers promise."""

from __future__ import annotations

from powerd.faults import Severity
from powerd.network.drawing import Drawing, Findings
from powerd.site.codes import Code
from powerd.site.schema import Connection, ControllerClass, EvseType, SiteFile
from powerd.site.tree import Path

#: Above these a post's rating is in another unit: the largest connector takes 3 000 A and 3.75 MW (MCS).
MAX_POST_A = 1000.0
MAX_POST_KW = 5000.0

_FITTING = {
    "1": ("l1", "l2", "l3", "unknown_1p"),
    "line_to_line": ("l12", "l23", "l31"),
    "3": ("l123",),
}
_THREE_PHASE_KEYS = ("detects_phases", "switches_phases")
_AC_KEYS = ("min_current_a", "max_current_a", "pilot_steps_a", "pilot_step_a", "ramp_a_per_s", *_THREE_PHASE_KEYS)
_AC_KEYS_WITH_TWIN = ("fallback_a", "fallback_idle_a", "boot_current_a")
_DC_KEYS = ("max_power_kw", "min_power_kw", "efficiency", "auxiliary_kw", "ramp_kw_per_s")
_DC_KEYS_WITH_TWIN = ("fallback_kw", "fallback_idle_kw", "boot_power_kw")


def find_charging_faults(drawing: Drawing, findings: Findings, clouded: frozenset[str]) -> None:
    """Faults of types, connections and classes; ``clouded`` elements have faults of shape: nothing is missing there."""
    site = drawing.site
    for index, kind in enumerate(site.evse_types):
        _kind(kind, ("evse_types", index), findings, clouded)
    for index, kind_class in enumerate(site.controller_classes):
        _class(kind_class, ("controller_classes", index), findings, clouded)
    _connections(site, findings, clouded)
    if not clouded:
        _controllers(site, findings)


def _kind(kind: EvseType, path: Path, findings: Findings, clouded: frozenset[str]) -> None:
    dc = kind.current == "dc"
    wrong = (*_AC_KEYS, *_AC_KEYS_WITH_TWIN) if dc else (*_DC_KEYS, *_DC_KEYS_WITH_TWIN)
    for key in [key for key in wrong if key in kind.model_fields_set]:
        message = f"{key} belongs to {'AC' if dc else 'DC'} posts, this one is {kind.current.upper()}"
        mend = "remove it, or write " + ("current: ac" if dc else "current: dc")
        findings.add(Code.WRONG_CURRENT_KIND, (*path, key), kind.id, message, mend)
    rating_key, unit = ("max_power_kw", "kW") if dc else ("max_current_a", "A")
    rating = kind.max_power_kw if dc else kind.max_current_a
    if rating is None:
        if kind.id not in clouded:
            message = f"{rating_key} is missing"
            findings.add(Code.MISSING_POST_RATING, path, kind.id, message, f"add {rating_key}, its rating [{unit}]")
        return
    _three_phase(kind, path, findings)
    _rating_slip(kind, rating, (*path, rating_key), findings)
    _bounds(kind, rating, path, findings)


def _three_phase(kind: EvseType, path: Path, findings: Findings) -> None:
    """What only a three-phase post can do; one that switches phases must not charge without being told to."""
    for key in _THREE_PHASE_KEYS:
        if getattr(kind, key) and kind.current == "ac" and kind.phases != "3":
            message, mend = f"{key} on a post with phases: {kind.phases}", "remove it, or write phases: 3"
            findings.add(Code.NOT_THREE_PHASE, (*path, key), kind.id, message, mend)
    for key in _AC_KEYS_WITH_TWIN:
        if kind.switches_phases and getattr(kind, key) > 0:
            message = f"switches_phases with {key} {getattr(kind, key):g} A: its contactor would move under current"
            mend = f"write {key}: 0, or remove switches_phases"
            findings.add(Code.SWITCHES_UNDER_CURRENT, (*path, key), kind.id, message, mend)


def _rating_slip(kind: EvseType, rating: float, path: Path, findings: Findings) -> None:
    dc = kind.current == "dc"
    if 1.0 <= rating <= (MAX_POST_KW if dc else MAX_POST_A):
        return
    code, unit = (Code.UNIT_SLIP_POWER, "kW") if dc else (Code.UNIT_SLIP_CURRENT, "A")
    meant = rating * 1000 if rating < 1 else rating / 1000
    mend = f"write it in {unit}: {meant:g} if the unit slipped by a factor of 1000"
    findings.add(code, path, kind.id, f"{path[-1]} is {rating:g} {unit}", mend)


def _bounds(kind: EvseType, rating: float, path: Path, findings: Findings) -> None:
    """Minimum <= steps, fallbacks, boot current <= rating."""
    dc = kind.current == "dc"
    unit, low_key = ("kW", "min_power_kw") if dc else ("A", "min_current_a")
    low = kind.min_power_kw if dc else kind.min_current_a
    if low > rating:
        message = f"{low_key} {low:g} {unit} is above the rating of {rating:g} {unit}"
        mend = f"write {low_key}: {rating:g} or less"
        findings.add(Code.MINIMUM_ABOVE_MAXIMUM, (*path, low_key), kind.id, message, mend)
        return
    for index, step in enumerate(kind.pilot_steps_a or ()):
        place = (*path, "pilot_steps_a", index)
        if 0 < step < low:
            message = f"pilot step {step:g} A is below the minimum of {low:g} A"
            mend = "remove it: a car cannot charge with it (IEC 61851-1), or lower min_current_a"
            findings.add(Code.PILOT_STEP_BELOW_MINIMUM, place, kind.id, message, mend)
        if step > rating:
            message = f"pilot step {step:g} A is above the rating of {rating:g} A"
            findings.add(Code.PILOT_STEP_ABOVE_MAXIMUM, place, kind.id, message, "remove it, or raise max_current_a")
    twins = zip(_AC_KEYS_WITH_TWIN, _DC_KEYS_WITH_TWIN, strict=True)
    for key in [dc_key if dc else ac_key for ac_key, dc_key in twins]:
        _fallback(kind, key, low, rating, unit, (*path, key), findings)


def _fallback(kind: EvseType, key: str, low: float, rating: float, unit: str, path: Path, findings: Findings) -> None:
    value: float = getattr(kind, key)
    if 0 < value < low and not key.startswith("boot"):
        message = f"{key} {value:g} {unit} is between 0 and the minimum of {low:g} {unit}"
        findings.add(Code.FALLBACK_BELOW_MINIMUM, path, kind.id, message, f"write 0, or {low:g} or more")
    if value > rating:
        message = f"{key} {value:g} {unit} is above the rating of {rating:g} {unit}"
        findings.add(Code.FALLBACK_ABOVE_RATING, path, kind.id, message, f"write {rating:g} or less")


def _connections(site: SiteFile, findings: Findings, clouded: frozenset[str]) -> None:
    types = {kind.id: kind for kind in site.evse_types if kind.id not in clouded}
    for index, station in enumerate(site.stations):
        for position, evse in enumerate(station.evses):
            stated = () if evse.connection is None else (evse.connection,)
            if evse.type in types and evse.id not in clouded:
                place: Path = ("stations", index, "evses", position)
                _fits(types[evse.type], stated, place, "connection", evse.id, findings)
    for index, group in enumerate(site.station_groups):
        if group.type in types and group.id not in clouded:
            place = ("station_groups", index)
            _fits(types[group.type], tuple(group.connections), place, "connections", group.id, findings)


def _fits(
    kind: EvseType, stated: tuple[Connection, ...], path: Path, key: str, element: str, findings: Findings
) -> None:
    phases = "3" if kind.current == "dc" else kind.phases
    fitting = _FITTING[phases]
    if not stated and phases != "3":
        message = f"type {kind.id} has phases {phases}, but {key} does not say which of the bus"
        mend = f"add {key}: {fitting[0]}" if key == "connection" else f"add {key}: [{', '.join(fitting[:3])}]"
        findings.add(Code.MISSING_CONNECTION, path, element, message, mend)
    for wrong in [connection for connection in dict.fromkeys(stated) if connection.value not in fitting]:
        message = f"connection {wrong.value} does not fit type {kind.id} with phases {phases}"
        findings.add(Code.WRONG_CONNECTION, (*path, key), element, message, f"write one of {', '.join(fitting)}")


def _controllers(site: SiteFile, findings: Findings) -> None:
    """Those that no station names, where all names are known and there is an EVSE at all: else that is said."""
    named = {own.controller for own in site.stations} | {own.controller for own in site.station_groups}
    if not named or not named <= {controller.id for controller in site.controllers}:
        return
    for index, controller in enumerate(site.controllers):
        if controller.id not in named:
            message = "no station or station group names it as its controller, so it has no EVSE"
            mend = f"write controller: {controller.id} at the stations that it runs, or remove it"
            path = ("controllers", index)
            findings.add(Code.CONTROLLER_WITHOUT_EVSE, path, controller.id, message, mend, Severity.WARNING)


def _class(kind: ControllerClass, path: Path, findings: Findings, clouded: frozenset[str]) -> None:
    if kind.ttl_s < kind.reaction_s:
        message = f"ttl_s {kind.ttl_s:g} is shorter than reaction_s {kind.reaction_s:g}"
        mend = f"write ttl_s: {3 * kind.reaction_s:g}; a car follows in reaction_s"
        findings.add(Code.TTL_SHORTER_THAN_REACTION, (*path, "ttl_s"), kind.id, message, mend)
    if kind.watchdog_s is None and kind.id not in clouded:
        message = "no watchdog_s: its EVSEs keep their last ceiling for ever, so each counts at its rating"
        mend = "add watchdog_s, the seconds after which the EVSE falls back on its own; 0 = it enforces the validity"
        findings.add(Code.NO_WATCHDOG, path, kind.id, message, mend, Severity.WARNING)
