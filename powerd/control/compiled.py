"""A site made ready for the tick: columns and limits that do not change while its switches do not."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from powerd.allocation.rows import rows_of
from powerd.allocation.steps import PilotSteps, all_up, pack_steps
from powerd.compiled import read
from powerd.control.topology import believed, load_factor
from powerd.limits import Bools, Floats, Ints, Limits
from powerd.network.admission import overbooked
from powerd.network.electrical import Electrical
from powerd.network.flow_check import AcCheck, check_of
from powerd.network.metering import Metering, metering_of
from powerd.network.moves import Ahead, returning_kw
from powerd.network.rows import Rows
from powerd.network.states import StateRows, Uncertain, build_state, one_loss_away
from powerd.network.supply import Energised, energise
from powerd.state.columns import replace
from powerd.state.envelopes import Bound, Envelopes, bound
from powerd.state.lease_kernels import Handed
from powerd.state.lease_terms import LeaseTerms
from powerd.state.snapshot import Sessions, bounds_of
from powerd.state.switchgear import Switchgear, open_switchgear
from powerd.units import Now

STATES_KEPT = 256
"""Switching states whose limits are kept compiled; some MB each at 5 000 EVSEs."""
PHASES_KEPT = 8
"""The same for states in which some cars are known to use some phases only: these seldom come again."""

AHEAD_MOST = 64
"""States that may come next whose limits are compiled in advance, supplies first; some MB each at 5 000 EVSEs."""


class PostLines(NamedTuple):
    """What the loops of the tick read of the posts, as read-only columns; (n,) each."""

    least: Floats
    """Smallest ceiling above 0 [own unit]."""
    most: Floats
    """Largest."""
    three_phase: Bools
    """It is an AC post whose ceiling is for three phases."""
    kw_per_unit: Floats
    """See ``Posts``."""
    ramp: Floats
    """See ``Electrical.evse_ramp``."""
    bus: Ints
    """See ``Electrical.evse_bus``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CompiledSite:
    """What ``step`` knows of the drawing."""

    electrical: Electrical
    """The drawing as columns."""
    limits: Limits
    """Limits of the present switching state."""
    state: Uncertain
    """That state."""
    live: Energised
    """Who feeds whom in it."""
    parts: tuple[CompiledSite, ...]
    """One for each combination of sides where no side of a transfer switch is certain, and one for each move that has
    to fit in advance; none where there is only one: their limits in turn are ``limits``."""
    terms: LeaseTerms
    """Lease terms of each EVSE."""
    loads_worst: Floats
    """(L,) worst configured uncontrolled load under each limit [unit]."""
    load_on_limit: sp.csr_array
    """(L, D) the part of each load in it [unit]."""
    load_factor: Floats
    """(D,) what each load takes in it of its worst: its pick-up factor while and right after it had no voltage, and in
    a part for a move where it comes back with that."""
    metering: Metering
    """What meters tell about the limits."""
    meters_loads: Bools
    """(M,) loads are drawn behind the meter in the normal state: what it does not see elsewhere is not unknown load."""
    steps: PilotSteps
    """Pilot steps of each EVSE."""
    import_limit: Ints
    """(k,) limits that bound what the whole site imports: one for each of ``parts``; none where the site has no such
    limit."""
    import_losses: Floats
    """(k,) what of it is kept for losses [kW]."""
    pickup_losses: Floats
    """(L,) what loads that come back add to the losses under each limit [kW]."""
    beside_kw: Floats
    """(D,) what each load takes of an import limit that is left out, for no EVSE has a voltage; 0 elsewhere [kW]."""
    beside_losses: float
    """What is lost there at most [kW]."""
    overbooked: tuple[str, ...]
    """Limits that what charges without a grant, and other loads, could exceed in it (R5); none while a switch is held
    for both positions."""
    ac: AcCheck | None
    """The power flow of the present switching state; None where it has loops or is not certain."""

    @staticmethod
    def of(electrical: Electrical) -> CompiledSite:
        """Compiles the site in its normal switching state."""
        state = believed(electrical, as_drawn(electrical))
        rows = build_state(electrical, state)
        metering = metering_of(rows.seen, *rows.parts[0])
        seen: Bools = np.asarray(metering.seen.any(axis=1), dtype=np.bool_)
        site = CompiledSite(
            electrical=electrical,
            limits=rows.limits,
            state=state,
            live=rows.live,
            parts=(),
            terms=LeaseTerms.of(electrical.posts, electrical.controllers),
            loads_worst=np.zeros(0),
            load_on_limit=sp.csr_array((0, 0)),
            load_factor=np.ones_like(electrical.loads.worst_kw),
            metering=metering,
            meters_loads=seen,
            steps=pack_steps(electrical.posts),
            import_limit=np.zeros(0, np.int64),
            import_losses=np.zeros(0),
            pickup_losses=np.zeros(0),
            beside_kw=np.zeros_like(electrical.loads.worst_kw),
            beside_losses=0.0,
            overbooked=(),
            ac=None,
        )
        return site._with_rows(rows, state)

    def in_state(self, state: Uncertain, used: Ints | None = None) -> CompiledSite:
        """The same site in another switching state, with cars on the phases ``used`` (n,); None = on all."""
        return self._with_rows(build_state(self.electrical, state, used), state)

    def with_load_factor(self, factor: Floats) -> CompiledSite:
        """The same site with each uncontrolled load's worst times ``factor`` (D,), and what is lost for that.

        What counts more already, because it comes back with a move, does not count twice.
        """
        if (factor == 1.0).all():
            return self
        parts = tuple(part.with_load_factor(factor) for part in self.parts)
        together = np.maximum(self.load_factor, factor)
        own = [part.load_on_limit for part in parts] or [self.load_on_limit * (together / self.load_factor)[None, :]]
        share = sp.csr_array(sp.vstack(own))
        lost = np.where(self.load_on_limit @ (factor > 1.0) > 0.0, self.pickup_losses, 0.0)
        return replace(
            self,
            limits=replace(self.limits, capacity=np.maximum(0.0, self.limits.capacity - lost)),
            load_on_limit=share,
            loads_worst=np.asarray(share.sum(axis=1)),
            load_factor=together,
            import_losses=self.import_losses + lost[self.import_limit],
            beside_kw=self.beside_kw * factor,
            parts=parts,
        )

    def _with_rows(self, rows: StateRows, state: Uncertain) -> CompiledSite:
        """This site with other limits."""
        parts = [self._part(rows, closed, own) for closed, own in rows.parts]
        parts += [self._before(rows, one) for one in rows.ahead]
        share = sp.csr_array(sp.vstack([part.load_on_limit for part in parts]))
        begin = np.cumsum([0] + [part.loads_worst.shape[0] for part in parts[:-1]])
        return replace(
            parts[0],
            import_limit=np.concatenate([part.import_limit + start for part, start in zip(parts, begin, strict=True)]),
            import_losses=np.concatenate([part.import_losses for part in parts]),
            pickup_losses=np.concatenate([part.pickup_losses for part in parts]),
            limits=rows.limits,
            state=state,
            live=rows.live,
            parts=tuple(parts) if len(parts) > 1 else (),
            overbooked=() if state.held.any() else tuple(overbooked(rows.seen, rows.parts[0][1])),
            load_on_limit=share,
            loads_worst=np.asarray(share.sum(axis=1)),
        )

    def _part(self, rows: StateRows, closed: Bools, own: Rows) -> CompiledSite:
        """One combination of positions."""
        # A dead part has no impedance to divide by; nothing of it is asked for.
        with np.errstate(divide="ignore", invalid="ignore"):
            check = check_of(rows.in_use, closed, own) if len(rows.parts) == 1 else None
        metering = metering_of(rows.seen, closed, own)
        power = np.array([kind == "power" for kind in own.limits.kind], dtype=np.bool_)
        whole = np.flatnonzero(power & (own.supply < 0))
        return replace(
            self,
            import_limit=whole,
            import_losses=own.losses[whole],
            pickup_losses=own.pickup_losses,
            beside_kw=np.where(own.beside, self.electrical.loads.worst_kw, 0.0),
            beside_losses=own.beside_losses,
            limits=own.limits,
            live=rows.live,
            parts=(),
            load_on_limit=sp.csr_array(own.load_share * self.electrical.loads.worst_kw[None, :]),
            loads_worst=own.load_share @ self.electrical.loads.worst_kw,
            metering=metering,
            overbooked=(),
            ac=check,
        )

    def _before(self, rows: StateRows, ahead: Ahead) -> CompiledSite:
        """What has to fit before a move: loads that go with it count in full, for no meter sees yet what it will."""
        metering = metering_of(ahead.move.electrical, ahead.move.closed, ahead.rows)
        loads = self.electrical.loads
        share = sp.csr_array(ahead.rows.load_share * returning_kw(self.electrical, ahead.moved)[None, :])
        return replace(
            self,
            limits=ahead.rows.limits,
            live=rows.live,
            parts=(),
            load_on_limit=share,
            loads_worst=np.asarray(share.sum(axis=1)),
            load_factor=np.where(ahead.moved, loads.pickup_factor, 1.0),
            metering=replace(metering, seen=metering.seen & ~ahead.moved[None, :]),
            import_limit=np.zeros(0, np.int64),  # an envelope speaks of what is, not of what could be
            import_losses=np.zeros(0),
            pickup_losses=ahead.rows.pickup_losses,
            beside_kw=np.zeros_like(self.beside_kw),
            beside_losses=0.0,
            overbooked=(),
            ac=None,
        )

    def within(self, bound: Bound | None) -> CompiledSite:
        """The same site where the grid operator allows ``bound`` only: import + losses <= bound [kW]."""
        if bound is None or not self.import_limit.shape[0]:
            return self
        capacity, source = self.limits.capacity.copy(), list(self.limits.source)
        for l, lost_kw in zip(self.import_limit.tolist(), self.import_losses.tolist(), strict=True):
            left_kw = max(0.0, bound.import_limit_kw - lost_kw)
            if left_kw < capacity[l]:
                capacity[l], source[l] = left_kw, f"{bound.source}, {bound.import_limit_kw:g} kW"
        return replace(self, limits=replace(self.limits, capacity=capacity, source=tuple(source)))

    def imported_kw(self, flow: Floats) -> float:
        """What the site imports with ``flow`` (L,) under its limits [limit unit], losses at full load included [kW].

        Where no EVSE has a voltage there is no such limit, and its loads may import all the same.
        """
        beside = max(part.beside_kw.sum() + part.beside_losses for part in self.parts or (self,))
        return float(np.max(flow[self.import_limit] + self.import_losses, initial=beside))

    @cached_property
    def post_lines(self) -> Handed:
        """``PostLines``, as a plain tuple."""
        posts = self.electrical.posts
        return (
            read(posts.min_ceiling),
            read(posts.max_ceiling),
            read((posts.phase_count == 3) & ~posts.is_dc),
            read(posts.kw_per_unit),
            read(self.electrical.evse_ramp),
            read(self.electrical.evse_bus),
        )

    def bounds_of(self, sessions: Sessions) -> tuple[Floats, Floats]:
        """(n,) least ceiling above 0 that each car can charge with and its post can take, and largest [own unit]."""
        least, most = bounds_of(sessions, self.electrical.posts)
        return self.next_step_up(least), most

    def next_step_up(self, ceiling: Floats) -> Floats:
        """(n,) smallest pilot step >= ``ceiling``; the ceiling itself where the post has no such step."""
        return all_up(self.steps, ceiling)


