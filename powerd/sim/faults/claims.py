"""The invariants of docs/leases.md, asserted from the plant's own truth after every half step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from powerd.control.decision import Decision, GrantBatch
from powerd.limits import Floats
from powerd.sim.faults.leader import Leader
from powerd.sim.faults.owner import Owner
from powerd.sim.faults.post import Post
from powerd.sim.faults.sites import Layout
from powerd.state import columns
from powerd.state.snapshot import worst_of

SLACK_A = 1e-4
"""Rounding of sums of a dozen ceilings [A]."""
LATE_S = 1.5
"""A bound that lies between two ticks is seen at the second one [s]."""


class Broken(Exception):
    """An invariant does not hold."""


@dataclass(kw_only=True)
class Claims:
    """What must hold, and what of the past it needs for that."""

    layout: Layout
    posts: list[Post]
    owners: list[Owner]
    leader: Leader
    windows: dict[str, float] = field(default_factory=dict)
    """Limit -> true time until which its declared overshoot may last."""
    caused: set[str] = field(default_factory=set)
    """Limits that fell, or met a post that restarted, and were not kept at a tick since: R6 may have them exceeded."""
    orders: dict[int, tuple[int, tuple[int, int]]] = field(default_factory=dict)
    """EVSE -> (incarnation, newest order accepted)."""
    epochs: dict[int, int] = field(default_factory=dict)
    """Controller -> highest epoch it has accepted in this process."""
    stops: set[str] = field(default_factory=set)
    """Stops that were confirmed to the operator."""
    told_off: set[int] = field(default_factory=set)
    """EVSEs whose cars, as far as the daemon could hear, were told 0: they may rest for a while."""
    _before: tuple[int, Floats] | None = None  # W after the last tick, and of which life of the leader
    _fitted: list[tuple[float, bool]] = field(default_factory=list)  # draws, on L1 alone or not, last found to fit
    _under: Floats | None = None  # and the limits they fitted under
    _plugs_told_s: Floats | None = None  # newest plug changes that the daemon had heard of

    def decided(self, decision: Decision, t_s: float) -> None:
        """After a tick."""
        lasting = [one for one in decision.overshoots if one.lasts]
        self.windows = {one.limit: self.leader.true_time(one.until_s) + LATE_S for one in lasting}
        self.caused.intersection_update(self.windows)
        for one in lasting:
            if decision.now.boottime_s > one.until_s + LATE_S:
                raise Broken(
                    f"I5: overshoot of {one.limit} should have been over at {one.until_s:.1f}, it is {t_s:.1f}"
                )
        self._hear_of_cars(decision)
        for batch in (decision.lowered, decision.raised):
            self._granted(decision, batch)
        self._raised_within(decision)
        for alarm in decision.alarms:
            if "please report" in alarm:
                raise Broken(alarm)
        for i, post in enumerate(self.posts):
            if decision.snapshot.leases.defiant[i] and not post.ever_odd:
                raise Broken(f"trace 14: EVSE {i} obeys and is called non-compliant")
        if self.leader.reused:
            raise Broken(f"R4: {self.leader.reused[0]}")
        self._stopped(decision)
        if self.leader.up:
            self._stops_kept()
            self._covered(decision.worst, t_s)

    def _hear_of_cars(self, decision: Decision) -> None:
        """Another car was told nothing yet. One that came while nobody looked is taken for the car before: it rests."""
        plugged, told_s = decision.snapshot.sessions.plugged, decision.snapshot.leases.plug_boottime_s
        before, self._plugs_told_s = self._plugs_told_s, told_s
        # A process that finds a car says 0: it knows of no change.
        changed = np.zeros_like(plugged) if before is None else (told_s != before) & (told_s > 0.0)
        self.told_off.difference_update(np.flatnonzero(changed | ~plugged).tolist())

    def _granted(self, decision: Decision, batch: GrantBatch) -> None:
        """I8 and I10 of one message."""
        least = np.minimum(self.layout.site.electrical.posts.min_ceiling, decision.snapshot.sessions.min_ceiling)
        idle = self.layout.site.terms.fallback_idle
        for i, ceiling in zip(batch.evse.tolist(), batch.ceiling.tolist(), strict=True):
            if 0.0 < ceiling < least[i] - SLACK_A and ceiling != idle[i]:
                raise Broken(f"I8: EVSE {i} is granted {ceiling} A, below its minimum {least[i]}")
            if ceiling > 0.0 and any(i in stop.evse for stop in decision.snapshot.stops):
                raise Broken(f"I10: EVSE {i} is granted {ceiling} A under a stop")
            if ceiling <= 0.0 and decision.snapshot.sessions.plugged[i]:
                self.told_off.add(i)

    def _raised_within(self, decision: Decision) -> None:
        """R1, whatever was declared: nothing that counts for more by its new grant is under a limit that W exceeds."""
        before, self._before = self._before, (self.leader.starts, decision.worst)
        batch, book, limits = decision.raised, decision.snapshot.leases, decision.site.limits
        if before is None or before[0] != self.leader.starts or not batch.evse.shape[0]:
            return
        until_s = np.where(book.slot_seq == batch.seq, -np.inf, book.slot_until_s)
        ungranted = replace(decision.snapshot, leases=columns.replace(book, slot_until_s=until_s))
        counted = np.maximum(before[1], worst_of(ungranted, self.layout.site.terms))
        over = limits.limit_flow(decision.worst) > limits.capacity - decision.uncontrolled + SLACK_A
        for i in batch.evse[decision.worst[batch.evse] > counted[batch.evse] + SLACK_A].tolist():
            above = limits.limit_flow(np.eye(1, counted.shape[0], i)[0]) > 0.0
            if (above & over).any():
                raise Broken(f"R1: EVSE {i} was raised under a limit that W exceeds")

    def _stopped(self, decision: Decision) -> None:
        """I10 at the posts: who has acked a stop stays at 0 while it holds, also in silence; no restart is meant."""
        book = decision.snapshot.leases
        acked = book.sent_latched & (book.explicit_seq > 0) & (book.acked_seq >= book.explicit_seq)
        for i in {int(i) for stop in decision.snapshot.stops for i in stop.evse}:
            post = self.posts[i]
            if acked[i] and post.ceiling > 0.0 and not post.booted and not post.doubled:
                raise Broken(f"I10: EVSE {i} has acked a stop and stands at {post.ceiling:.2f} A")

    def _stops_kept(self) -> None:
        """Nothing that was confirmed is lost."""
        snapshot, durable = self.leader.snapshot, self.leader.disk.state
        if snapshot is None or durable is None:
            return
        held = {stop.stop_id for stop in snapshot.stops}
        if not self.stops <= held:
            raise Broken(f"I10: stop {sorted(self.stops - held)} was confirmed and is forgotten")
        self.stops = held & {stop.stop_id for stop in durable.stops}

    def _covered(self, worst: Floats, t_s: float) -> None:
        """I2."""
        for i, post in enumerate(self.posts):
            could = 0.0 if post.doubled else post.could(t_s)
            if could > worst[i] + SLACK_A:
                raise Broken(f"I2: EVSE {i} could draw {could:.2f} A, W is {worst[i]:.2f} A")

    def hold(self, t_s: float) -> None:
        """I1, at any time; what is lost, late, copied or killed is no excuse, whatever was declared."""
        seen = [(0.0 if post.doubled else post.could(t_s), post.one) for post in self.posts]
        if seen == self._fitted and self.leader.capacity is self._under:
            return
        limit_of_row = self.layout.site.limits.limit_of_row
        could, one = np.array(seen).T
        load = self.layout.rows @ (could * (1.0 - one)) + self.layout.rows_one @ (could * one) + self.layout.loads
        over = load - self.leader.capacity[limit_of_row]
        if over.max() <= SLACK_A:
            self._fitted, self._under = seen, self.leader.capacity
            return
        for r in np.flatnonzero(over > SLACK_A):
            name = self.layout.site.limits.name[limit_of_row[r]]
            if name not in self.caused or t_s > self.windows.get(name, -math.inf):
                raise Broken(f"I1: {name} could carry {load[r]:.2f} A, {over[r]:.2f} A too much")

    def acted(self) -> None:
        """I3, whenever controllers have acted."""
        for owner in self.owners:
            if not owner.dead:
                self._in_order(owner)

    def _in_order(self, owner: Owner) -> None:
        """I3 of one controller."""
        epoch, process = owner.core.highest_epoch, owner.number + 100 * owner.twin
        if epoch < self.epochs.get(process, 0):
            raise Broken(f"I3: controller {process} went back to epoch {epoch}")
        for lease in owner.core.evses:
            key = process * 1000 + lease.index
            incarnation, order = self.orders.get(key, (0, (0, 0)))
            if incarnation == owner.incarnation and lease.accepted < order:
                raise Broken(f"I3: EVSE {key} accepted {lease.accepted} after {order}")
            self.orders[key] = (owner.incarnation, lease.accepted)
