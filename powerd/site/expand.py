"""The compact forms written out: station groups, pilot steps, connections dealt out in turn."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from powerd.site.schema import Connection, EvseType, SiteFile, Station, StationGroup
from powerd.site.tree import Path

#: EVSEs one daemon takes: twice the largest site that the budgets name (100 000 over 200 streams).
MAX_EVSES = 200_000

_COUNTER = re.compile(r"\{n(?::(0?)([1-9]))?\}")


@dataclass(frozen=True, slots=True)
class DrawnEvse:
    """One EVSE, whichever way it was written."""

    id: str
    type: str
    connection: Connection | None
    """None = not stated."""
    rotation: str
    bus: str
    controller: str
    in_service: bool
    path: Path
    """Where in the file: ("stations", 3, "evses", 0) or ("station_groups", 1)."""


def evse_total(site: SiteFile) -> int:
    """How many EVSEs ``expand`` would yield."""
    return sum(len(s.evses) for s in site.stations) + sum(g.count * g.evses_per_station for g in site.station_groups)


def expand(site: SiteFile) -> Iterator[DrawnEvse]:
    """Every EVSE of the site, in the order of the file: stations first, then groups."""
    for index, station in enumerate(site.stations):
        yield from _listed(station, index)
    for index, group in enumerate(site.station_groups):
        yield from _dealt(group, index)


def _listed(station: Station, index: int) -> Iterator[DrawnEvse]:
    for position, evse in enumerate(station.evses):
        yield DrawnEvse(
            evse.id,
            evse.type,
            evse.connection,
            evse.rotation,
            station.bus,
            station.controller,
            station.in_service,
            ("stations", index, "evses", position),
        )


def _dealt(group: StationGroup, index: int) -> Iterator[DrawnEvse]:
    """Connections and rotations are dealt out EVSE by EVSE."""
    turn = 0
    for n in range(group.first, group.first + group.count):
        station = counted(group.id, n)
        for outlet in range(1, group.evses_per_station + 1):
            yield DrawnEvse(
                station if group.evses_per_station == 1 else f"{station}-{outlet}",
                group.type,
                group.connections[turn % len(group.connections)] if group.connections else None,
                group.rotations[turn % len(group.rotations)] if group.rotations else "l123",
                group.bus,
                group.controller,
                True,
                ("station_groups", index),
            )
            turn += 1


def counted(pattern: str, n: int) -> str:
    """``pattern`` with its counter replaced: "P{n:03}" and 7 give "P007"; only {n}, {n:3} and {n:03} are understood."""

    def number(match: re.Match[str]) -> str:
        width = int(match[2] or 0)
        return str(n).zfill(width) if match[1] else str(n).rjust(width, "0")

    return _COUNTER.sub(number, pattern)


def pilot_steps(kind: EvseType) -> tuple[float, ...]:
    """Ceilings an AC post can take, ascending from 0 [A]; empty = continuous above the minimum, and for DC."""
    if kind.current == "dc" or kind.max_current_a is None:
        return ()
    if kind.pilot_steps_a is not None:
        return tuple(sorted({0.0, *kind.pilot_steps_a}))
    if kind.pilot_step_a is None:
        return ()
    # The last step may miss the rating by rounding alone: 6 + 260 x 0.1 is 32.000000000000004.
    count = min(math.floor((kind.max_current_a - kind.min_current_a) / kind.pilot_step_a + 1e-9), 10_000)
    steps = (min(kind.min_current_a + k * kind.pilot_step_a, kind.max_current_a) for k in range(count + 1))
    return tuple(sorted({0.0, *steps}))
