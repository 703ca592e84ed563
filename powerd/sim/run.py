"""The lock-step loop: one instant after the other, everybody waiting for everybody; no sleeps, no clock but its own.

At each instant: cars leave and come, the policy is told and answers with ceilings, the posts put them into force, and
the world moves on to the next instant. Around every change (a plug, a ceiling, a current) instants are 1 s apart until
nothing has changed for a while; then steps grow to what leases allow, and while no car is anywhere the loop jumps to
the next arrival. All instants are whole seconds from the start of the run.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from powerd.limits import Floats, Posts
from powerd.sim.cars import Battery, Cars, make_car
from powerd.sim.grid import News
from powerd.sim.plant import Plant
from powerd.sim.policies import Ceilings, Moment
from powerd.sim.sessions import RecordedSession
from powerd.sim.wires import GridState

#: The run begins this long before the first car comes [s].
LEAD_S = 10
#: A driver states the demand this long after plugging in [s].
STATES_AFTER_S = 1
#: A current that moved by no more than this since the last instant has not changed [own unit]: the fall of a tail.
DRAW_CHANGED = 0.25
#: Load vectors that agree to this are the same one [own unit].
SAME_LOAD = 0.01

_LEAVE, _COME, _STATE = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Served:
    """One session after the run."""

    session: RecordedSession
    """As recorded."""
    needed_kwh: float
    """min(recorded, what the post could deliver in the stay) [kWh]."""
    delivered_kwh: float
    """What it got [kWh]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SettledLoad:
    """A load that stood for a while."""

    drawn: Floats
    """(n,) [own unit]."""
    state: GridState
    """What was closed, sound and alive then."""
    first_s: int
    """When it first stood, seconds from the start of the run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """What a run left besides the plant's books."""

    start: datetime
    """Wall clock at second 0 (aware UTC)."""
    served: tuple[Served, ...]
    """Every session, in the order in which they left."""
    settled: tuple[SettledLoad, ...]
    """Every distinct load that stood, in each state of the wires, in order of first appearance."""
    step_ms: Floats
    """(T',) time that each decision took [ms]; empty without a daemon."""


class Agenda:
    """Who leaves, comes and speaks when."""

    def __init__(self, sessions: Sequence[RecordedSession], evse_of: dict[str, int]) -> None:
        """At least one session; ``evse_of`` maps EVSE ids to columns."""
        first = min(s.arrival for s in sessions)
        self.start = first.replace(microsecond=0) - timedelta(seconds=LEAD_S)
        self._events: list[tuple[int, int, int, int]] = []
        free_s: dict[int, int] = {}
        for k, session in enumerate(sessions):
            evse = evse_of[session.evse_id]
            come = max(self._second(session.arrival), free_s.get(evse, 0) + 1)  # a swap of cars takes 1 s
            leave = max(self._second(session.departure), come + 1)
            free_s[evse] = leave
            self._events += [(leave, _LEAVE, evse, k), (come, _COME, evse, k)]
            if session.said_energy_kwh is not None or session.said_departure is not None:
                self._events.append((come + STATES_AFTER_S, _STATE, evse, k))
        heapq.heapify(self._events)
        self.last_s = max(event[0] for event in self._events)

    def _second(self, moment: datetime) -> int:
        return math.ceil((moment - self.start).total_seconds())

    def next_s(self) -> float:
        """Second of the next event; inf = none is left."""
        return self._events[0][0] if self._events else math.inf

    def due(self, now_s: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]]]:
        """(leaving, coming, stating) pairs (EVSE, session number) of this instant; each is handed out once."""
        out: tuple[list[tuple[int, int]], ...] = ([], [], [])
        while self._events and self._events[0][0] <= now_s:
            _, kind, evse, session = heapq.heappop(self._events)
            out[kind].append((evse, session))
        return out[_LEAVE], out[_COME], out[_STATE]