def as_drawn(electrical: Electrical) -> Switchgear:
    """The switchgear of a site that nobody has reported anything of."""
    normal = electrical.branches.normally_closed
    return open_switchgear(
        normally_closed=normal,
        in_service=electrical.branches.in_service,
        reported=electrical.operation.reported,
        supply_alive=electrical.supplies.in_service,
        bus_live=energise(electrical, normal).bus_is_live,
    )


class SwitchingStates:
    """A site's limits for each switching state, compiled once and kept; an answer depends on its question alone."""

    def __init__(self, site: CompiledSite) -> None:
        self._site = site
        self._kept: OrderedDict[bytes, CompiledSite] = OrderedDict({site.state.key(): site})
        self._by_phases: OrderedDict[bytes, CompiledSite] = OrderedDict()
        self._bounded: tuple[CompiledSite, Bound, CompiledSite] | None = None
        self._picked_up: tuple[CompiledSite, Floats, CompiledSite] | None = None
        self._ahead_of = b""
        self._ahead: Iterator[Uncertain] = iter(())
        self._turn = Lock()  # the guard may step while a solve that it overtook still runs
        self._newest: tuple[Switchgear, Ints | None, CompiledSite] | None = None  # in most ticks nothing moves

    def at(self, gear: Switchgear, envelopes: Envelopes, now: Now, used: Ints | None = None) -> CompiledSite:
        """The site in the state that is believed, within what the grid operator allows.

        Loads that come back are counted as they come back, cars on the phases ``used`` (n,): 0 or None = on all.
        """
        electrical, newest = self._site.electrical, self._newest
        if newest is None or newest[0] is not gear or newest[1] is not used:
            newest = self._newest = gear, used, self.of(believed(electrical, gear), used)
        site = self._loaded(newest[2], load_factor(electrical, gear, now))
        allowed = bound(envelopes, electrical.failsafe_limit_kw, now) if envelopes else None
        return site if allowed is None else self._within(site, allowed)

    def _loaded(self, site: CompiledSite, factor: Floats) -> CompiledSite:
        """The site with loads that come back; the last answer is kept, for a pick-up lasts many ticks."""
        last = self._picked_up
        if last is None or last[0] is not site or not np.array_equal(last[1], factor):
            last = self._picked_up = (site, factor, site.with_load_factor(factor))
        return last[2]

    def _within(self, site: CompiledSite, allowed: Bound) -> CompiledSite:
        """The site within what is allowed; the last answer is kept, for it mostly holds for hours."""
        last = self._bounded
        if last is None or last[0] is not site or last[1] != allowed:
            last = self._bounded = (site, allowed, site.within(allowed))
        return last[2]

    def unprepared(self, gear: Switchgear) -> Uncertain | None:
        """A state that may come next and is not compiled yet; None = all that are compiled in advance are.

        To be asked by one thread alone; ``prepare`` may run in another one.
        """
        electrical = self._site.electrical
        base = believed(electrical, gear)
        if base.key() != self._ahead_of:
            self._ahead_of = base.key()
            self._ahead = itertools.islice(one_loss_away(base, electrical.branches.switchable), AHEAD_MOST)
        return next((state for state in self._ahead if state.key() not in self._kept), None)

    def prepare(self, state: Uncertain) -> None:
        """Compiles the limits of a state and the columns of their rows, so that no tick has to."""
        rows_of(self.of(state).limits)

    def of(self, state: Uncertain, used: Ints | None = None) -> CompiledSite:
        """The site in one state."""
        some = used is not None and bool(used.any())
        kept, most = (self._by_phases, PHASES_KEPT) if some else (self._kept, STATES_KEPT)
        key = state.key() + (used.astype(np.int8).tobytes() if used is not None and some else b"")
        with self._turn:
            found = kept.get(key)
            if found is not None:
                kept.move_to_end(key)
                return found
        found = self._site.in_state(state, used if some else None)
        with self._turn:
            kept[key] = found
            if len(kept) > most:
                kept.popitem(last=False)
        return found
