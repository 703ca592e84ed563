"""R9 of docs/leases.md in the tick: what has to fit *before* a switch moves by itself.

For each set of transfer switches that one cause makes move together, and for each other switch that may close by
itself (a bus tie, a breaker that recloses), with the rows of the state after it:

    |sum a_li W_i| + uncontrolled_l  <=  what the element of l, and all in series with it, stands for E_l,

E_l the longest E of the EVSEs below it: R6's bound where their controllers have just fallen silent. What moved counts
as coming back (R8): loads at their pick-up. Everything else counts as still there, though what made the switch move may
have taken it: that can only be more. A source that feeds nothing now, because it stands by or was lost, may be there
then: a switch moves because it is. A breaker that trips takes load off what is above it, and where there are loops
every branch already counts all that hangs on them; so closings are the moves that there are to reckon with.
That a switch has moved must be reported: the bound counts from the tick that hears of it.

Most of these limits can never bind: EVSEs cannot draw so much within the limits of the state before (``Nest``).
What is left is imposed like any other limit; a site without switches that move by themselves has nothing of this.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from powerd.limits import Bools, Controllers, Floats, Ints, Limits
from powerd.network.electrical import Electrical
from powerd.network.metering import metering_of
from powerd.network.operation import By
from powerd.network.rows import Rows, build_rows
from powerd.network.supply import Energised, energise
from powerd.network.tolerance import tolerated_a, tolerated_s

CLOSE = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Move:
    """One or more switches move by themselves."""

    name: str
    """For people: "ats at alternate", "tie closed and main-a open"."""
    closed: Bools
    """(E,) positions after it."""
    electrical: Electrical
    """The drawing with the sources that may feed then."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ahead:
    """What has to fit before a move."""

    move: Move
    rows: Rows
    """Limits of the state after it that could bind; their capacity is what the element stands for the bound."""
    loads_kw: Floats
    """(D,) what each uncontrolled load may take right after it [kW]."""
    moved: Bools
    """(D,) loads whose way to a supply changes: no meter tells now what it will see of them then."""


def silent_s(controllers: Controllers) -> Floats:
    """(C,) E of each controller: how long a ceiling may outlive the last word [s]; inf without watchdog."""
    life = controllers.ttl_s * (1 + controllers.drift) + controllers.watchdog_s + controllers.reaction_s
    return np.where(np.isnan(controllers.watchdog_s), np.inf, life)


def possible_moves(electrical: Electrical, closed: Bools, *by: By) -> Iterator[Move]:
    """What switches operated ``by`` these may make of the positions ``closed`` (E,): transfers, then other closings.

    Switches that powerd moves are no news but for transfer switches: a plan asks for each of its states by itself.
    """
    roused = _roused(electrical, closed)
    yield from _transfers(roused, closed, by)
    if By.ITSELF in by:
        yield from _closings(roused, closed)


def _roused(electrical: Electrical, closed: Bools) -> Electrical:
    """The drawing with every source feeding that could: where no other feeds now, one that stands by or was lost."""
    supplies = electrical.supplies
    if not (supplies.standby & ~supplies.in_service).any():
        return electrical
    dead = energise(electrical, closed).supply[supplies.bus] < 0
    return replace(electrical, supplies=replace(supplies, in_service=supplies.in_service | (supplies.standby & dead)))


def _transfers(electrical: Electrical, closed: Bools, by: tuple[By, ...]) -> Iterator[Move]:
    """Every set of transfer switches operated ``by`` these that one loss, one return, or a switch alone moves together.

    A switch goes where there is voltage; what loses its source with the same bus, or gets one back, moves together.
    """
    live = energise(electrical, closed)
    halves = _ready(electrical, live, closed, by)
    partner = electrical.operation.partner
    found: dict[tuple[int, ...], None] = dict.fromkeys((half,) for half in halves)
    for ends in ([_source(electrical, half) for half in halves], [_source(electrical, partner[h]) for h in halves]):
        for bus in dict.fromkeys(above for end in ends for above in _way_up(live, end)):
            together = tuple(half for half, end in zip(halves, ends, strict=True) if bus in _way_up(live, end))
            found.setdefault(together)
    for together in found:
        name = " and ".join(_told(electrical, int(partner[half])) for half in together)
        yield Move(name=name, closed=_moved(closed, together, partner[list(together)]), electrical=electrical)


