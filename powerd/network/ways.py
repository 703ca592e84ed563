"""Which switches one cause may move together by themselves: transfer switches, ties, breakers that reclose.

A cause is a bus that loses its voltage with all below it, a bus that has voltage, or a part that is dead already.
Interlocks say what else must have opened for a closing, whoever operates it: it may have tripped. Closing only ever
adds (in a loop every branch counts all that hangs on it), so a way that closes more and opens less contains another.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from powerd.limits import Bools
from powerd.network.electrical import Branches, Electrical
from powerd.network.operation import By
from powerd.network.supply import Energised, energise

WAYS_MOST = 16
"""In so many ways may one cause move switches; beyond it interlocks do not count, and all that may close does."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """Switches that move together."""

    shut: tuple[int, ...]
    """Those that close."""
    opened: tuple[int, ...]
    """Those that have opened for it."""

    def contains(self, other: Way) -> bool:
        """Whether all that the other one joins is joined here, too."""
        return set(self.shut) >= set(other.shut) and set(self.opened) <= set(other.opened)


def ways_of(electrical: Electrical, closed: Bools, sure: Bools, by: tuple[By, ...]) -> list[Way]:
    """What switches operated ``by`` these may make of the positions ``closed`` (E,), without what another one contains.

    Interlocks count what is ``sure`` (E,) to be closed.
    """
    found = dict.fromkeys(
        way for cause in _causes(electrical, closed, by) for way in _ways(electrical, closed, sure, cause)
    )
    return [one for one in found if not any(one != other and other.contains(one) for other in found)]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cause:
    """What one event lets move."""

    shut: list[int]
    """Switches that may close."""
    may_open: Bools
    """(E,) those that may have opened for it."""


def _causes(electrical: Electrical, closed: Bools, by: tuple[By, ...]) -> Iterator[_Cause]:
    """Something is dead; a bus loses its voltage, with all below it; a bus has voltage.

    Switches close from where there is voltage to where there is none, and what opens for them is there, too; for a
    single one that waits it may be any. Back to a bus with voltage go transfer switches, and others that are closed in
    the normal state. One that closes only because another one did is a move from the state after that.
    """
    operation, branches, live = electrical.operation, electrical.branches, energise(electrical, closed)
    transfer = operation.partner >= 0
    own = np.where(transfer, np.isin(operation.by, by), (operation.by == By.ITSELF) & (By.ITSELF in by))
    ready = np.flatnonzero(own & branches.switchable & branches.in_service & ~closed).tolist()
    if not ready:
        return
    way = [frozenset(_way_up(live, bus)) for bus in range(live.supply.shape[0])]
    ends = [(e, way[one], way[other]) for e in ready for one, other in _directions(electrical, e) if way[one]]
    every, back = np.ones_like(closed), transfer | branches.normally_closed
    waiting = [e for e, _, to in ends if not to]
    yield _Cause(shut=waiting, may_open=_touching(branches, ~live.bus_is_live))
    yield from (_Cause(shut=[e], may_open=every) for e in waiting)
    for bus in sorted(frozenset().union(*(above for _, source, to in ends for above in (source, to)))):
        near = _touching(branches, np.array([bus in above for above in way], np.bool_))
        yield _Cause(shut=[e for e, source, to in ends if bus in to and bus not in source], may_open=near)
        returning = [e for e, source, to in ends if bus in source and bus not in to and back[e]]
        yield _Cause(shut=returning, may_open=every)


def _touching(branches: Branches, buses: Bools) -> Bools:
    """(E,) branches with an end at the buses (B,)."""
    found: Bools = buses[branches.from_bus] | buses[branches.to_bus]
    return found


def _directions(electrical: Electrical, e: int) -> list[tuple[int, int]]:
    """From which bus to which a switch may bring voltage: half a transfer switch only from its source."""
    one, other = int(electrical.branches.from_bus[e]), int(electrical.branches.to_bus[e])
    if electrical.operation.partner[e] < 0:
        return [(one, other), (other, one)]
    source = source_of(electrical, e)
    return [(source, other if source == one else one)]


def _ways(electrical: Electrical, closed: Bools, sure: Bools, cause: _Cause) -> list[Way]:
    """Each switch alone and all together; where interlocks forbid all, as many as can; without interlocks if too many.

    Interlocks only keep things apart: what closes without anything opened contains all their ways.
    """
    alone = {e: _room_for(electrical, closed, sure, cause, (e,)) for e in cause.shut}
    shut = tuple(e for e, ways in alone.items() if ways)
    found = [way for ways in alone.values() for way in ways]
    if len(shut) < 2:
        return found
    whole = _room_for(electrical, closed, sure, cause, shut)
    few = 2 ** len(shut) <= WAYS_MOST
    if not whole and few:
        less = (some for size in range(2, len(shut)) for some in itertools.combinations(shut, size))
        whole = [way for some in less for way in _room_for(electrical, closed, sure, cause, some)]
    if len(found) + len(whole) > WAYS_MOST or not (whole or few):
        return [_unlocked(electrical, closed, some) for some in (*((e,) for e in shut), shut)]
    return found + whole


def _unlocked(electrical: Electrical, closed: Bools, shut: tuple[int, ...]) -> Way:
    """Some switches close, and only the other halves of transfer switches open."""
    halves = electrical.operation.partner[list(shut)]
    return Way(shut=shut, opened=tuple(half for half in halves.tolist() if half >= 0 and closed[half]))


def _room_for(electrical: Electrical, closed: Bools, sure: Bools, cause: _Cause, shut: tuple[int, ...]) -> list[Way]:
    """The ways in which switches that the cause may open let some close, each with no more than interlocks ask for.

    None where these forbid it; with nothing opened where there are too many.
    """
    bare = _unlocked(electrical, closed, shut)
    choices = []
    for lock in electrical.interlocks:
        mine = sum(e in lock.branches for e in shut)
        beside = [b for b in lock.branches if sure[b] and electrical.branches.in_service[b] and b not in bare.opened]
        # more than the interlock lets be closed are not: nobody knows where they are
        over = mine + min(len(beside), lock.at_most_closed) - lock.at_most_closed
        if mine and over > 0:
            choices.append(([b for b in beside if cause.may_open[b]], over))
    if math.prod(math.comb(len(free), count) for free, count in choices) > WAYS_MOST:
        return [bare]
    each = itertools.product(*(itertools.combinations(free, count) for free, count in choices))
    opened = {frozenset(bare.opened).union(*way) for way in each}
    least = [one for one in opened if not any(other < one for other in opened)]
    return [Way(shut=shut, opened=tuple(sorted(one))) for one in least]


def source_of(electrical: Electrical, half: int) -> int:
    """Bus that a half takes its voltage from: the end that its partner does not share."""
    branches, partner = electrical.branches, int(electrical.operation.partner[half])
    shared = {int(branches.from_bus[partner]), int(branches.to_bus[partner])}
    one, other = int(branches.from_bus[half]), int(branches.to_bus[half])
    return other if one in shared else one


def _way_up(live: Energised, bus: int) -> list[int]:
    """The bus and all above it; nothing where it is dead."""
    found = []
    while bus >= 0 and live.supply[bus] >= 0:
        found.append(bus)
        bus = int(live.parent_bus[bus])
    return found
