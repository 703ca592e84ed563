"""The process of a charger controller: the client core, its clock, its actuators' queues, its connection."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from powerd.client import ControllerCore, EvseConfig, Memory, Write
from powerd.client.lease import NONE, Refusal
from powerd.sim.faults.caller import Answer, Caller
from powerd.sim.faults.channel import Channel
from powerd.sim.faults.post import Post
from powerd.v1 import controller_service_pb2 as pb

ACTUATOR_S = 0.2
"""How long a write to an actuator takes [s]."""
RECONNECT_S = 0.7
"""Pause before a new stream [s]."""


Down = pb.ConnectResponse | Answer
"""What the daemon says: on a stream, or to a call."""
Up = pb.ConnectRequest | pb.RequestSetpointRequest
"""What a controller says."""


@dataclass(kw_only=True)
class Lane:
    """The writes of one post: one on its way, and the newest that waits."""

    doing: Write | None = None
    begun_s: float = 0.0
    done_s: float = 0.0
    moves: bool = False
    """The contactor of the post is on its way, at 0."""
    waiting: Write | None = None
    slow_s: float = 0.0
    """Extra time of each write."""
    slow_until_s: float = -1.0


@dataclass(kw_only=True)
class Owner:
    """One controller. Its clock reads ``(t - base) * rate``."""

    number: int
    name: str
    configs: list[EvseConfig]
    posts: list[Post]
    """Its posts, in the order of its hello."""
    rate: float
    down: Channel[Down]
    up: Channel[Up]
    core: ControllerCore
    caller: Caller
    base_s: float = -100.0
    memory: Memory = field(default_factory=Memory)
    incarnation: int = 1
    numbers: Iterator[int] = field(default_factory=lambda: count(2))
    """The incarnations to come, of the second process too."""
    twin: int = 0
    """1 = it is the second process that was started by mistake."""
    lanes: list[Lane] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    """Plug changes that the process has seen."""
    restarted: set[int] = field(default_factory=set)
    """Posts that have told it that they restarted, and whom it has not heard yet."""
    stopped_until_s: float = -1.0
    dead_until_s: float = -1.0
    dead: bool = False
    lived_s: float = 0.0
    """When the process last did anything."""
    stream: int = 0
    """Number of its stream, or of its newest call; 0 = none."""
    closed_stream: int = 0
    """Streams up to this number it has closed itself."""
    calls_until_s: float = -1.0
    """It asks by single calls until then."""
    broken_s: float = math.inf
    """When it notices that its stream is broken."""
    connect_s: float = 0.0
    """When it connects again."""
    _refusals: Counter[Refusal] = field(default_factory=Counter)  # of the processes before this one
    sane_epoch: int = 0
    """Its highest epoch before a test bench told it nonsense."""
    expired: int = 0
    """Leases that ended by themselves."""

    def clock(self, t_s: float) -> float:
        """Its boottime."""
        return (t_s - self.base_s) * self.rate

    def true_time(self, clock_s: float) -> float:
        """When its clock shows that."""
        return clock_s if clock_s == math.inf else clock_s / self.rate + self.base_s

    def begin(self, t_s: float) -> None:
        """The process starts: first orders, and who is plugged in."""
        self.incarnation = next(self.numbers)
        found = [config.evse_id for config, post in zip(self.configs, self.posts, strict=True) if post.plugged]
        self.core = ControllerCore(
            self.name, self.configs, incarnation=self.incarnation, memory=self.memory, found=found
        )
        self.caller = Caller(self.core, t_s)
        self.lanes = [Lane() for _ in self.posts]
        self.seen = [post.cars for post in self.posts]
        self.restarted.clear()
        self.dead, self.stream, self.broken_s, self.connect_s = False, 0, math.inf, t_s
        self._order(self.core.start(), t_s)

    def kill(self, until_s: float, t_s: float) -> None:
        """The process dies; what an actuator was doing it does."""
        for post, lane in zip(self.posts, self.lanes, strict=True):
            hears = t_s >= post.deaf_until_s
            if hears and lane.doing is not None and lane.doing.one_phase in {None, post.one}:
                self._reach(post, lane.doing, t_s)
        self.memory, self.dead, self.dead_until_s = self.core.memory, True, until_s
        self._refusals += self.core.refusals
        self.core.refusals.clear()

    def refused(self) -> tuple[int, int]:
        """How many grants its processes have refused so far, and how many of them for an old epoch."""
        before, now = self._refusals, self.core.refusals
        old = Refusal.OLD_EPOCH
        return before.total() + now.total(), before[old] + now[old]

    def act(self, t_s: float, connect: Callable[[Owner], bool]) -> None:
        """Everything that the process does at this instant."""
        if self.dead and t_s >= self.dead_until_s:
            self.begin(t_s)
        if self.dead or t_s < self.stopped_until_s:
            return
        now_s = self.clock(t_s)
        self.lived_s = t_s
        self._see_plugs(t_s)
        self._hear_restarts(t_s)
        for _, message in self.down.due(t_s):
            self._order(self._receive(message, t_s), t_s)
        for write in self.core.expire(now_s):
            self.expired += 1
            self.caller.hurry(write.index, t_s)
            self._order((write,), min(t_s, self.true_time(self.core.evses[write.index].until_s)))
        self._work(t_s)
        for i, post in enumerate(self.posts):
            if t_s >= post.silent_until_s:
                shown = post.shown(t_s)
                self.core.measure(i, (shown, 0.0, 0.0) if post.one else (shown, shown, shown))
        self._speak(t_s, connect)

    def _receive(self, message: Down, t_s: float) -> tuple[Write, ...]:
        if isinstance(message, Answer):
            return self.caller.heard(message, t_s, self.clock(t_s))
        return self.core.receive(message, self.clock(t_s))

    def reached_s(self, index: int) -> float:
        """When it last reached a post: word of life queues behind a write that takes its time."""
        lane = self.lanes[index]
        return self.lived_s if lane.doing is None else min(self.lived_s, lane.begun_s)

    def _see_plugs(self, t_s: float) -> None:
        for i, post in enumerate(self.posts):
            if post.cars == self.seen[i]:
                continue
            self._order(self.core.plug(i, False, self.clock(t_s)), t_s)
            if post.plugged:
                self._order(self.core.plug(i, True, self.clock(t_s)), t_s)
            self.seen[i] = post.cars
            self.caller.hurry(i, t_s)

    def _hear_restarts(self, t_s: float) -> None:
        for index in sorted(self.restarted):
            self._order(self.core.restarted(index), t_s)
        self.restarted.clear()

    def call(self, until_s: float, t_s: float) -> None:
        """It closes its stream, and asks by single calls."""
        self.closed_stream, self.calls_until_s, self.stream = max(self.closed_stream, self.stream), until_s, 0
        for index in range(len(self.posts)):
            self.caller.hurry(index, t_s)

    def say_last(self, late_s: float, t_s: float, connect: Callable[[Owner], bool]) -> None:
        """What it said on a new connection is under way for long; odd tenths: it was going over to the other way."""
        calling = (t_s < self.calls_until_s) != (round(10 * late_s) % 2 == 1)
        if not calling and connect(self):
            self.up.send(self.core.hello(self.clock(t_s)), self.stream, t_s)
        for index in range(len(self.posts)):
            if calling and connect(self):
                self.up.send(self.caller.request(index, t_s, self.clock(t_s), measured=False), self.stream, t_s)
        self.up.postpone(late_s)

    def _ask(self, t_s: float, connect: Callable[[Owner], bool]) -> None:
        """The calls that are due; a stream is opened where they end."""
        self.broken_s = t_s
        for index in self.caller.due(t_s):
            if not connect(self):
                self.caller.failed(index, t_s)
                continue
            measured = t_s >= self.posts[index].silent_until_s
            self.up.send(self.caller.request(index, t_s, self.clock(t_s), measured=measured), self.stream, t_s)

    def _speak(self, t_s: float, connect: Callable[[Owner], bool]) -> None:
        if t_s < self.calls_until_s:
            self._ask(t_s, connect)
            return
        if self.stream and t_s >= self.broken_s:
            self.stream, self.connect_s = 0, t_s + RECONNECT_S
        if not self.stream and t_s >= self.connect_s:
            if not connect(self):
                self.connect_s = t_s + RECONNECT_S
                return
            self.broken_s = math.inf
            self.up.send(self.core.hello(self.clock(t_s)), self.stream, t_s)
        elif self.stream and self.clock(t_s) >= self.core.report_due_s():
            self.up.send(self.core.report(self.clock(t_s)), self.stream, t_s)

    def _order(self, writes: tuple[Write, ...], t_s: float) -> None:
        """Orders for actuators; a newer one replaces one that waits."""
        for write in writes:
            lane = self.lanes[write.index]
            lane.waiting = write
            self._take(lane, t_s)

    def _take(self, lane: Lane, t_s: float) -> None:
        if lane.doing is None and lane.waiting is not None:
            lane.doing, lane.waiting = lane.waiting, None
            lane.begun_s = t_s
            lane.done_s = t_s + ACTUATOR_S + (lane.slow_s if t_s < lane.slow_until_s else 0.0)

    def _work(self, t_s: float) -> None:
        """Actuators that are done."""
        for post, lane in zip(self.posts, self.lanes, strict=True):
            while lane.doing is not None and lane.done_s <= t_s:
                if t_s < post.deaf_until_s:
                    self._try_again(lane, t_s)
                    continue
                if self._must_move(post, lane, lane.doing, t_s):
                    continue
                write, lane.doing = lane.doing, None
                if self._reach(post, write, t_s):
                    self._applied(write, t_s)
                if lane.waiting is not None and self.true_time(lane.waiting.valid_until_s) <= t_s:
                    lane.waiting = None
                self._take(lane, t_s)

    def _applied(self, write: Write, t_s: float) -> None:
        """The post took an order; that it has left behind what was before is told at once."""
        settled, post = self.core.evses[write.index].settled, self.posts[write.index]
        if write.order != NONE and not self.twin:
            post.granted_s = min(post.granted_s, t_s)
        if self.core.applied(write, self.clock(t_s)):
            self.caller.took(write)
        if not settled and self.core.evses[write.index].settled:
            self.caller.hurry(write.index, t_s)

    def _try_again(self, lane: Lane, t_s: float) -> None:
        """The post did not answer: the newest order, for as long as it is one."""
        over = lane.doing is None or self.true_time(lane.doing.valid_until_s) <= t_s
        if lane.waiting is not None or over:
            lane.doing, lane.waiting = lane.waiting, None
        lane.done_s = t_s + ACTUATOR_S

    def _must_move(self, post: Post, lane: Lane, write: Write, t_s: float) -> bool:
        """The post has, or may have, connected other phases: first 0, then its contactor, without current."""
        if write.one_phase is None or not self.core.must_switch(write):
            lane.moves = False
            return False
        if not lane.moves:
            post.write(0.0, math.inf, self._rest(write.index), t_s, latched=False)
            post.writer = self.twin
            self.core.switching(write.index)
            lane.moves, lane.done_s = True, t_s + post.switch_s
        elif post.switch(write.one_phase, t_s):
            self.core.switched(write.index, one_phase=write.one_phase)
        else:
            lane.done_s = t_s + ACTUATOR_S
        return True

    def _reach(self, post: Post, write: Write, t_s: float) -> bool:
        """A write arrives at its post."""
        until_s = self.true_time(write.valid_until_s)
        post.writer = self.twin
        return post.write(write.ceiling, until_s, self._rest(write.index), t_s, latched=write.latched)

    def _rest(self, index: int) -> float:
        """What the post does after the end of its lease, as far as the process knows."""
        lease = self.core.evses[index]
        own = lease.config
        return own.fallback if lease.plugged and lease.known else own.fallback_idle