def _closings(electrical: Electrical, closed: Bools) -> Iterator[Move]:
    """Every other switch that may close by itself where there is voltage, with what its interlocks make open for it."""
    operation, branches, live = electrical.operation, electrical.branches, energise(electrical, closed).bus_is_live
    own = (operation.by == By.ITSELF) & branches.switchable & branches.in_service
    fed = live[branches.from_bus] | live[branches.to_bus]
    for e in np.flatnonzero(own & (operation.partner < 0) & ~closed & fed).tolist():
        for opened in _room_for(electrical, closed, own, e):
            told = [f"{branches.ids[e]} closed", *(f"{branches.ids[b]} open" for b in opened)]
            yield Move(name=" and ".join(told), closed=_moved(closed, opened, (e,)), electrical=electrical)


def _room_for(electrical: Electrical, closed: Bools, own: Bools, e: int) -> list[tuple[int, ...]]:
    """Which closed switches, out of those that move by themselves (E,), have to open before the interlocks let e close.

    Each way with no more than needed; one empty way where nothing has to; none where it cannot close.
    """
    ways = []
    for lock in electrical.interlocks:
        shut = [b for b in lock.branches if closed[b] and electrical.branches.in_service[b]]
        if e in lock.branches and len(shut) >= lock.at_most_closed:
            ways.append(itertools.combinations([b for b in shut if own[b]], len(shut) + 1 - lock.at_most_closed))
    return sorted({tuple(sorted(set().union(*way))) for way in itertools.product(*ways)})


def _moved(closed: Bools, opened: Sequence[int] | Ints, shut: Sequence[int] | Ints) -> Bools:
    """The positions (E,) after some switches have opened and others closed."""
    after = closed.copy()
    after[np.asarray(opened, np.int64)] = False
    after[np.asarray(shut, np.int64)] = True
    return after


def follow_source(electrical: Electrical, closed: Bools) -> list[tuple[int, int]]:
    """(half that opens, half that closes) of each transfer switch that has lost its source and finds another."""
    live = energise(electrical, closed)
    halves = _ready(electrical, live, closed, (By.ITSELF,))
    lost = [half for half in halves if live.supply[_source(electrical, half)] < 0]
    return [(half, int(electrical.operation.partner[half])) for half in lost]


def _ready(electrical: Electrical, live: Energised, closed: Bools, by: tuple[By, ...]) -> list[int]:
    """Closed halves of transfer switches operated ``by`` these that have voltage on the other side."""
    operation, branches = electrical.operation, electrical.branches
    own = np.isin(operation.by, by) & (operation.partner >= 0) & closed & branches.in_service
    found = []
    for half in np.flatnonzero(own).tolist():
        other = int(operation.partner[half])
        if not closed[other] and branches.in_service[other] and live.supply[_source(electrical, other)] >= 0:
            found.append(half)
    return found


def _source(electrical: Electrical, half: int) -> int:
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


def _told(electrical: Electrical, half: int) -> str:
    name, _, side = electrical.branches.ids[half].rpartition("/")
    return f"{name} at {side}"


def held_ahead(electrical: Electrical, closed: Bools, before: Rows) -> Iterator[Ahead]:
    """What has to fit before each move from the state ``closed`` (E,) with the limits ``before``; mostly nothing."""
    for move in possible_moves(electrical, closed, By.ITSELF):
        after = build_rows(move.electrical, move.closed)
        moved = moved_loads(electrical, closed, move)
        loads = returning_kw(electrical, moved)
        keep, admitted = _binding(electrical, closed, before, after, after.load_share @ loads, moved)
        if keep.any():
            rows = _part_of(after, keep, admitted, move.name)
            yield Ahead(move=move, rows=rows, loads_kw=loads, moved=moved)


def moved_loads(electrical: Electrical, before: Bools, move: Move) -> Bools:
    """(D,) loads whose way to a supply is another one after a move from the positions ``before`` (E,)."""
    then = energise(move.electrical, move.closed)
    moved = energise(electrical, before).parent_branch != then.parent_branch
    for bus in then.order.tolist():
        moved[bus] |= then.parent_bus[bus] >= 0 and moved[then.parent_bus[bus]]
    found: Bools = moved[electrical.loads.bus]
    return found


