"""One tick: (site, snapshot, events, now) -> decision. Pure; the only clock is ``now``.

absorb -> usage -> W -> demands -> allocate (want) -> lower at once, raise as R1 admits -> guard -> lease book
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from powerd.allocation.allocate import Allocation, Allocator, Warm
from powerd.allocation.demands import Demands
from powerd.allocation.guard import admit_raises, shed
from powerd.allocation.max_min import MaxMinSolver
from powerd.allocation.user_terms import find_sources, identity_of, refuse_max_min
from powerd.control import failsafe
from powerd.control.absorb import Absorbed, absorb
from powerd.control.absorb_envelopes import envelope_alarms, watch_envelopes
from powerd.control.ac_check import Held, hold, tighten
from powerd.control.by_terms import ByTerms, UnderTerms
from powerd.control.compiled import CompiledSite, SwitchingStates
from powerd.control.decision import Decision
from powerd.control.demand import demands_of, over_reserved, unopened, watch_usage
from powerd.control.elements import widened
from powerd.control.events import Event, SolveSkipped
from powerd.control.headroom import meter_alarms, trusted, watch_meters
from powerd.control.lease_alarms import (
    LONG_WAIT_S,
    conduct_alarms,
    overbooked_alarms,
    overshoot_alarms,
    silence_alarms,
    unsettled_alarms,
    waiting_alarms,
)
from powerd.control.losses import loss_alarms, settle
from powerd.control.metered import uncontrolled_now
from powerd.control.phase_switch import PATIENCE, Patience, Room, counted_on, decide_phases, watch_contactors
from powerd.control.positions import age
from powerd.control.question import asked_for
from powerd.control.ramp import ramped
from powerd.control.scene import Scene, is_anew, scene_of
from powerd.control.switching import Switching, advance, exceeded, reconsidered, together_alarms
from powerd.control.telling import tell
from powerd.control.topology import observe, proven
from powerd.limits import Bools, Floats, Ints, Limits
from powerd.network.plan import Planner
from powerd.state import contactors, leases
from powerd.state.columns import replace
from powerd.state.envelopes import is_silent
from powerd.state.overshoot import Overshoot, bounds, track
from powerd.state.phases import came_back, watch_phases
from powerd.state.reaction import sampled, watch
from powerd.state.snapshot import Snapshot, Stop, freeze_snapshot, largest_phase, standing_readings
from powerd.state.switchgear import Position, Switchgear
from powerd.units import ROW_TOLERANCE, Now


class Stepper:
    """The step with what it compiles once (problem, pilot tables). Its answers depend on the arguments alone."""

    def __init__(self, site: CompiledSite, patience: Patience = PATIENCE) -> None:
        self.site = site
        self.patience = patience
        self.states = SwitchingStates(site)
        self.planner = Planner.of(site.electrical)
        posts = site.electrical.posts
        self._allocator = Allocator(posts, MaxMinSolver() if site.electrical.max_min else None)
        self._again = Allocator(posts, MaxMinSolver() if site.electrical.max_min else None)
        sources = find_sources(site.electrical.term_files)
        if site.electrical.max_min:
            refuse_max_min(sources)
        self.terms = identity_of(sources)
        """Whose terms bound the ceilings, and which; "" = nobody's."""
        self._terms = ByTerms(posts, sources, site.limits)
        self._steps = site.steps
        self._shortest_ttl_s = float(site.terms.ttl_s.min(initial=np.inf))
        self._wide: tuple[Stop, ...] | None = None
        """The last answer of ``widened``, which it needs not be asked for again; another drawing may feed others."""
        self._frozen: Snapshot | None = None
        """What the last step heard: its columns are read-only, and most of them are those of the next one."""

    def step(self, snapshot: Snapshot, events: Sequence[Event], now: Now) -> Decision:
        """Absorbs the events and decides every ceiling.

        Args:
            snapshot: the state after the last step.
            events: what came in since, in order.
            now: the tick's instant; its boottime must not be before the snapshot's.
        """
        freeze_snapshot(snapshot, self._frozen)
        absorbed = absorb(self.site, watch_usage(self.site, snapshot, now.boottime_s), events, now)
        gear = observe(self.site.electrical, snapshot.gear, settle(age(absorbed.snapshot.gear, now), now), now)
        gear = proven(self.site.electrical, gear, now)
        gear = reconsidered(self.site.electrical, snapshot.gear, snapshot.boottime_s, gear, now)
        moved = gear.changed_at_s == now.boottime_s
        stops = absorbed.snapshot.stops
        if moved or stops is not self._wide:
            stops = self._wide = widened(self.site.electrical, gear, stops)
        drawn = largest_phase(absorbed.snapshot.drawn)
        state = _watched(self.site, replace(absorbed.snapshot, gear=gear, stops=stops), drawn, absorbed.greeted, now)
        stands = leases.standing(state.leases, self.site.terms, state.sessions.plugged, drawn, now.boottime_s)
        order = failsafe.skipped(events)
        # Ceilings fall first: where the guard was called because a switch moved, the next tick says what to switch.
        switching = Switching(gear=gear) if moved and order is not None else self._switch(state, stands.worst, now)
        state = replace(state, gear=switching.gear)
        state, gone = watch_contactors(self.site, state, self.patience, now.boottime_s)
        state = state if order is not None else self._phases(state, stands.worst, now)
        absorbed = replace(absorbed, alarms=(*absorbed.alarms, *switching.alarms, *gone))
        site = self.states.at(state.gear, state.envelopes, now, counted_on(state))
        state = watch_meters(site, state, stands.worst, now.boottime_s)
        clock = failsafe.clock_modes(snapshot, now, self._shortest_ttl_s)
        scene = scene_of(site, state, absorbed, drawn, stands, now, anew=is_anew(snapshot, state, events))
        demands = demands_of(site, state, scene.takes, stands, scene.uncontrolled, now.boottime_s)
        over = over_reserved(site.limits, demands.floor, demands.uncontrolled, state)
        demands = unopened(site.limits, demands, over)
        if order is None and not moved:
            shares = self._shared(site, state, scene, demands)
        else:
            # The guard alone where a switch has moved, so that no decrease waits; the next tick shares out anew.
            shares = _Shares(
                demands=demands,
                allocation=failsafe.unsolved(
                    order or SolveSkipped(),
                    state,
                    scene.takes,
                    scene.in_force,
                    demands,
                    self._steps,
                    site.limits.row_count,
                ),
                limits=site.limits,
            )
        demands, allocation, limits, warned = shares.demands, shares.allocation, shares.limits, shares.warned
        want = failsafe.held(state.impaired, allocation.want, scene.in_force, demands.minimum, self._steps)
        want = ramped(want, scene.in_force, demands.minimum, state.usage.reach)
        ceiling, guarded = self._grant(site, limits, scene, want, demands, state, now.boottime_s)
        kept = Held(ceiling=ceiling)
        if site.ac is not None:
            kept = hold(site.ac, limits, demands, ceiling, site.loads_worst, self._steps)
        warned = (*warned, *kept.alarms)
        modes = failsafe.modes(
            state.impaired,
            clock,
            solved=order is None,
            path="kernel" if moved else allocation.certificate.path,
            warned=bool(warned),
            stale=bool((site.metering.works & ~trusted(site, state.meters, now.boottime_s)).any()),
            unseen=bool((state.gear.position == int(Position.UNKNOWN)).any()),
            silent=bool((state.sessions.plugged & ~scene.reachable).any()),
            unheard=any(is_silent(one, now) for one in state.envelopes),
        )
        absorbed = replace(absorbed, alarms=(*absorbed.alarms, *shares.unmet, *warned, *failsafe.sentences(modes)))
        guarded &= order is None and not moved  # else that was its task
        decision = _decide(site, snapshot, state, absorbed, scene, shares, kept, guarded, now)
        self._frozen = state
        return replace(decision, modes=modes, order=switching.order, unanswered=switching.unanswered)

    def _switch(self, state: Snapshot, worst: Floats, now: Now) -> Switching:
        """The failure path, with W (n,) as it is before this tick's grants."""

        def excess(gear: Switchgear) -> dict[str, float]:
            site = self.states.at(gear, state.envelopes, now, counted_on(state))
            return exceeded(site, uncontrolled_now(site, replace(state, gear=gear), now.boottime_s), worst)

        asked = asked_for(self.site.electrical, state.sessions)
        return advance(self.site.electrical, self.planner, state.gear, asked, excess, now)

    def _phases(self, state: Snapshot, worst: Floats, now: Now) -> Snapshot:
        """Which posts are granted L1 alone, with W (n,) as it is before this tick's grants."""

        def room_of(used: Ints) -> Room:
            site = self.states.at(state.gear, state.envelopes, now, used)
            return Room(site.limits, site.limits.capacity - uncontrolled_now(site, state, now.boottime_s))

        return decide_phases(self.site, state, worst, room_of, self.patience, now.boottime_s)

    def _shared(self, site: CompiledSite, state: Snapshot, scene: Scene, wanted: Demands) -> _Shares:
        """What the terms leave of what is ``wanted``, shared out within limits and power flow."""
        warm = Warm(stage=state.warm_stage, price=state.warm_price)
        plain = self._allocator.allocate(site.limits, wanted, warm)
        under = self._terms.share(site.limits, wanted, plain)
        under, limits, warned = self._flowing(site, scene, under, wanted)
        return _Shares(
            demands=under.demands,
            allocation=self._terms.explain(under, limits, wanted),
            limits=limits,
            term_names=self._terms.names,
            warned=warned,
            unmet=under.alarms,
        )

    def _flowing(
        self, site: CompiledSite, scene: Scene, under: UnderTerms, wanted: Demands
    ) -> tuple[UnderTerms, Limits, tuple[str, ...]]:
        """Decides once more under tighter limits where the power flow of the want breaks a bound."""
        if site.ac is None:
            return under, site.limits, ()
        want = scene.told(under.allocation.want)
        tight = tighten(site.ac, site.limits, under.demands, want, site.loads_worst)
        if tight.alarms:
            plain = self._again.allocate(tight.limits, wanted, under.allocation.warm)
            under = self._terms.share(tight.limits, wanted, plain)
        return under, tight.limits, tight.alarms

    def _grant(
        self,
        site: CompiledSite,
        limits: Limits,
        scene: Scene,
        want: Floats,
        demands: Demands,
        state: Snapshot,
        now_s: float,
    ) -> tuple[Floats, bool]:
        """Lower at once, raise as R1 admits, the guard last -> (n,) ceilings, and whether the guard had to act."""
        wanted = scene.told(want)
        ceiling = admit_raises(
            limits,
            demands.uncontrolled,
            scene.worst,
            scene.in_force,
            wanted,
            demands.minimum,
            demands.order,
            opens=demands.opens,
            steps=self._steps,
        )
        if over_reserved(limits, demands.floor, demands.uncontrolled, state).any():
            ceiling = self._below_reserves(site, limits, scene, wanted, ceiling, demands, state, now_s)
        safe = shed(
            limits,
            demands.uncontrolled,
            ceiling,
            demands.minimum,
            demands.floor,
            demands.order,
            silent=demands.silent,
            steps=self._steps,
        )
        return safe, bool((safe < ceiling - ROW_TOLERANCE).any())

    def _below_reserves(
        self,
        site: CompiledSite,
        limits: Limits,
        scene: Scene,
        wanted: Floats,
        ceiling: Floats,
        demands: Demands,
        state: Snapshot,
        now_s: float,
    ) -> Floats:
        """(n,) ``ceiling`` with raises that W does not grow by, where a limit does not even hold the reserves.

        W exceeds such a limit whatever is granted, so by R1 nothing would ever rise there. Who is raised to no more
        than his reserve changes no W, now or later; a lease or a reading that counts for more ends, and a grant of it
        would not. What is followed has to fit: the limit is obeyed with live grants.
        """
        live = leases.live_grants(state.leases, site.terms, state.sessions.plugged, now_s)
        beyond = ~scene.reachable | (scene.worst > demands.floor + ROW_TOLERANCE)
        followed = np.where(beyond, scene.worst, np.maximum(live, scene.in_force))
        goal = np.maximum(ceiling, np.minimum(wanted, demands.floor))
        return admit_raises(
            limits, demands.uncontrolled, followed, ceiling, goal, demands.minimum, demands.order, steps=self._steps
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shares:
    """Who should get what, and under what that was decided."""

    demands: Demands
    """What was asked for, within the users' terms."""
    allocation: Allocation
    """What each should get."""
    limits: Limits
    """What bounds it: the site's, tightened where the power flow asks for it."""
    term_names: tuple[str, ...] = ()
    """Whose terms."""
    warned: tuple[str, ...] = ()
    """Alarms of the power flow."""
    unmet: tuple[str, ...] = ()
    """Alarms of the terms."""


def _watched(site: CompiledSite, state: Snapshot, drawn: Floats, greeted: Bools, now: Now) -> Snapshot:
    """The lease book after what the instant alone changes: leases that lapse, cars that are seen to follow or not."""
    book = leases.lapse(state.leases, site.terms, now.boottime_s)
    plugged = state.sessions.plugged
    stands = standing_readings(state)
    seen = sampled(book, plugged, state.drawn_at_s, stands & ~greeted, now.boottime_s)
    book = watch(book, site.terms, plugged, drawn, seen, now.boottime_s)
    state = replace(state, leases=book)
    if not site.electrical.evse_detects.any():
        return state
    fresh = stands | (now.boottime_s - state.drawn_at_s <= site.terms.ttl_s)
    watched = site.electrical.evse_detects & plugged & np.isfinite(state.drawn_at_s) & fresh
    # A post on L1 alone shows where its contactor stands, not what the car will take when it goes back.
    watched &= leases.reachable(book, site.terms, now.boottime_s) & ~state.contactors.one
    return replace(state, phases=watch_phases(state.phases, watched, state.drawn, now.boottime_s))


def _decide(
    site: CompiledSite,
    before: Snapshot,
    state: Snapshot,
    absorbed: Absorbed,
    scene: Scene,
    shares: _Shares,
    kept: Held,
    guarded: bool,
    now: Now,
) -> Decision:
    """Tells the ceilings, and says what the tick has come to."""
    freeze_snapshot(state, before)  # what was heard is compared with what is granted below
    # An idle post is told its idle fallback, which is reserved anyway.
    idle = leases.idle_of(state.leases, site.terms)
    allocation, ceiling = shares.allocation, np.where(state.sessions.plugged | scene.stopped, kept.ceiling, idle)
    told = tell(site, state, scene, ceiling, absorbed.fresh, now)
    book = told.book
    said = contactors.told(state.contactors, told.lowered.evse, told.lowered.seq)
    after = replace(
        state,
        leases=book,
        contactors=contactors.told(said, told.raised.evse, told.raised.seq),
        impaired=replace(state.impaired, utc_ahead_s=failsafe.utc_ahead_s(now)),
        warm_stage=allocation.warm.stage,
        warm_price=allocation.warm.price,
        boottime_s=now.boottime_s,
        tick=state.tick + 1,
    )
    plugged = after.sessions.plugged
    stands = leases.standing(book, site.terms, plugged, scene.drawn, now.boottime_s)
    after = replace(after, overshoots=_overshoots(site, before, state, after, scene, stands))
    after = watch_envelopes(site, after, stands.worst, scene.uncontrolled, now)
    price = np.zeros(site.limits.capacity.shape[0])
    np.maximum.at(price, site.limits.limit_of_row, allocation.price)
    return Decision(
        now=now,
        site=site,
        limits=shares.limits,
        tick=after.tick,
        snapshot=after,
        lowered=told.lowered,
        raised=told.raised,
        renewal=told.renewal,
        outcomes=absorbed.outcomes,
        ceiling=stands.in_force,
        want=allocation.want,
        worst=stands.worst,
        binding_limit=allocation.binding_limit,
        term_names=shares.term_names,
        shed=kept.shed,
        shadow_price=price,
        limit_flow=site.limits.limit_flow(stands.in_force) + scene.uncontrolled,
        uncontrolled=scene.uncontrolled,
        overshoots=tuple(one for one in after.overshoots if one.lasts or one.ended_s == now.boottime_s),
        path=str(allocation.certificate.path),
        modes=(),
        alarms=(*absorbed.alarms, *_alarms(site, scene, shares, after, guarded), *envelope_alarms(site, after, now)),
    )


def _overshoots(
    site: CompiledSite,
    before: Snapshot,
    heard: Snapshot,
    after: Snapshot,
    scene: Scene,
    stands: leases.Standing,
) -> tuple[Overshoot, ...]:
    """Declares, continues and ends overshoots; in most ticks there are none.

    ``before`` the tick's events, when they were ``heard``, and ``after`` its grants.
    """
    limits, now_s = site.limits, after.boottime_s
    flow, available = limits.limit_flow(stands.worst), limits.capacity - scene.uncontrolled
    over, lasting = bool((flow > available + limits.trace).any()), any(one.lasts for one in after.overshoots)
    if not over and not lasting:
        return after.overshoots
    bound_s = np.full(flow.shape, np.inf)
    if over:
        bound_s = bounds(after.leases, site.terms, limits, stands, available, now_s)
    back = after.phases.returned & came_back(before.phases.used, after.drawn)
    returned, uneven = (_above(limits, who) for who in (back, after.phases.returned & ~back))
    anew = returned | uneven | (_news_below(site, before, heard, scene, now_s) if lasting else False)
    measured = limits.limit_flow(scene.drawn)
    seen = {"anew": anew, "returned": returned, "uneven": uneven}
    return track(after.overshoots, limits, flow, measured, available, bound_s, now_s, **seen)


def _news_below(site: CompiledSite, before: Snapshot, heard: Snapshot, scene: Scene, now_s: float) -> Bools:
    """(L,) something was heard that moves the bound of an overshoot: W is more than time alone would have left of it.

    A car came, or a reading; a car also where what is held hides its reserve as yet; or what is held ends later, as for
    a car that another one took the place of unheard. This tick's own grants are no news: they must not raise W there.
    Nor is a silent controller that speaks: what its EVSEs hold counted, so nobody else has to fall for them.
    """
    terms, plugged, drawn = site.terms, before.sessions.plugged, largest_phase(before.drawn)
    more = scene.worst > leases.worst(before.leases, terms, plugged, drawn, now_s) + ROW_TOLERANCE
    more |= leases.reserve(heard.leases, terms, heard.sessions.plugged) > leases.reserve(before.leases, terms, plugged)
    more |= leases.last_end_s(heard.leases) > leases.last_end_s(before.leases)
    return scene.anew | _above(site.limits, more)


def _above(limits: Limits, evse: Bools) -> Bools:
    """(L,) the limits that one of these EVSEs, (n,), is under."""
    if not evse.any():
        return np.zeros(limits.capacity.shape, np.bool_)
    found: Bools = limits.limit_flow(evse.astype(np.float64)) > 0.0
    return found


def _alarms(site: CompiledSite, scene: Scene, shares: _Shares, after: Snapshot, guarded: bool) -> tuple[str, ...]:
    """What an operator should know now."""
    guard = ("the guard had to lower what the grant step decided: please report this",) if guarded else ()
    waited_s = after.boottime_s - after.usage.waiting_since_s
    # While its lease of before lives nobody has lost anything yet.
    stuck = after.leases.unsettled & after.sessions.plugged & (after.leases.sent_until_s <= after.boottime_s)
    return (
        *guard,
        *silence_alarms(site, after.sessions.plugged & ~scene.reachable),
        *overshoot_alarms(site, after, scene.drawn, scene.uncontrolled),
        *conduct_alarms(site, after),
        *unsettled_alarms(site, stuck),
        *waiting_alarms(
            site, after, scene.takes & (waited_s >= LONG_WAIT_S), shares.limits, shares.allocation, scene.uncontrolled
        ),
        *meter_alarms(site, after.meters, after.boottime_s),
        *overbooked_alarms(site),
        *together_alarms(site, after.gear),
        *loss_alarms(site.electrical, after.gear, after.boottime_s),
    )
