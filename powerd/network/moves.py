"""R9 of docs/leases.md in the tick: what has to fit *before* a switch moves by itself.

For each set of switches that one cause lets move together (transfer switches, ties and breakers that close, with what
has opened for them: ``ways``), with the rows of the state after it:

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
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from powerd.limits import Bools, Controllers, Floats, Ints, Limits
from powerd.network.electrical import Electrical
from powerd.network.metering import metering_of
from powerd.network.operation import By
from powerd.network.rows import Rows, build_rows
from powerd.network.supply import energise
from powerd.network.tolerance import tolerated_a, tolerated_s
from powerd.network.ways import Way, source_of, ways_of

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
    moved: Bools
    """(D,) loads that come back with it, at their pick-up: no meter tells now what it will see of them then."""


def silent_s(controllers: Controllers) -> Floats:
    """(C,) E of each controller: how long a ceiling may outlive the last word [s]; inf without watchdog."""
    life = controllers.ttl_s * (1 + controllers.drift) + controllers.watchdog_s + controllers.reaction_s
    return np.where(np.isnan(controllers.watchdog_s), np.inf, life)


def possible_moves(electrical: Electrical, closed: Bools, *by: By, held: Bools | None = None) -> list[Move]:
    """What one cause lets switches operated ``by`` these make of the positions ``closed`` (E,).

    Switches that powerd moves are no news but for transfer switches: a plan asks for each of its states by itself. What
    is ``held`` (E,) for both positions, None = nothing, counts as closed, but keeps no other one open by an interlock.
    """
    roused, sure = _roused(electrical, closed), closed if held is None else closed & ~held
    ways = ways_of(roused, closed, sure, by)
    return [Move(name=_told(roused, way), closed=_moved(closed, way), electrical=roused) for way in ways]


def _roused(electrical: Electrical, closed: Bools) -> Electrical:
    """The drawing with every source feeding that could: where no other feeds now, one that stands by or was lost."""
    supplies = electrical.supplies
    if not (supplies.standby & ~supplies.in_service).any():
        return electrical
    dead = energise(electrical, closed).supply[supplies.bus] < 0
    return replace(electrical, supplies=replace(supplies, in_service=supplies.in_service | (supplies.standby & dead)))


def _told(electrical: Electrical, way: Way) -> str:
    """For people: "ats at alternate", "tie closed and main-a open"."""
    ids, partner = electrical.branches.ids, electrical.operation.partner
    name = [" at ".join(ids[e].rsplit("/", 1)) if partner[e] >= 0 else f"{ids[e]} closed" for e in way.shut]
    return " and ".join(name + [f"{ids[e]} open" for e in way.opened if partner[e] not in way.shut])


def _moved(closed: Bools, way: Way) -> Bools:
    """The positions (E,) after some switches have opened and others closed."""
    after = closed.copy()
    after[list(way.opened)] = False
    after[list(way.shut)] = True
    return after


def follow_source(electrical: Electrical, closed: Bools) -> list[tuple[int, int]]:
    """(half that opens, half that closes) of each transfer switch that has lost its source and finds another."""
    operation, in_service, live = electrical.operation, electrical.branches.in_service, energise(electrical, closed)
    own = (operation.by == By.ITSELF) & (operation.partner >= 0) & closed & in_service
    found = []
    for half in np.flatnonzero(own).tolist():
        other = int(operation.partner[half])
        lost = live.supply[source_of(electrical, half)] < 0 <= live.supply[source_of(electrical, other)]
        if lost and not closed[other] and in_service[other]:
            found.append((half, other))
    return found


def held_ahead(electrical: Electrical, closed: Bools, before: Rows, held: Bools) -> Iterator[Ahead]:
    """What has to fit before each move from the state ``closed`` (E,) with the limits ``before``; mostly nothing.

    ``held`` (E,) as in ``possible_moves``. What is held for is found with all loads at their pick-up, for any may be in
    it when the switch moves.
    """
    cold = electrical.loads.pickup_factor * electrical.loads.worst_kw
    for move in possible_moves(electrical, closed, By.ITSELF, held=held):
        after = build_rows(move.electrical, move.closed)
        moved = moved_loads(electrical, closed, move)
        keep, admitted = _binding(electrical, closed, before, after, after.load_share @ cold, moved)
        if keep.any():
            rows = _part_of(after, keep, admitted, move.name)
            yield Ahead(move=move, rows=rows, moved=moved)


def moved_loads(electrical: Electrical, before: Bools, move: Move) -> Bools:
    """(D,) loads that may have been without voltage in a move from the positions ``before`` (E,).

    Those that another supply or another way to it feeds then, and those at or below a loop that the move closes: they
    hang on either side of it, and one side may have been lost.
    """
    was, then = energise(electrical, before), energise(move.electrical, move.closed)
    branches = electrical.branches
    loops = then.loop[move.closed & ~before]
    on = np.isin(then.loop, loops[loops >= 0])
    moved = (was.supply != then.supply) | (was.parent_branch != then.parent_branch)
    moved[branches.from_bus[on]] = True
    moved[branches.to_bus[on]] = True
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
        ((loads, _),) = _entries(after.load_share, np.array([l]))
        found[k] = same and not np.isin(loads, cold).any()
    return found


def _place(rows: Rows, l: int) -> tuple[str, str, int, int]:
    """What a limit with an element that heats bounds, whatever the state."""
    return rows.limits.kind[l], rows.limits.element[l], int(rows.side[l]), int(rows.phase[l])


def _carried(rows: Rows, l: int) -> tuple[bytes, ...]:
    """The rows of a limit and its loads, to be compared."""
    own, limits = np.flatnonzero(rows.limits.limit_of_row == l), rows.limits
    parts = [*_entries(limits.real, own), *_entries(limits.imag, own), *_entries(rows.load_share, np.array([l]))]
    return tuple(part for at, value in parts for part in (at.tobytes(), np.round(value, 9).tobytes()))


def _entries(table: sp.csr_array, rows: Ints) -> Iterator[tuple[Ints, Floats]]:
    """Columns and values of each of the ``rows`` (k,): slices of scipy cost more than all the rest."""
    for r in rows.tolist():
        part = slice(table.indptr[r], table.indptr[r + 1])
        yield table.indices[part], table.data[part]


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
    parts = itertools.chain(_entries(limits.real, rows), _entries(limits.imag, rows))
    return np.unique(np.concatenate([at for at, _ in parts]))


def _size(limits: Limits, l: int) -> Floats:
    """(n,) most that one own unit of each EVSE adds to a limit [limit unit]."""
    rows, count = np.flatnonzero(limits.limit_of_row == l), limits.real.shape[1]
    most = np.zeros(count)
    for one, other in zip(_entries(limits.real, rows), _entries(limits.imag, rows), strict=True):
        along, across = np.zeros(count), np.zeros(count)
        along[one[0]], across[other[0]] = one[1], other[1]
        most = np.maximum(most, np.hypot(along, across))
    return most


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