def returning_kw(electrical: Electrical, moved: Bools) -> Floats:
    """(D,) worst power of each load after a move, with the pick-up of those that ``moved`` (D,), as R8 counts it."""
    loads = electrical.loads
    return np.where(moved, loads.pickup_factor * loads.worst_kw, loads.worst_kw)


def _binding(
    electrical: Electrical, closed: Bools, before: Rows, after: Rows, uncontrolled: Floats, moved: Bools
) -> tuple[Bools, Floats]:
    """(L,) limits of the state after that the state before does not keep by itself, and what each admits."""
    limits, most = after.limits, electrical.posts.max_ceiling
    total = limits.limit_flow(most) + uncontrolled
    heats = np.array([bool(overload.devices) for overload in after.overload], np.bool_)
    full = np.flatnonzero(heats & (total > limits.capacity + CLOSE))
    full = full[~_unchanged(before, after, full, moved)]
    nest = Nest.of(before.limits, left_free(electrical, closed, before)) if full.shape[0] else Nest(sets=())
    keep, admitted = np.zeros(total.shape[0], np.bool_), limits.capacity.copy()
    for l in full.tolist():
        worst = min(float(uncontrolled[l]) + nest.most(_size(limits, l), most), float(total[l]))
        keep[l] = worst > limits.capacity[l] + CLOSE
        keep[l] &= stood_s(after, l, worst) < bound_s(electrical, limits, l)
        if keep[l]:
            admitted[l] = admitted_a(electrical, after, l)
    return keep, admitted


def _unchanged(before: Rows, after: Rows, at: Ints, moved: Bools) -> Bools:
    """(k,) which of the limits ``at`` (k,) of the state after carry exactly what they carried before."""
    kept = {_place(before, l): l for l in range(before.limits.capacity.shape[0])}
    cold = np.flatnonzero(moved)
    found = np.zeros(at.shape[0], np.bool_)
    for k, l in enumerate(at.tolist()):
        own = kept.get(_place(after, l))
        same = own is not None and _carried(before, own) == _carried(after, l)
        found[k] = same and not np.isin(after.load_share[[l]].indices, cold).any()
    return found


def _place(rows: Rows, l: int) -> tuple[str, str, int, int]:
    """What a limit with an element that heats bounds, whatever the state."""
    return rows.limits.kind[l], rows.limits.element[l], int(rows.side[l]), int(rows.phase[l])


def _carried(rows: Rows, l: int) -> tuple[bytes, ...]:
    """The rows of a limit and its loads, to be compared."""
    own = np.flatnonzero(rows.limits.limit_of_row == l)
    real, imag, loads = rows.limits.real[own], rows.limits.imag[own], rows.load_share[[l]]
    parts = (part for table in (real, imag, loads) for part in (table.indptr, table.indices, np.round(table.data, 9)))
    return tuple(np.asarray(part).tobytes() for part in parts)


def left_free(electrical: Electrical, closed: Bools, rows: Rows) -> Floats:
    """(L,) most that EVSEs may ever take of each limit: a meter at or below it may see that its loads take nothing."""
    metering = metering_of(electrical, closed, rows)
    metered = metering.reaches.T.astype(np.float64) @ metering.seen.astype(np.float64) > 0.0
    taken = (rows.load_share.toarray() * ~metered) @ electrical.loads.worst_kw
    room: Floats = np.maximum(rows.limits.capacity - taken, 0.0)
    return room


def stood_s(rows: Rows, l: int, amps: float) -> float:
    """How long all that carries a limit's current stands so much, hot, at the earliest edge [s]; inf = for ever."""
    return tolerated_s(rows.overload[l], amps, to_side=bool(rows.side[l] == 1))


def admitted_a(electrical: Electrical, rows: Rows, l: int) -> float:
    """What all that carries a limit's current stands for R6's bound; at least its rating [limit unit]."""
    capacity, bound = float(rows.limits.capacity[l]), bound_s(electrical, rows.limits, l)
    return tolerated_a(rows.overload[l], bound, rated_a=capacity, to_side=bool(rows.side[l] == 1))