class Loop:
    """One run of recorded sessions under one policy."""

    def __init__(
        self,
        *,
        posts: Posts,
        sessions: Sequence[RecordedSession],
        plant: Plant,
        battery: Battery,
        seed: int,
    ) -> None:
        self._posts, self._sessions, self._plant = posts, sessions, plant
        evse_of = {evse_id: i for i, evse_id in enumerate(posts.ids)}
        self._agenda = Agenda(sessions, evse_of)
        rng = np.random.default_rng(seed)  # one draw order, whatever the policy: all policies see the same cars
        self._needed = [needed_kwh(s, posts, evse_of[s.evse_id]) for s in sessions]
        self._cars_of = [
            make_car(need, evse_of[s.evse_id], posts, battery, rng)
            for s, need in zip(sessions, self._needed, strict=True)
        ]
        self._cars = Cars(posts)
        self._at: dict[int, int] = {}  # EVSE -> session number
        self._served: list[Served] = []
        self._settled: dict[bytes, SettledLoad] = {}
        self._step_ms: list[float] = []
        self._before = (np.zeros(posts.count), np.zeros(posts.count))  # ceilings, drawn of the last instant
        self._changed_s = 0

    @property
    def last_s(self) -> int:
        """Second at which the last car leaves."""
        return self._agenda.last_s

    @property
    def start(self) -> datetime:
        """Wall clock at second 0 (aware UTC)."""
        return self._agenda.start

    @property
    def ceilings(self) -> Floats:
        """(n,) the ceilings of the last instant [own unit]."""
        return self._before[0]

    @property
    def cars(self) -> Cars:
        """The cars; not to be changed from outside."""
        return self._cars

    def session_at(self, evse: int) -> RecordedSession | None:
        """Whose car is plugged in at EVSE index ``evse``; None = nobody's."""
        number = self._at.get(evse)
        return None if number is None else self._sessions[number]

    def run(self, policy: Ceilings, progress: Callable[[int], None] = lambda _: None) -> Record:
        """Drives ``policy``, entered by the caller, to the end; ``progress`` hears each second reached."""
        now_s = 0
        while now_s <= self._agenda.last_s:
            news = self._plant.grid.advance(now_s)
            moment = self._events(now_s, news)
            answer = policy.decide(moment)
            for order in answer.orders:
                order.refused = not self._plant.grid.gear.order(order.branch, order.close, float(now_s))
            if not math.isnan(answer.step_ms):
                self._step_ms.append(answer.step_ms)
            self._cars.apply(answer.ceilings)
            seconds = self._seconds(now_s, moment, answer.ceilings, policy)
            drawn = self._drawn()
            self._plant.account(now_s, seconds, drawn, answer.ceilings, self._cars.plugged)
            self._cars.advance(seconds, self._plant.grid.live)
            now_s += seconds
            progress(now_s)
        return Record(
            start=self._agenda.start,
            served=tuple(self._served),
            settled=tuple(self._settled.values()),
            step_ms=np.array(self._step_ms),
        )

    def _drawn(self) -> Floats:
        """(n,) what flows: nothing where there is no supply [own unit]."""
        return self._cars.drawn() * self._plant.grid.live

    def _events(self, now_s: int, news: News) -> Moment:
        leaving, coming, stating = self._agenda.due(now_s)
        for evse, number in leaving:
            got = self._cars.unplug(evse)
            self._served.append(
                Served(session=self._sessions[number], needed_kwh=self._needed[number], delivered_kwh=got)
            )
            del self._at[evse]
        for evse, number in coming:
            self._cars.plug(evse, self._cars_of[number])
            self._at[evse] = number
        return Moment(
            utc=self._agenda.start + timedelta(seconds=now_s),
            elapsed_s=now_s,
            unplugged=tuple(evse for evse, _ in leaving),
            plugged=tuple(evse for evse, _ in coming),
            started=tuple((evse, self._sessions[k]) for evse, k in stating if self._at.get(evse) == k),
            drawn=self._drawn(),
            news=news,
            closed=self._plant.grid.gear.closed.copy(),
        )

    def _seconds(self, now_s: int, moment: Moment, ceilings: Floats, policy: Ceilings) -> int:
        """Length of the step from ``now_s`` on [s]; notes a settled load."""
        drawn = self._drawn()
        old_ceilings, old_drawn = self._before
        self._before = (ceilings.copy(), drawn)
        changed = bool(moment.unplugged or moment.plugged or moment.started)
        changed |= bool((ceilings != old_ceilings).any() or (np.abs(drawn - old_drawn) > DRAW_CHANGED).any())
        if changed or self._cars.following.any():
            self._changed_s = now_s
        if self._plant.grid.busy(now_s, policy.pace.quiet_s):
            self._changed_s = now_s
        until_event = min(self._agenda.next_s(), self._plant.grid.next_s()) - now_s
        if now_s - self._changed_s < policy.pace.quiet_s:
            return 1
        if drawn.any():
            state = self._plant.grid.gear.state(float(now_s))
            key = np.round(drawn / SAME_LOAD).astype(np.int64).tobytes() + state.key
            self._settled.setdefault(key, SettledLoad(drawn=drawn, state=state, first_s=now_s))
        if not self._cars.plugged.any():
            return int(until_event) if math.isfinite(until_event) else 1
        steady = math.ceil(self._cars.steady_s()) if math.isfinite(self._cars.steady_s()) else policy.pace.longest_s
        return max(1, int(min(policy.pace.longest_s, until_event, steady)))


def needed_kwh(session: RecordedSession, posts: Posts, evse: int) -> float:
    """min(recorded, what the post could deliver in the stay) [kWh]: what a run is measured against."""
    return min(session.energy_kwh, float(posts.max_ceiling[evse] * posts.kw_per_unit[evse]) * session.stay_s / 3600.0)
