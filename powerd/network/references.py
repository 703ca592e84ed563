"""What refers to what: ids that occur twice, and ids that nothing has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from powerd.network.drawing import Drawing, Findings
from powerd.site.codes import Code
from powerd.site.schema import SiteFile
from powerd.site.tree import Path

#: Lists whose elements share one name space: whatever an order, a meter or an explanation may name.
_DRAWN = ("buses", "supplies", "transformers", "feeders", "switches", "transfer_switches", "meters", "loads")
_NAMED_APART = ("controller_classes", "controllers", "evse_types")

#: Which fields of which lists name a bus.
_BUS_FIELDS = {
    "supplies": ("bus",),
    "transformers": ("high_bus", "low_bus"),
    "feeders": ("from_bus", "to_bus"),
    "switches": ("from_bus", "to_bus"),
    "transfer_switches": ("preferred_bus", "alternate_bus", "load_bus"),
    "loads": ("bus",),
    "stations": ("bus",),
    "station_groups": ("bus",),
}


def find_reference_faults(drawing: Drawing, findings: Findings) -> None:
    """Duplicate ids and unknown buses, types, classes, controllers, meters, elements and switches."""
    _duplicates(drawing, findings)
    site = drawing.site
    seek = _Seeker(drawing, findings)
    buses = {bus.id for bus in site.buses} - drawing.auxiliary_buses
    for section, fields in _BUS_FIELDS.items():
        for index, element in enumerate(getattr(site, section)):
            for field in fields:
                if getattr(element, field) not in drawing.auxiliary_buses:
                    seek(Code.UNKNOWN_BUS, "bus", buses, getattr(element, field), (section, index, field), element.id)
    _charging_references(site, seek)
    meters = {meter.id for meter in site.meters}
    for index, load in enumerate(site.loads):
        if load.meter is not None:
            seek(Code.UNKNOWN_METER, "meter", meters, load.meter, ("loads", index, "meter"), load.id)
    measurable = set(_ids(site, "supplies", "transformers", "feeders", "switches", "transfer_switches", "buses"))
    for index, meter in enumerate(site.meters):
        path = ("meters", index, "at")
        seek(Code.METER_UNKNOWN_ELEMENT, "element", measurable, meter.at, path, meter.id)
    switches = set(_ids(site, "switches")) | {f"{t.id}/{s}" for t in site.transfer_switches for s in _SIDES}
    for index, lock in enumerate(site.interlocks):
        for position, switch in enumerate(lock.switches):
            place = ("interlocks", index, "switches", position)
            seek(Code.INTERLOCK_UNKNOWN_SWITCH, "switch", switches, switch, place, f"interlocks.{index}")


_SIDES = ("preferred", "alternate")


class _Seeker:
    """Looks names up; what was taken out of the file because of its own faults counts as known."""

    def __init__(self, drawing: Drawing, findings: Findings) -> None:
        self._removed = drawing.removed.ids
        self._blind = not drawing.net_is_read
        self._findings = findings

    def __call__(self, code: Code, noun: str, known: set[str], name: str, path: Path, element: str) -> None:
        if name in known or name in self._removed or (self._blind and ":" in name):
            return
        near = difflib.get_close_matches(name, sorted(known)[:2000], n=1)
        mend = f"write {near[0]}, or add {name}" if near else f"add {noun} {name}, or name one that is there"
        self._findings.add(code, path, element, f"there is no {noun} {name}", mend)


def _charging_references(site: SiteFile, seek: _Seeker) -> None:
    types = {kind.id for kind in site.evse_types}
    controllers = {controller.id for controller in site.controllers}
    classes = {kind.id for kind in site.controller_classes}
    for index, controller in enumerate(site.controllers):
        path: Path = ("controllers", index, "class")
        seek(Code.UNKNOWN_CLASS, "controller class", classes, controller.class_, path, controller.id)
    for index, station in enumerate(site.stations):
        path = ("stations", index, "controller")
        seek(Code.UNKNOWN_CONTROLLER, "controller", controllers, station.controller, path, station.id)
        for position, evse in enumerate(station.evses):
            path = ("stations", index, "evses", position, "type")
            seek(Code.UNKNOWN_TYPE, "EVSE type", types, evse.type, path, evse.id)
    for index, group in enumerate(site.station_groups):
        path = ("station_groups", index, "controller")
        seek(Code.UNKNOWN_CONTROLLER, "controller", controllers, group.controller, path, group.id)
        seek(Code.UNKNOWN_TYPE, "EVSE type", types, group.type, ("station_groups", index, "type"), group.id)


def _ids(site: SiteFile, *sections: str) -> Iterator[str]:
    for section in sections:
        for element in getattr(site, section):
            yield element.id


def _duplicates(drawing: Drawing, findings: Findings) -> None:
    site = drawing.site
    drawn = ((element.id, (section, i)) for section in _DRAWN for i, element in enumerate(getattr(site, section)))
    _twice(drawn, findings, "another element")
    for section in _NAMED_APART:
        _twice(((e.id, (section, i)) for i, e in enumerate(getattr(site, section))), findings, "another")
    _twice(((s.id, ("stations", i)) for i, s in enumerate(site.stations)), findings, "another station")
    _twice(((evse.id, evse.path) for evse in drawing.evses), findings, "another EVSE")


def _twice(named: Iterable[tuple[str, Path]], findings: Findings, other: str) -> None:
    """One fault for each place that repeats an id of a place before it."""
    seen: dict[str, Path] = {}
    told: set[Path] = set()  # a whole group that repeats another is one fault, not one for each EVSE
    for name, path in named:
        if name not in seen:
            seen[name] = path
            continue
        if path in told:
            continue
        told.add(path)
        message = f"{other} in line {findings.place.at(*seen[name])} is called {name}"
        findings.add(Code.DUPLICATE_ID, (*path, "id"), name, message, "rename one of them")
