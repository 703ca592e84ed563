"""Limits of a switching state in which some positions are not certain: they hold for every position that can be.

Closing a switch only ever adds to what hangs on a branch (in a loop every branch counts all that hangs on it), so the
limits with all uncertain switches closed hold for every combination of them. Only the two halves of a break-before-make
transfer switch cannot both be closed, by its mechanical interlock (IEC 60947-6-1): there each side is taken, and the
limits of both hold together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from powerd.limits import Bools, Ints, Limits
from powerd.network.electrical import Electrical
from powerd.network.in_use import with_phases_in_use
from powerd.network.moves import Ahead, held_ahead
from powerd.network.rows import Rows, build_rows
from powerd.network.supply import Energised, energise

SIDES_MAX = 8
"""Combinations of transfer switches that are compiled one by one; beyond it all halves count as closed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Uncertain:
    """Positions as far as they are known; E branches, S supplies, B buses."""

    closed: Bools
    """(E,) position that is believed, closed where nobody knows."""
    held: Bools
    """(E,) could also be, or be about to be, in the other position."""
    in_service: Bools
    """(E,) neither taken out nor lost."""
    supply_alive: Bools
    """(S,) feeding."""
    dark: Bools
    """(B,) reported without voltage."""

    def key(self) -> bytes:
        """The same for the same state, for caches."""
        parts = (self.closed, self.held, self.in_service, self.supply_alive, self.dark)
        return np.packbits(np.concatenate(parts)).tobytes()


def one_loss_away(state: Uncertain, switchable: Bools) -> Iterator[Uncertain]:
    """What may come next: a supply is lost; one is lost and a switch has closed for it; a branch opened or is lost."""
    alive, closed = np.flatnonzero(state.supply_alive).tolist(), state.closed & state.in_service
    for s in alive:
        yield replace(state, supply_alive=_put(state.supply_alive, s, False))
    for s, e in itertools.product(alive, np.flatnonzero(switchable & state.in_service & ~state.closed).tolist()):
        yield replace(state, supply_alive=_put(state.supply_alive, s, False), closed=_put(state.closed, e, True))
    for e in np.flatnonzero(closed & switchable).tolist():
        yield replace(state, closed=_put(state.closed, e, False))
    for e in np.flatnonzero(closed & ~switchable).tolist():
        yield replace(state, in_service=_put(state.in_service, e, False))


def _put(column: Bools, index: int, value: bool) -> Bools:
    """The column with one entry changed."""
    changed = column.copy()
    changed[index] = value
    return changed


@dataclass(frozen=True, kw_only=True, eq=False)
class StateRows:
    """Limits that hold whatever the uncertain positions are."""

    limits: Limits
    """Rows of all ``parts`` and then of all ``ahead``; ``energized`` says what is fed with the positions believed."""
    seen: Electrical
    """The drawing with all that may conduct, as ``parts`` have it; every car on all phases of its post."""
    in_use: Electrical
    """The drawing with what can be reckoned with now, and cars on the phases that they use."""
    parts: tuple[tuple[Bools, Rows], ...]
    """Positions (E,) and rows of each combination; one, but for transfer switches of which no side is certain."""
    ahead: tuple[Ahead, ...]
    """What has to fit before a switch moves by itself (R9)."""
    live: Energised
    """Who feeds whom with the positions that are believed."""


def seen_as(electrical: Electrical, in_service: Bools, supply_alive: Bools) -> Electrical:
    """The drawing with the branches (E,) and supplies (S,) that can be reckoned with now."""
    branches = replace(electrical.branches, in_service=electrical.branches.in_service & in_service)
    supplies = electrical.supplies
    may_come = (supplies.in_service | supplies.standby) & ~supply_alive
    supplies = replace(supplies, in_service=supply_alive, standby=may_come)
    return replace(electrical, branches=branches, supplies=supplies)


