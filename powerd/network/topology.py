"""Faults of the drawing as a whole: what no supply reaches, what is dead or doubly fed in the normal state.

Works on ids, not on columns, so that it can speak about a drawing that other faults keep from being compiled. A bus
that a faulty element names counts as fed: one slip of the pen shall not make an island of everything behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from powerd.faults import Severity
from powerd.network.drawing import Drawing, Findings
from powerd.site.codes import Code
from powerd.site.schema import SiteFile, Supply
from powerd.site.tree import Path

#: Every group of buses that a supply feeds hangs on this node.
_SOURCE = "\0"
#: Faults that leave something of an imported net out: what it fed cannot be told.
_NET_GAPS = (Code.NET_BAD_VALUE, Code.NET_THREE_WINDING, Code.NET_UNSUPPORTED)


@dataclass(frozen=True, slots=True)
class _Edge:
    """A branch between two buses, as far as connection goes."""

    id: str
    path: Path
    one: str
    other: str
    closed: bool


@dataclass
class _Groups:
    """Disjoint sets of buses (union-find with path halving)."""

    above: dict[str, str] = field(default_factory=dict)

    def find(self, bus: str) -> str:
        self.above.setdefault(bus, bus)
        while self.above[bus] != bus:
            self.above[bus] = self.above[self.above[bus]]
            bus = self.above[bus]
        return bus

    def join(self, one: str, other: str) -> bool:
        """Join two groups; False where they already were one."""
        a, b = self.find(one), self.find(other)
        self.above[a] = b
        return a != b


def find_topology_faults(drawing: Drawing, findings: Findings) -> None:
    """No supply, no EVSE, islands, dead EVSEs, supplies in parallel, loops, broken interlocks."""
    site = drawing.site
    supplies = [supply for supply in site.supplies if supply.in_service]
    if not supplies and drawing.removed.whole and drawing.net_is_read:
        mend = "add a supply, and the bus it feeds, under supplies:"
        findings.add(Code.NO_SUPPLY, ("supplies",), site.site, "nothing feeds the site", mend)
    if not any(evse.in_service for evse in drawing.evses) and drawing.removed.whole and not _told(findings):
        mend = "add stations or station_groups"
        findings.add(Code.NO_EVSE, ("stations",), site.site, "there is no EVSE in service", mend)
    edges = list(_edges(site))
    doubtful = _doubtful(drawing, findings)
    lost = _islands(drawing, edges, doubtful, findings) if supplies else set()
    if supplies:
        _dead(drawing, edges, doubtful, lost, findings)
    _double_feeds(drawing, edges, findings)
    _interlocks(site, findings)


def _told(findings: Findings) -> bool:
    return any(fault.code == Code.TOO_MANY_EVSES for fault in findings.faults)


def _edges(site: SiteFile) -> Iterator[_Edge]:
    """Branches in service; a transfer switch is two."""
    for index, t in enumerate(site.transformers):
        if t.in_service:
            yield _Edge(t.id, ("transformers", index), t.high_bus, t.low_bus, closed=True)
    for index, f in enumerate(site.feeders):
        if f.in_service:
            yield _Edge(f.id, ("feeders", index), f.from_bus, f.to_bus, closed=True)
    for index, s in enumerate(site.switches):
        if s.in_service:
            yield _Edge(s.id, ("switches", index), s.from_bus, s.to_bus, closed=s.closed)
    for index, x in enumerate(site.transfer_switches):
        for side, bus in (("preferred", x.preferred_bus), ("alternate", x.alternate_bus)):
            if x.in_service:
                path = ("transfer_switches", index)
                yield _Edge(f"{x.id}/{side}", path, bus, x.load_bus, closed=x.position == side)


def _doubtful(drawing: Drawing, findings: Findings) -> set[str]:
    """Buses named by something that could not be understood, and both ends of branches with a wrong end."""
    known = {bus.id for bus in drawing.site.buses}
    doubtful = {*drawing.removed.words, *drawing.removed.ids}
    if not drawing.net_is_read or any(fault.code in _NET_GAPS for fault in findings.faults):
        return known
    for edge in _edges(drawing.site):
        if edge.one not in known or edge.other not in known or edge.one == edge.other:
            doubtful |= {edge.one, edge.other}
    doubtful |= {fault.element for fault in findings.faults if fault.code in (Code.UNKNOWN_NET_BUS, Code.NET_BUS_TWICE)}
    wrong = {fault.element for fault in findings.faults if fault.code == Code.UNKNOWN_BUS}
    if any(supply.id in wrong for supply in drawing.site.supplies):
        doubtful |= known  # the supply may feed any of them
    return doubtful


def _joined(site: SiteFile, edges: list[_Edge], doubtful: set[str], *, normal: bool) -> _Groups:
    """Groups of connected buses; in the normal state, or with every switch closed and every supply on."""
    groups = _Groups()
    dead = {bus.id for bus in site.buses if not bus.in_service}
    for supply in site.supplies:
        if supply.in_service and (supply.normally_feeding or not normal) and supply.bus not in dead:
            groups.join(supply.bus, _SOURCE)
    for bus in sorted(doubtful):
        groups.join(bus, _SOURCE)
    for edge in edges:
        if (edge.closed or not normal) and edge.one not in dead and edge.other not in dead:
            groups.join(edge.one, edge.other)
    return groups


def _islands(drawing: Drawing, edges: list[_Edge], doubtful: set[str], findings: Findings) -> set[str]:
    """One fault for each island; a warning where nothing of the user's is on it.

    Returns:
        The buses on islands.
    """
    site, own = drawing.site, drawing.own.get("buses", len(drawing.site.buses))
    groups = _joined(site, edges, doubtful, normal=False)
    live = groups.find(_SOURCE)
    islands: dict[str, list[int]] = {}
    for index, bus in enumerate(site.buses):
        if bus.in_service and groups.find(bus.id) != live:
            islands.setdefault(groups.find(bus.id), []).append(index)
    for members in islands.values():
        names = [site.buses[index].id for index in members if site.buses[index].id not in drawing.auxiliary_buses]
        count = f" (and {len(names) - 1} more behind it)" if len(names) > 1 else ""
        severity = Severity.ERROR if members[0] < own else Severity.WARNING
        findings.add(
            Code.ISLAND,
            ("buses", members[0]),
            site.buses[members[0]].id,
            f"no supply can reach it, whatever is closed{count}",
            "add the feeder, switch or transformer that feeds it, or write in_service: false",
            severity,
        )
    return {site.buses[index].id for members in islands.values() for index in members}


def _dead(drawing: Drawing, edges: list[_Edge], doubtful: set[str], lost: set[str], findings: Findings) -> None:
    """EVSEs on buses without voltage in the normal state; those on islands are told already."""
    site = drawing.site
    groups = _joined(site, edges, doubtful, normal=True)
    live = groups.find(_SOURCE)
    off = {bus.id for bus in site.buses if not bus.in_service}
    known = {bus.id for bus in site.buses}
    told: set[Path] = set()
    for evse in drawing.evses:
        place = evse.path[:2]
        if not evse.in_service or evse.bus in lost or evse.bus not in known or place in told:
            continue
        if evse.bus in off or groups.find(evse.bus) != live:
            told.add(place)
            message = f"its bus {evse.bus} is not energised in the normal switching state"
            mend = f"close a switch towards {evse.bus}, or hang it on a bus that is fed"
            findings.add(Code.DEAD_EVSE, (*place, "bus"), evse.id, message, mend)


def _double_feeds(drawing: Drawing, edges: list[_Edge], findings: Findings) -> None:
    """Loops and supplies in parallel, both in the normal state."""
    site = drawing.site
    dead = {bus.id for bus in site.buses if not bus.in_service}
    groups, joined = _Groups(), list[_Edge]()
    for edge in edges:
        if not edge.closed or edge.one in dead or edge.other in dead or edge.one == edge.other:
            continue
        if not groups.join(edge.one, edge.other):
            ring = [edge, *_way(edge.one, edge.other, joined)]
            message = f"closes a ring between {edge.one} and {edge.other}: {', '.join(one.id for one in ring)}"
            opening = _opening(ring) or "put an open switch into it (one feeder of two cables is parallel: 2)"
            mend = f"{opening}; as drawn, each branch of it counts all that hangs on the ring"
            findings.add(Code.CLOSED_LOOP, edge.path, edge.id, message, mend, Severity.WARNING)
        else:
            joined.append(edge)
    fed: dict[str, Supply] = {}
    for index, supply in enumerate(site.supplies):
        if not (supply.in_service and supply.normally_feeding) or supply.bus in dead:
            continue
        first = fed.setdefault(groups.find(supply.bus), supply)
        if first is not supply and not site.permissions.parallel_supplies:
            way = _way(first.bus, supply.bus, joined)
            by = f"by {', '.join(edge.id for edge in way)}" if way else f"at bus {supply.bus}"
            message = f"is connected with supply {first.id} {by}"
            opening = _opening(way) or "put an open switch between them"
            standby = f"normally_feeding: false at {supply.id} if it stands by"
            mend = f"{opening}; or {standby}; or parallel_supplies: true under permissions:, if both may feed at once"
            findings.add(Code.PARALLEL_SUPPLIES, ("supplies", index), supply.id, message, mend)


def _way(one: str, other: str, edges: list[_Edge]) -> list[_Edge]:
    """The edges from bus to bus, of a forest; empty where they are one bus."""
    beside: dict[str, list[tuple[str, _Edge]]] = {}
    for edge in edges:
        beside.setdefault(edge.one, []).append((edge.other, edge))
        beside.setdefault(edge.other, []).append((edge.one, edge))
    back: dict[str, tuple[str, _Edge] | None] = {one: None}
    ahead = [one]
    for bus in ahead:
        for end, edge in beside.get(bus, ()):
            if end not in back:
                back[end] = bus, edge
                ahead.append(end)
    way: list[_Edge] = []
    while (step := back.get(other)) is not None:
        other = step[0]
        way.append(step[1])
    return way[::-1]


def _opening(way: list[_Edge]) -> str:
    """How one of these edges is drawn open; "" where none is a switch."""
    switches = [edge.id for edge in way if edge.path[0] == "switches"]
    transfers = [edge.id for edge in way if edge.path[0] == "transfer_switches"]
    found = [f"closed: false at {' or '.join(switches)}"] if switches else []
    found += [f"another position at {' or '.join(transfers)}"] if transfers else []
    return f"write {', or '.join(found)}" if found else ""


def _interlocks(site: SiteFile, findings: Findings) -> None:
    closed = {edge.id for edge in _edges(site) if edge.closed}
    for index, lock in enumerate(site.interlocks):
        shut = [name for name in dict.fromkeys(lock.switches) if name in closed]
        if len(shut) > lock.at_most_closed:
            message = f"{', '.join(shut)} are closed in the normal state, at most {lock.at_most_closed} may be"
            mend = f"write closed: false at {shut[-1]}"
            findings.add(Code.INTERLOCK_BROKEN, ("interlocks", index), f"interlocks.{index}", message, mend)