def bound_s(electrical: Electrical, limits: Limits, l: int) -> float:
    """The longest E of the EVSEs that load a limit [s]."""
    owner = np.unique(electrical.posts.controller[evses_of(limits, l)])
    return float(silent_s(electrical.controllers)[owner].max(initial=0.0))


def evses_of(limits: Limits, l: int) -> Ints:
    """EVSEs that load a limit."""
    rows = np.flatnonzero(limits.limit_of_row == l)
    return np.unique(np.concatenate([limits.real[rows].indices, limits.imag[rows].indices]))


def _size(limits: Limits, l: int) -> Floats:
    """(n,) most that one own unit of each EVSE adds to a limit [limit unit]."""
    rows = np.flatnonzero(limits.limit_of_row == l)
    sizes = np.hypot(limits.real[rows].toarray(), limits.imag[rows].toarray())
    return np.asarray(sizes.max(axis=0, initial=0.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Nest:
    """Rows of a state over sets of EVSEs of which none cuts another, smaller sets first."""

    sets: tuple[tuple[Ints, Floats, float], ...]
    """EVSEs (k,), what one own unit of each adds to the row at least (k,), and the row's capacity."""

    @staticmethod
    def of(limits: Limits, room: Floats) -> Nest:
        """Of limits with ``room`` (L,) for EVSEs.

        A row counts by its part along the mean of its directions: |sum a x| >= sum Re(a conj(u)) x for |u| = 1.
        Where angles lie so far apart that some EVSE adds nothing along it, nothing is said.
        """
        phasor = sp.csr_array(limits.real + 1j * limits.imag)
        phasor.sort_indices()
        group, sets = np.arange(phasor.shape[1]), []
        for r in np.argsort(np.diff(phasor.indptr), kind="stable").tolist():
            part = slice(phasor.indptr[r], phasor.indptr[r + 1])
            inside, size = phasor.indices[part].astype(np.int64), phasor.data[part]
            mean = abs(size.sum())
            along = (size * np.conj(size.sum())).real / max(mean, CLOSE)
            touched = np.unique(group[inside])
            if mean <= CLOSE or (along <= CLOSE).any() or np.isin(group, touched).sum() != inside.shape[0]:
                continue
            group[inside] = inside[0]
            sets.append((inside, along, float(room[limits.limit_of_row[r]])))
        return Nest(sets=tuple(sets))

    def most(self, weight: Floats, most: Floats) -> float:
        """A bound on ``weight @ x`` over all ceilings 0 <= x <= ``most`` that the rows admit.

        Each EVSE may contribute weight_i most_i; each set, smallest first, at most its row's capacity times the best
        weight for one unit of it. Exact where weights are even, and a bound always.
        """
        part = weight * most
        for inside, along, capacity in self.sets:
            mine = weight[inside]
            total, allowed = part[inside].sum(), capacity * float((mine / along).max())
            if total > allowed:
                part[inside] *= allowed / total
        return float(part.sum())


def _part_of(rows: Rows, keep: Bools, admitted: Floats, name: str) -> Rows:
    """Some of the limits with another capacity, named after the move."""
    limits, chosen = rows.limits, np.flatnonzero(keep)
    place = np.cumsum(keep) - 1
    own = np.flatnonzero(keep[limits.limit_of_row])
    part = replace(
        limits,
        real=limits.real[own],
        imag=limits.imag[own],
        limit_of_row=place[limits.limit_of_row[own]],
        capacity=admitted[chosen],
        unit=tuple(limits.unit[l] for l in chosen),
        kind=tuple(limits.kind[l] for l in chosen),
        name=tuple(f"{limits.name[l]}, with {name}" for l in chosen),
        element=tuple(limits.element[l] for l in chosen),
        phase=tuple(limits.phase[l] for l in chosen),
        source=tuple(limits.source[l] for l in chosen),
        tree=None,
    )
    return Rows(
        limits=part,
        load_share=rows.load_share[chosen],
        branch=rows.branch[chosen],
        side=rows.side[chosen],
        phase=rows.phase[chosen],
        supply=rows.supply[chosen],
        losses=rows.losses[chosen],
        overload=tuple(rows.overload[l] for l in chosen),
        pickup_losses=rows.pickup_losses[chosen],
        beside=rows.beside,
        beside_losses=rows.beside_losses,
    )
