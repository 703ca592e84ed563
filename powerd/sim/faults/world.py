"""Daemon, controllers, posts and network together, half a second at a time; nothing here is drawn, all is told."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np

from powerd.client import ControllerCore, EvseConfig
from powerd.control.decision import Decision
from powerd.control.events import Demand, SessionStarted, StopOrdered, StopReleased
from powerd.server.stamps import OVERTAKEN_S
from powerd.sim.faults.caller import Caller
from powerd.sim.faults.channel import Channel
from powerd.sim.faults.claims import Broken, Claims
from powerd.sim.faults.kinds import DAILY, Kind, Rule
from powerd.sim.faults.leader import CLOSED_S, Leader
from powerd.sim.faults.owner import Owner
from powerd.sim.faults.post import Post
from powerd.sim.faults.scenario import Happening, Scenario
from powerd.sim.faults.sites import Layout, layout
from powerd.sim.faults.tally import Tally, pair_of
from powerd.state import leases

AFTER_S = 0.7
"""Within a step of a second: controllers act at 0, the daemon ticks, controllers act again [s]."""
ABSURD_EPOCH = 2**50
"""What a test bench may have told a controller."""
MENDED_S = 20.0
"""After this somebody has put such a controller right [s]."""
BACK_S = 0.5
"""A supervisor starts a process again so soon [s]."""
OF_THE_DAEMON = frozenset(
    {Kind.REBOOT, Kind.JOURNAL_LOST, Kind.SLOW_DISK, Kind.DISK_REFUSES, Kind.DISK_KEEPS, Kind.STALL, Kind.UTC_JUMP}
)
CRASHES = frozenset(
    {
        Kind.CRASH_IDLE,
        Kind.CRASH_DECIDED,
        Kind.CRASH_LOWERED,
        Kind.CRASH_TORN,
        Kind.CRASH_COMMITTED,
        Kind.CRASH_RAISED,
    }
)


class World:
    """One scenario's world."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.layout: Layout = layout(scenario.site)
        site, terms = self.layout.site, self.layout.site.terms
        posts = site.electrical.posts
        self.posts = [
            Post(
                watchdog_s=float(terms.watchdog_s[i]),
                reaction_s=float(terms.reaction_s[i]),
                boot=float(posts.boot_current[i]),
                switch_s=(1.0, 9.0)[i % 2],
                switches=bool(site.electrical.evse_switches[i]),
            )
            for i in range(posts.count)
        ]
        self.owners = [self._owner(c) for c in range(len(site.electrical.controllers.ids))]
        drift = float(site.electrical.controllers.drift[0])
        self.leader = Leader(layout=self.layout, owners=self.owners, rate=1.0 + 0.45 * drift)
        self.leader.capacity = site.limits.capacity.copy()
        self.leader.begin(0.0, first=True)
        self.claims = Claims(layout=self.layout, posts=self.posts, owners=self.owners, leader=self.leader)
        self.tally = Tally(seeds=1)
        self.step_number = 0
        self._share = np.ones_like(self.leader.capacity)
        self._by_step: dict[int, list[Happening]] = defaultdict(list)
        for one in scenario.happenings:
            self._by_step[one.step].append(one)
        self._later: list[tuple[float, int, Kind]] = []  # (when, target, what is to be put right)
        self._last: dict[Kind, int] = {}
        self._ttl = int(terms.ttl_s.max())
        self._stops = 0
        self._refused = 0
        self._everyone = list(self.owners)  # and second processes
        self._was_doubled = False
        self.leader.owners = self.claims.owners = self._everyone
        for owner in self.owners:
            owner.begin(0.0)

    def _owner(self, number: int) -> Owner:
        site = self.layout.site
        electrical, mine = site.electrical, self.layout.names.owned[number]
        drift = float(electrical.controllers.drift[number])
        configs = [
            EvseConfig(
                evse_id=electrical.posts.ids[int(i)],
                fallback=float(site.terms.fallback[i]),
                fallback_idle=float(site.terms.fallback_idle[i]),
                boot_ceiling=float(electrical.posts.boot_current[i]),
                watchdog_s=math.inf if math.isnan(site.terms.watchdog_s[i]) else float(site.terms.watchdog_s[i]),
                switches_phases=bool(electrical.evse_switches[i]),
            )
            for i in mine
        ]
        name = electrical.controllers.ids[number]
        core = ControllerCore(name, configs, incarnation=1)
        return Owner(
            number=number,
            name=name,
            configs=configs,
            posts=[self.posts[int(i)] for i in mine],
            rate=1.0 + 0.45 * drift * (-1, 0, 1)[number % 3],
            down=Channel(),
            up=Channel(),
            core=core,
            caller=Caller(core, 0.0),
        )

    # --- time ---------------------------------------------------------------------------------------------------------

    def run(self) -> Tally:
        """All steps, then everything is healed and the optimum has to come (I6).

        Raises:
            Broken: an invariant does not hold.
        """
        while self.step_number < self.scenario.steps:
            self.step()
        self._heal()
        bound = self.step_number + self._longest()
        while not self._settled():
            if self.step_number >= bound:
                if self._left_standing():
                    break
                raise Broken(f"I6: {self._unsettled()} though everything was healed long ago")
            self.step()
        return self.tally

    def step(self) -> None:
        """One second."""
        t_s = float(self.step_number)
        tick_s = t_s + self.layout.tick_s
        for one in self._by_step.pop(self.step_number, ()):
            self._happen(one, t_s)
        for at_s, target, kind in [one for one in self._later if one[0] <= t_s]:
            self._later.remove((at_s, target, kind))
            self._put_right(kind, target, t_s)
        self._owners_act(t_s)
        decision = self.leader.tick(tick_s)
        self._posts_pass(tick_s)
        if decision is not None:
            self.claims.decided(decision, tick_s)
        self.claims.hold(tick_s)
        self.leader.progress(t_s + AFTER_S)
        self._owners_act(t_s + AFTER_S)
        self._count(decision)
        self.step_number += 1

    def _owners_act(self, t_s: float) -> None:
        self._posts_pass(t_s)
        if self._was_doubled:
            self._single_again(t_s)
        for owner in tuple(self._everyone):
            owner.act(t_s, self.leader.connect)
        self.claims.acted()
        self.claims.hold(t_s)

    def _posts_pass(self, t_s: float) -> None:
        for owner in self._everyone:
            for i, post in enumerate(owner.posts):
                if post.writer == owner.twin:
                    post.pass_time(t_s, owner.reached_s(i))

    # --- what happens -------------------------------------------------------------------------------------------------

    def _happen(self, one: Happening, t_s: float) -> None:
        if one.kind not in DAILY and self._strikes(one):
            self._note(one.kind)
        owner, value = self.owners[one.target % len(self.owners)], one.value
        if one.kind in CRASHES:
            self.leader.crash, self.leader.crash_for_s = one.kind, value
        elif one.kind in {Kind.PLUG, Kind.UNPLUG}:
            self._plug(one)
        elif one.kind in {Kind.CURTAIL, Kind.TRIP, Kind.RESTORE}:
            self._limit(one)
        elif one.kind in {Kind.STOP, Kind.RELEASE}:
            self._stop(one)
        elif one.kind is Kind.RANK:
            self._rank(one)
        elif one.kind.value.startswith(("owner", "epoch")):
            self._owner_fault(one.kind, owner, value, t_s)
        elif one.kind is Kind.CALLS and not owner.dead:
            self._go_over_to_calls(owner, value, t_s)
        elif one.kind in OF_THE_DAEMON:
            self._leader_fault(one.kind, value, t_s)
        elif one.kind.value.endswith(("-up", "-down")) or one.kind in {Kind.CUT, Kind.PARTITION}:
            self._network_fault(one.kind, owner, value, t_s)
        else:
            self._post_fault(one.kind, one.target % len(self.posts), value, t_s)

    def _strikes(self, one: Happening) -> bool:
        """It meets somebody who can suffer it: else it is no fault, and not counted as one."""
        if one.kind in CRASHES | {Kind.REBOOT, Kind.STALL, Kind.SLOW_DISK, Kind.DISK_REFUSES, Kind.STOP}:
            return self.leader.up
        if one.kind is Kind.OWNER_TWIN:
            return self._may_double(self.owners[one.target % len(self.owners)])
        if one.kind.value.startswith(("owner", "epoch", "calls")):
            return not self.owners[one.target % len(self.owners)].dead
        if one.kind in {Kind.LAGGING, Kind.DEFIANT}:
            return self.posts[one.target % len(self.posts)].plugged
        if one.kind is Kind.POST_REBOOT:
            return self._known(one.target % len(self.posts))
        return True

    def _plug(self, one: Happening) -> None:
        post = self.posts[one.target % len(self.posts)]
        if one.kind is Kind.PLUG and not post.plugged:
            post.plug(one.value or 32.0)
        elif one.kind is Kind.UNPLUG and post.plugged:
            post.unplug()

    def _limit(self, one: Happening) -> None:
        """A limit moves when the daemon is there to see it: nobody else could declare it."""
        whole, least = self.layout.site.limits.capacity, self.layout.share_min
        if one.kind is Kind.RESTORE:
            self._share[:] = 1.0
        else:
            share = max(least, least + 0.02 if one.kind is Kind.TRIP else one.value)
            concerned = np.ones_like(whole) if one.target % 3 == 0 else self.layout.outer == one.target % 3 % 2
            self._share = np.where(concerned > 0, np.minimum(self._share, share), self._share)
        self.leader.next_capacity = whole * self._share
        names = self.layout.site.limits.name
        self.claims.caused |= {names[l] for l in np.flatnonzero(whole * self._share < self.leader.capacity)}

    def _stop(self, one: Happening) -> None:
        if not self.leader.up or self.leader.snapshot is None:
            return
        if one.kind is Kind.RELEASE:
            for stop in self.leader.snapshot.stops:
                self.leader.orders.append(StopReleased(request_id="", stop_id=stop.stop_id, reason="checked"))
            self.claims.stops.clear()
            return
        self._stops += 1
        evse = np.array([one.target % len(self.posts)])
        order = StopOrdered(request_id="", stop_id=f"s{self._stops}", element="", evse=evse, reason="told")
        self.leader.orders.append(order)

    def _rank(self, one: Happening) -> None:
        if self.leader.up:
            demand, evse = Demand(priority=int(one.value)), one.target % len(self.posts)
            session = SessionStarted(request_id="", evse=evse, session_id=f"r{self.step_number}-{evse}", demand=demand)
            self.leader.orders.append(session)

    def _network_fault(self, kind: Kind, owner: Owner, value: float, t_s: float) -> None:
        channel = owner.up if kind.value.endswith("-up") else owner.down
        if kind in {Kind.DROP_UP, Kind.DROP_DOWN}:
            channel.drop += int(value)
        elif kind in {Kind.COPY_UP, Kind.COPY_DOWN}:
            channel.copy_s = value
        elif kind in {Kind.LATE_UP, Kind.LATE_DOWN}:
            channel.late_s = value
        elif kind in {Kind.HELD_UP, Kind.HELD_DOWN}:
            channel.held_until_s = t_s + value
        elif kind is Kind.PARTITION:
            owner.up.closed_until_s = owner.down.closed_until_s = t_s + value
        else:
            owner.up.cut_stream = owner.stream
            owner.down.cut_stream = 0 if int(10 * value) % 2 else owner.stream  # what is under way may still come
            owner.broken_s = min(owner.broken_s, t_s + value)
            stream = self.leader.streams.get(owner.number)
            if stream is not None:
                stream.closes_s = t_s + (6.0 - value)

    def _go_over_to_calls(self, owner: Owner, value: float, t_s: float) -> None:
        """The daemon notices the end of the stream a bit later."""
        owner.call(t_s + value, t_s)
        stream = self.leader.streams.get(owner.number)
        if stream is not None:
            stream.closes_s = t_s + CLOSED_S

    def _leader_fault(self, kind: Kind, value: float, t_s: float) -> None:
        leader = self.leader
        if kind is Kind.SLOW_DISK:
            leader.disk.commit_s, leader.disk.slow_until_s = value, t_s + 5.0
        elif kind in {Kind.DISK_REFUSES, Kind.DISK_KEEPS}:
            leader.disk.refuses_until_s, leader.disk.keeps = t_s + value, kind is Kind.DISK_KEEPS
            leader.disk.keeps_oldest = int(10 * value) % 2 == 1
        elif kind is Kind.STALL:
            leader.stalled_until_s = t_s + value
        elif kind is Kind.UTC_JUMP:
            leader.utc_hours += value
        elif kind is Kind.REBOOT:
            leader.reboot(t_s, value)
        else:
            leader.die(t_s, value)
            leader.disk.lose()
            leader.published = (0, 0)
            self.claims.stops.clear()

    def _owner_fault(self, kind: Kind, owner: Owner, value: float, t_s: float) -> None:
        if kind is Kind.OWNER_STOPPED:
            owner.stopped_until_s = t_s + value
        elif kind is Kind.OWNER_TWIN and self._may_double(owner):
            self._double(owner, value, t_s)
        elif kind is Kind.OWNER_LATE and not owner.dead:
            owner.say_last(value, t_s, self.leader.connect)
            owner.kill(t_s + BACK_S, t_s)
            self.claims.epochs.pop(owner.number, None)
        elif kind in {Kind.OWNER_KILLED, Kind.OWNER_REBOOT} and not owner.dead:
            owner.kill(t_s + value, t_s)
            self.claims.epochs.pop(owner.number, None)
            if kind is Kind.OWNER_REBOOT:
                owner.base_s = t_s
                for post in owner.posts:
                    self._restart_post(post, t_s)
        elif kind in {Kind.EPOCH_AHEAD, Kind.EPOCH_ABSURD} and not owner.dead:
            if kind is Kind.EPOCH_ABSURD:
                if owner.core.highest_epoch < ABSURD_EPOCH:
                    owner.sane_epoch = owner.core.highest_epoch
                self._later.append((t_s + MENDED_S, owner.number, kind))
            owner.core.highest_epoch += int(value) if kind is Kind.EPOCH_AHEAD else ABSURD_EPOCH
            owner.broken_s = min(owner.broken_s, t_s)

    def _may_double(self, owner: Owner) -> bool:
        """It lives, and has no contactors, whose position each of two processes would believe to know."""
        return not owner.dead and not any(post.switches for post in owner.posts)

    def _double(self, owner: Owner, value: float, t_s: float) -> None:
        """A second process: a connection and orders of its own, the same posts."""
        self._end_second(owner.number, t_s)
        twin = self._owner(owner.number)
        twin.twin, twin.numbers, twin.base_s, twin.memory = 1, owner.numbers, owner.base_s, owner.core.memory
        twin.begin(t_s)
        self.claims.epochs.pop(owner.number + 100, None)
        self._everyone.append(twin)
        self._later.append((t_s + value, owner.number, Kind.OWNER_TWIN))
        for post in owner.posts:
            post.doubled = post.ever_odd = self._was_doubled = True

    def _end_second(self, number: int, t_s: float) -> None:
        """The mistake is found: the second process ends."""
        for twin in [one for one in self._everyone if one.twin and one.number == number]:
            twin.kill(math.inf, t_s)
            self._everyone.remove(twin)
            stream = self.leader.streams.get(number)
            if stream is not None and stream.owner is twin:
                stream.closes_s = t_s + CLOSED_S
            for post in twin.posts:
                post.writer, post.granted_s = 0, math.inf

    def _single_again(self, t_s: float) -> None:
        """What a post does is known again as soon as it follows a grant of the only process."""
        doubled = {one.number for one in self._everyone if one.twin}
        for owner in self.owners:
            for post in owner.posts:
                if post.doubled and owner.number not in doubled:
                    post.doubled = t_s <= post.granted_s + post.reaction_s

    def _post_fault(self, kind: Kind, index: int, value: float, t_s: float) -> None:
        post = self.posts[index]
        if kind is Kind.POST_REBOOT:
            self._restart_post(post, t_s)
            self._later.append((t_s + value, index, kind))
        elif kind is Kind.SLOW_ACTUATOR:
            owner, place = self._owner_of(index)
            owner.lanes[place].slow_s, owner.lanes[place].slow_until_s = value, t_s + 10.0
        elif kind is Kind.POST_DEAF:
            post.deaf_until_s = t_s + value
        elif kind is Kind.LAGGING:
            post.lag_s = value
        elif kind is Kind.DEFIANT:
            post.defiant_until_s, post.ever_odd = t_s + value, True
        elif kind is Kind.METER_SILENT:
            post.silent_until_s, post.ever_odd = t_s + value, True
        elif kind is Kind.METER_LYING:
            post.lying_until_s, post.lie, post.ever_odd = t_s + 20.0, value, True

    def _restart_post(self, post: Post, t_s: float) -> None:
        """A post restarts with the car that the daemon knows of: for another one nobody reserves the boot current."""
        if self._known(self.posts.index(post)):
            post.restart(t_s)
            post.ever_odd = True
            self.claims.caused.update(self.layout.site.limits.name)

    def _known(self, index: int) -> bool:
        """The daemon knows of the car that is there, not only of one before, whose unplugging may be under way."""
        post, snapshot = self.posts[index], self.leader.snapshot
        owner, place = self._owner_of(index)
        if snapshot is None or not post.plugged or owner.seen[place] != post.cars:
            return False
        book, lease = snapshot.leases, owner.core.evses[place]
        heard = bool(book.echo_incarnation[index] == owner.incarnation and book.echo_boottime_s[index] >= lease.plug_s)
        told = lease.told_plug_s in {0.0, float(book.plug_boottime_s[index])}
        return bool(snapshot.sessions.plugged[index]) and heard and told

    def _owner_of(self, index: int) -> tuple[Owner, int]:
        owner = self.owners[int(self.layout.site.electrical.posts.controller[index])]
        return owner, int(np.searchsorted(self.layout.names.owned[owner.number], index))

    def _put_right(self, kind: Kind, target: int, t_s: float) -> None:
        if kind is Kind.POST_REBOOT:
            owner, place = self._owner_of(target)
            owner.restarted.add(place)
            return
        if kind is Kind.OWNER_TWIN:
            self._end_second(target, t_s)
            return
        owner = self.owners[target]
        owner.memory = replace(owner.memory, highest_epoch=min(owner.memory.highest_epoch, owner.sane_epoch))
        owner.core.highest_epoch = min(owner.core.highest_epoch, owner.sane_epoch)
        self.claims.epochs.pop(target, None)
        owner.broken_s = min(owner.broken_s, t_s)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """No fault any more, whole limits, no stop; the cars stay."""
        t_s = float(self.step_number)
        self._limit(Happening(step=0, kind=Kind.RESTORE))
        leader = self.leader
        leader.crash = None
        leader.disk.heal(t_s)
        leader.stalled_until_s, leader.restart_s = -1.0, max(leader.base_s, min(leader.restart_s, t_s))
        for owner in self.owners:
            self._end_second(owner.number, t_s)
            owner.stopped_until_s, owner.dead_until_s = -1.0, min(owner.dead_until_s, t_s)
            owner.calls_until_s = math.inf if owner.calls_until_s > t_s else -1.0  # who asks so has to get it so, too
            owner.down.heal()
            owner.up.heal()
            for lane in owner.lanes:
                lane.slow_until_s = -1.0
        for post in self.posts:
            post.lag_s, post.deaf_until_s = 0.0, -1.0
            post.defiant_until_s, post.silent_until_s, post.lying_until_s = -1.0, -1.0, -1.0
        for at_s, target, kind in self._later:
            self._later.remove((at_s, target, kind))
            self._later.append((t_s, target, kind))

    def _longest(self) -> int:
        """Steps within which the optimum must come: E, twice where a late hello is ahead; slow cars."""
        terms = self.layout.site.terms
        life = float(np.max(np.where(np.isfinite(terms.life_s), terms.life_s, 0.0)))
        snapshot = self.leader.snapshot
        odd = snapshot is None or bool(np.any(snapshot.leases.reaction_s > terms.reaction_s))
        odd |= snapshot is not None and bool(np.any((snapshot.leases.above > 0) | snapshot.leases.defiant))
        return int(2 * life + 25 + (200 if odd else 0) + (OVERTAKEN_S if self._was_doubled else 0))

    def _settled(self) -> bool:
        """Everybody has what he should have, and his post does it."""
        self._stop(Happening(step=0, kind=Kind.RELEASE))
        return self._unsettled() == ""

    def _left_standing(self) -> bool:
        """A post stands as a second process left it: its own one is heard, and had nothing to write since."""
        snapshot = self.leader.snapshot
        if snapshot is None:
            return False
        book, now_s = snapshot.leases, snapshot.boottime_s
        heard = leases.reachable(book, self.layout.site.terms, now_s)
        own = [self._owner_of(i)[0].incarnation for i in range(len(self.posts))]
        return any(
            post.doubled and heard[i] and book.echo_incarnation[i] == own[i] for i, post in enumerate(self.posts)
        )

    def _unsettled(self) -> str:
        decision = self.leader.decision
        connected = self.leader.streams or all(owner.calls_until_s == math.inf for owner in self.owners)
        if decision is None or not self.leader.up or not connected:
            return "there is no daemon"
        book, want = decision.snapshot.leases, decision.want
        # Who waits for his first grant does what an idle post does: even one of 0 would open his fallback. Where he was
        # stopped he stays at 0, as long as the daemon, or since its restart only his controller, knows of it.
        waits = ~book.granted & ~book.sent_latched & (want == 0.0)
        should = np.where(waits, leases.idle_of(book, self.layout.site.terms), want)
        for i, post in enumerate(self.posts):
            if bool(decision.snapshot.sessions.plugged[i]) != post.plugged:
                return f"the daemon does not know whether EVSE {i} has a car"
            if post.plugged and abs(should[i] - decision.ceiling[i]) > 0.05:
                return f"EVSE {i} is granted {decision.ceiling[i]:.2f} A and should have {should[i]:.2f} A"
            if post.plugged and abs(post.ceiling - decision.ceiling[i]) > 0.05 and not (waits[i] and post.latched):
                return f"EVSE {i} stands at {post.ceiling:.2f} A and was granted {decision.ceiling[i]:.2f} A"
        return self._kept_off(decision)

    def _kept_off(self, decision: Decision) -> str:
        """Whom the decision itself wants at 0, against the plant: there is room for its minimum beside everybody's.

        Who was told 0 since he came may rest, and one class takes the room of another.
        """
        site, want, plugged = self.layout.site, decision.want, np.array([post.plugged for post in self.posts])
        if site.electrical.evse_switches.any() or np.unique(decision.snapshot.sessions.priority[plugged]).size > 1:
            return ""
        posts, limits = site.electrical.posts, decision.site.limits
        reserve = leases.reserve(decision.snapshot.leases, site.terms, plugged)
        once_on = np.maximum(np.maximum(posts.min_ceiling, posts.fallback), reserve)
        for i in np.flatnonzero(plugged & (want <= 0.0)).tolist():
            if i in self.claims.told_off:
                continue
            load = np.where((plugged & (want > 0.0)) | (np.arange(want.shape[0]) == i), once_on, reserve)
            if (limits.limit_flow(load) <= limits.capacity - decision.uncontrolled).all():
                return f"EVSE {i} has a car that was never told 0, gets nothing, and there is room for its minimum"
        return ""

    # --- what was covered ---------------------------------------------------------------------------------------------

    def _note(self, kind: Kind) -> None:
        self.tally.faults[kind] += 1
        for other, step in self._last.items():
            if self.step_number - step <= self._ttl:
                self.tally.pairs[pair_of(kind, other)] += 1
        self._last[kind] = self.step_number

    def _count(self, decision: Decision | None) -> None:
        if decision is None or not any(post.plugged for post in self.posts):
            self.tally.idle += 1
            return
        self.tally.steps += 1
        self.tally.binding += int(decision.binding_limit.max() >= 0)
        recent = [kind for kind, step in self._last.items() if self.step_number - step <= self._ttl]
        for rule in self._at_work(decision):
            self.tally.rules[f"{rule}|"] += 1
            for kind in recent:
                self.tally.rules[f"{rule}|{kind}"] += 1

    def _at_work(self, decision: Decision) -> list[Rule]:
        """The rules that did something in this step."""
        terms, book, now_s = self.layout.site.terms, decision.snapshot.leases, decision.now.boottime_s
        plugged = decision.snapshot.sessions.plugged
        refused = [owner.refused() for owner in self.owners]
        refusals, old_epoch = sum(every for every, _ in refused), sum(old for _, old in refused)
        expired = sum(owner.expired for owner in self.owners)
        was = (self._refused, self._fenced, self._expired)
        self._refused, self._fenced, self._expired = refusals, old_epoch + self.leader.fenced, expired
        works = {
            Rule.RAISE_HELD: ((decision.ceiling < decision.want - 0.1) & plugged).any(),
            Rule.RAISE: decision.raised.evse.shape[0] > 0,
            Rule.LOWER: decision.lowered.evse.shape[0] > 0,
            Rule.RESTART: self.leader.starts > 1 and book.hold_until_s[:, 0].max() > now_s,
            Rule.FENCE: self._fenced != was[1] or not np.isnan(book.barred_ceiling).all(),
            Rule.RESERVE: (leases.reserve(book, terms, plugged) > decision.ceiling + 0.1).any(),
            Rule.OVERSHOOT: bool(decision.overshoots),
            Rule.SILENCE: (plugged & ~leases.reachable(book, terms, now_s)).any(),
            Rule.CONTROLLER: refusals != was[0],
            Rule.EXPIRY: expired != was[2],
            Rule.REACTION: (book.defiant | (book.reaction_s > terms.reaction_s)).any(),
            Rule.STOPPED: bool(decision.snapshot.stops),
        }
        return [rule for rule, at_work in works.items() if at_work]

    _fenced = 0
    _expired = 0