def build_state(electrical: Electrical, state: Uncertain, used: Ints | None = None) -> StateRows:
    """Limits of one state of knowledge; ``used`` (n,) the phases that cars use, as ``with_phases_in_use`` has them."""
    now = seen_as(electrical, state.in_service, state.supply_alive)
    in_use = now if used is None else with_phases_in_use(now, used)
    live = energise(now, state.closed)
    hot = _may_conduct(electrical, now)
    hot_in_use = hot if used is None else with_phases_in_use(hot, used)
    parts = tuple(
        (closed, _fed(build_rows(hot_in_use, closed), now, closed)) for closed in _combinations(electrical, state)
    )
    ahead = [(k, one) for k, part in enumerate(parts) for one in held_ahead(in_use, *part, state.held)]
    every = [*enumerate(rows.limits for _, rows in parts), *((k, one.rows.limits) for k, one in ahead)]
    limits = every[0][1] if len(every) == 1 else _together(every)
    # Both halves of an uncertain transfer switch count as closed in ``live``: what only both together would feed has no
    # voltage in any combination, hence no limit, and must not be granted anything.
    somewhere = np.any([energise(now, closed).bus_is_live for closed, _ in parts], axis=0)
    fed = (live.supply >= 0) & somewhere & ~_below_dark(live, state.dark)
    limits = replace(limits, energized=fed[electrical.evse_bus])
    return StateRows(
        limits=limits, seen=hot, in_use=in_use, parts=parts, ahead=tuple(one for _, one in ahead), live=live
    )


def _may_conduct(electrical: Electrical, now: Electrical) -> Electrical:
    """What hangs together until a switch is open: what is said to be lost or taken out of service conducts as before.

    So what is below it goes on counting above it: a word may be wrong or early, cars follow only after their reaction
    time, and what comes back by itself comes back with its loads (R8). A switch that opens takes it away.
    """
    return seen_as(
        electrical,
        np.ones_like(electrical.branches.in_service),
        electrical.supplies.in_service | now.supplies.in_service,
    )


def _fed(rows: Rows, now: Electrical, closed: Bools) -> Rows:
    """The rows with who has voltage by what can be reckoned with now."""
    fed = energise(now, closed).supply >= 0
    return replace(rows, limits=replace(rows.limits, energized=fed[now.evse_bus]))


def _combinations(electrical: Electrical, state: Uncertain) -> Iterator[Bools]:
    """(E,) each: the largest sets of switches that may be closed together."""
    partner = electrical.operation.partner
    either = state.held | state.closed
    pairs: list[tuple[int, int]] = []
    for one in np.flatnonzero((partner >= 0) & either & ~electrical.operation.closed_transition).tolist():
        other = int(partner[one])
        if one < other and either[other]:
            pairs.append((one, other))
    if 2 ** len(pairs) > SIDES_MAX:
        pairs = []
    for choice in itertools.product((0, 1), repeat=len(pairs)):
        closed = either.copy()
        for pair, side in zip(pairs, choice, strict=True):
            closed[pair[1 - side]] = False
        yield closed


def _together(numbered: list[tuple[int, Limits]]) -> Limits:
    """All the rows of several states, each with the number of its combination, which tells their names apart."""
    limits = [l for _, l in numbered]
    offset = np.cumsum([0] + [l.capacity.shape[0] for l in limits])
    return Limits(
        real=sp.csr_array(sp.vstack([l.real for l in limits])),
        imag=sp.csr_array(sp.vstack([l.imag for l in limits])),
        limit_of_row=np.concatenate([l.limit_of_row + offset[k] for k, l in enumerate(limits)]),
        capacity=np.concatenate([l.capacity for l in limits]),
        unit=tuple(u for l in limits for u in l.unit),
        kind=tuple(k for l in limits for k in l.kind),
        name=tuple(f"{n}, combination {k + 1}" if k else n for k, l in numbered for n in l.name),
        element=tuple(e for l in limits for e in l.element),
        phase=tuple(p for l in limits for p in l.phase),
        source=tuple(s for l in limits for s in l.source),
        energized=limits[0].energized,
        tree=None,
    )


def _below_dark(live: Energised, dark: Bools) -> Bools:
    """(B,) at or below a bus that is reported without voltage."""
    below = dark.copy()
    for bus in live.order.tolist() if dark.any() else ():
        parent = live.parent_bus[bus]
        below[bus] |= parent >= 0 and below[parent]
    return below
