"""Messages of the switchgear service to events and back, with every check that needs no snapshot."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from powerd.control import switch_events as sw
from powerd.errors import BadRequest, UnknownName
from powerd.limits import Ints
from powerd.network.electrical import Electrical
from powerd.server import checks
from powerd.server.convert import check_stamp
from powerd.server.stamps import Told
from powerd.state.switchgear import Flag, Position
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import switchgear_service_pb2 as pb

ENTRIES_MAX = 1000
"""Most switches or outages of one message."""
_POSITIONS = {
    pb.POSITION_OPEN: Position.OPEN,
    pb.POSITION_CLOSED: Position.CLOSED,
    pb.POSITION_UNKNOWN: Position.UNKNOWN,
}
_QUALITIES = (pb.QUALITY_UNSPECIFIED, pb.QUALITY_GOOD, pb.QUALITY_QUESTIONABLE)
_ON_THE_WIRE = {own: wire for wire, own in _POSITIONS.items()}
_FLAGS = (
    ("protection_trip", Flag.PROTECTION),
    ("lock_out", Flag.LOCK_OUT),
    ("upstream_voltage_lost", Flag.UPSTREAM_LOST),
    ("tagged_out", Flag.TAGGED),
    ("earthed", Flag.EARTHED),
    ("local", Flag.LOCAL),
    ("sync_permitted", Flag.SYNC),
)


@dataclass(frozen=True, kw_only=True)
class GearNames:
    """Ids of switches and elements to indices."""

    switch: dict[str, int]
    """Switch id -> branch."""
    branch: dict[str, int]
    """Branch id -> branch."""
    supply: dict[str, int]
    """Supply id -> supply."""
    bus: dict[str, int]
    """Bus id -> bus."""
    branch_ids: tuple[str, ...]
    """Branch -> id."""

    @staticmethod
    def of(electrical: Electrical) -> GearNames:
        """The names of a site."""
        branch = {name: e for e, name in enumerate(electrical.branches.ids)}
        return GearNames(
            switch={name: e for name, e in branch.items() if electrical.branches.switchable[e]},
            branch=branch,
            supply={name: s for s, name in enumerate(electrical.supplies.ids)},
            bus={name: b for b, name in enumerate(electrical.buses.ids)},
            branch_ids=electrical.branches.ids,
        )

    def find_switch(self, field: str, name: str) -> int:
        """Branch index of the switch that ``field`` names.

        Raises:
            UnknownName: there is none of that id.
        """
        if name not in self.switch:
            raise UnknownName(f"{field}: no switch {name[:99]!r} at this site; ListSwitches lists them")
        return self.switch[name]

    def find(self, field: str, name: str) -> tuple[sw.ElementKind, tuple[int, ...]]:
        """Kind and indices of the element that ``field`` names; a transfer switch is both of its halves.

        Raises:
            UnknownName: there is none of that id.
        """
        halves = tuple(
            self.branch[f"{name}/{side}"] for side in ("preferred", "alternate") if f"{name}/{side}" in self.branch
        )
        if name in self.branch or halves:
            return sw.ElementKind.BRANCH, halves or (self.branch[name],)
        if name in self.supply:
            return sw.ElementKind.SUPPLY, (self.supply[name],)
        if name in self.bus:
            return sw.ElementKind.BUS, (self.bus[name],)
        raise UnknownName(f"{field}: no element {name[:99]!r} at this site; give an id of the site file")


def reporter_number(field: str, reporter_id: str) -> int:
    """The same number for the same reporter, also after a restart; never 0."""
    return zlib.crc32(checks.text(field, reporter_id).encode()) + 1


def seen_events(
    names: GearNames,
    reporter_id: str,
    stamp: pb_common.Stamp,
    switches: Sequence[pb.SwitchReport],
    outages: Sequence[pb.OutageReport],
    *,
    at: str = "",
) -> list[sw.SwitchEvent]:
    """The events of a report; ``at`` leads to its fields in the message, as "hello.".

    Raises:
        BadRequest: something in it is wrong.
        UnknownName: it names what is not there.
    """
    check_stamp(f"{at}stamp", stamp)
    reporter = reporter_number(f"{at}reporter_id", reporter_id)
    for field, entries in ((f"{at}switches", switches), (f"{at}outages", outages)):
        if len(entries) > ENTRIES_MAX:
            raise BadRequest(field, f"at most {ENTRIES_MAX} entries, got {len(entries)}")
    events: list[sw.SwitchEvent] = []
    for k, one in enumerate(outages):
        kind, index = _lost_element(names, f"{at}outages[{k}].element", one.element)
        events.append(
            sw.OutageSeen(
                reporter=reporter,
                reporter_id=reporter_id,
                incarnation=stamp.incarnation,
                clock_s=stamp.boottime_s,
                kind=kind,
                index=index,
                lost=one.lost,
                flags=flags_of(one),
            )
        )
    if switches:
        branch = _branches(names, f"{at}switches", switches)
        events.append(
            sw.SwitchesSeen(
                reporter=reporter,
                reporter_id=reporter_id,
                incarnation=stamp.incarnation,
                clock_s=stamp.boottime_s,
                branch=branch,
                position=np.array([_position(f"{at}switches[{k}]", one) for k, one in enumerate(switches)], np.int64),
                flags=np.array([flags_of(one) for one in switches], np.int64),
            )
        )
    return events


def told_of(events: Sequence[sw.SwitchEvent]) -> list[Told]:
    """What the events of a report tell of."""
    found: list[Told] = []
    for event in events:
        match event:
            case sw.OutageSeen(kind=kind, index=index):
                found.append((kind, index))
            case sw.SwitchesSeen(branch=branch):
                found += [(sw.ElementKind.BRANCH, e) for e in branch.tolist()]
    return found


def _branches(names: GearNames, field: str, switches: Sequence[pb.SwitchReport]) -> Ints:
    """(k,) the switches of a report; twice the same one would say two things at once."""
    found: list[int] = []
    for k, one in enumerate(switches):
        branch = names.find_switch(f"{field}[{k}].switch_id", one.switch_id)
        if branch in found:
            raise BadRequest(f"{field}[{k}].switch_id", f"each switch at most once, got {one.switch_id} again")
        found.append(branch)
    return np.array(found, np.int64)


def _position(field: str, report: pb.SwitchReport) -> int:
    """``Position`` as far as it can be trusted."""
    if report.position not in _POSITIONS:
        raise BadRequest(f"{field}.position", "open, closed or unknown")
    if report.quality not in _QUALITIES:
        raise BadRequest(f"{field}.quality", "good or questionable")
    if report.quality == pb.QUALITY_QUESTIONABLE:
        return int(Position.UNKNOWN)
    return int(_POSITIONS[report.position])


def flags_of(report: pb.SwitchReport | pb.OutageReport) -> int:
    """``Flag`` bits."""
    found = Flag(0)
    for name, flag in _FLAGS:
        if getattr(report, name, False):
            found |= flag
    return int(found)


def _lost_element(names: GearNames, field: str, name: str) -> tuple[sw.ElementKind, int]:
    """Kind and index of an element that has no contact of its own."""
    kind, indices = names.find(field, name)
    if name in names.switch or len(indices) > 1:
        raise BadRequest(field, "a supply, a bus or a branch that is no switch; switches have positions")
    return kind, indices[0]


def wanted_position(field: str, position: int) -> bool:
    """True = close.

    Raises:
        BadRequest: neither open nor closed.
    """
    if position not in (pb.POSITION_OPEN, pb.POSITION_CLOSED):
        raise BadRequest(field, "open or closed")
    return position == pb.POSITION_CLOSED


def on_the_wire(position: int) -> pb.Position.ValueType:
    """A position of the snapshot."""
    return _ON_THE_WIRE[Position(position)]


def report_of(name: str, position: int, flags: int) -> pb.SwitchReport:
    """The newest flags of a switch, as they were reported."""
    report = pb.SwitchReport(switch_id=name, position=on_the_wire(position))
    for field, flag in _FLAGS:
        setattr(report, field, bool(flags & int(flag)))
    return report
