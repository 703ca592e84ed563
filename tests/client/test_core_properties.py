"""Any order of any messages: the core takes exactly the grants that the rules allow.

The oracle shares no time arithmetic with the core where order matters: it counts *what happened before what* (a stamp
knows of a plug change if it was sent after it), while the clock stands still for most of the test.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from powerd.client import Memory, Write
from powerd.client.lease import Order
from powerd.v1 import controller_service_pb2 as pb
from tests.client.daemon_side import controller, grants, renewal

COUNT = 3
TTL_S = 10.5  # never a whole number of seconds after a stamp: no case lies on a boundary
FALLBACK, IDLE = 6.0, 1.0
EVSE = st.integers(0, COUNT - 1)
NEWEST_FIRST = st.sampled_from([1, 1, 1, 1, 2, 3, 5])
STEP = st.sampled_from([1, 1, 1, 2, 0, -1])


@dataclass
class Sent:
    """A stamp as the test remembers it."""

    incarnation: int
    boottime_s: float
    at_s: float
    moment: int


@dataclass
class Model:
    """What one EVSE may do, by the letter of docs/protocol.md."""

    plugged: bool = False
    found: bool = False
    """The car was there when the process started."""
    took_stop: bool = False
    """What the actuator took last was a stop."""
    plug_moment: int = -1
    settled: bool = True
    """The post has taken the order that the last unplugging gave it, or the stop that held then."""
    accepted: Order = (0, 0)
    sent: Order = (0, 0)
    applied: Order = (0, 0)
    alive: bool = False
    latched: bool = False
    until_s: float = 0.0
    ceiling: float = IDLE
    knew: bool = False
    orders: list[Write] = field(default_factory=list)
    before: int = 0
    """So many of the orders that wait were given before the last unplugging."""

    def rest(self) -> float:
        """Its ceiling when no lease lives."""
        return FALLBACK if self.plugged and self.knew else IDLE


class Controller(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.incarnation, self.now_s, self.moment = 1, 100.0, 0
        self.stamps: list[Sent] = []
        self.log: list[tuple[pb.ConnectResponse, Sent]] = []
        self.evses = [Model() for _ in range(COUNT)]
        self.epoch, self.carried = 0, 0
        self.core = controller(COUNT, fallback=FALLBACK, idle=IDLE, incarnation=1)
        self.reconnect()

    def _stamped(self, boottime_s: float) -> None:
        self.moment += 1
        self.stamps.append(Sent(self.incarnation, boottime_s, self.now_s, self.moment))

    @rule(seconds=st.sampled_from([0, 0, 0, 1, 4, 11]))
    def pass_time(self, seconds: int) -> None:
        self.now_s += seconds
        self._expire()

    @rule()
    def report(self) -> None:
        self._stamped(self.core.report(self.now_s).report.stamp.boottime_s)

    @rule()
    def reconnect(self) -> None:
        said = self.core.hello(self.now_s).hello
        self._stamped(said.stamp.boottime_s)
        for model, told in zip(self.evses, said.evses, strict=True):
            assert told.plugged == model.plugged
            assert not (model.found and told.plug_boottime_s)
            assert told.latched == (model.took_stop and all(write.latched for write in model.orders))
        self.carried = 0
        for model in self.evses:
            model.sent = (0, 0)

    @rule(seen=st.integers(0, 2**COUNT - 1))
    def restart(self, seen: int) -> None:
        latched = [model.latched for model in self.evses]
        kept = Memory(highest_epoch=self.epoch, latched=frozenset(f"e{i}" for i in range(COUNT) if latched[i]))
        assert self.core.memory == kept
        self.incarnation += 1
        there = [model.plugged and bool(seen >> i & 1) for i, model in enumerate(self.evses)]
        self.core = controller(
            COUNT,
            fallback=FALLBACK,
            idle=IDLE,
            incarnation=self.incarnation,
            memory=kept,
            found=[f"e{i}" for i in range(COUNT) if there[i]],
        )
        self.evses = [
            Model(plugged=car, found=car, took_stop=stop, latched=stop, ceiling=0.0 if stop else IDLE)
            for car, stop in zip(there, latched, strict=True)
        ]
        self.reconnect()

    @rule(evse=EVSE)
    def swap_plug(self, evse: int) -> None:
        self.moment += 1
        model = self.evses[evse]
        model.plugged, model.plug_moment, model.knew = not model.plugged, self.moment, False
        model.found = False
        writes = self.core.plug(evse, model.plugged, self.now_s)
        if not model.plugged and not model.latched:
            model.alive, model.ceiling, model.settled, model.before = False, IDLE, False, len(model.orders)
            assert [w.ceiling for w in writes] == [IDLE]
        else:
            model.settled &= model.plugged or model.applied == model.accepted
            assert writes == ()
        model.orders += writes

    @rule(
        stamp=NEWEST_FIRST,
        epoch=st.sampled_from([0, 0, 0, 0, 0, 1, -1]),
        step=STEP,
        ceilings=st.dictionaries(EVSE, st.sampled_from([0.0, 6.0, 9.0, 32.0]), min_size=1),
        latch=st.booleans(),
    )
    def grant(self, stamp: int, epoch: int, step: int, ceilings: dict[int, float], latch: bool) -> None:
        echo = self.stamps[-min(stamp, len(self.stamps))]
        stops = tuple(i for i in ceilings if latch and ceilings[i] == 0.0)
        message = grants(
            self._order(epoch, step),
            ceilings,
            echo.boottime_s,
            latched=stops,
            incarnation=echo.incarnation,
            ttl_s=TTL_S,
        )
        self.log.append((message, echo))
        self._deliver(message, echo)

    @rule(stamp=NEWEST_FIRST, step=STEP, wrong=st.sampled_from([0, 0, 0, 0, 1, -1]))
    def renew(self, stamp: int, step: int, wrong: int) -> None:
        echo = self.stamps[-min(stamp, len(self.stamps))]
        order = self._order(0, step)
        message = renewal(order, echo.boottime_s, self.carried + wrong, incarnation=echo.incarnation, ttl_s=TTL_S)
        self.log.append((message, echo))
        self._deliver(message, echo)

    def _order(self, epoch: int, step: int) -> Order:
        """An (epoch, seq) near the newest one: mostly newer, sometimes not."""
        newest = max(*(model.sent for model in self.evses), *(model.accepted for model in self.evses))
        return (max(1, self.epoch + epoch), max(1, newest[1] + step))

    @precondition(lambda self: bool(self.log))
    @rule(back=st.integers(1, 8))
    def deliver_again(self, back: int) -> None:
        self._deliver(*self.log[-min(back, len(self.log))])

    @rule(evse=EVSE, at_once=st.booleans())
    def actuate(self, evse: int, at_once: bool) -> None:
        """The actuator takes the oldest order, or everything that waits."""
        model = self.evses[evse]
        for _ in range(len(model.orders) if at_once else 1):
            if model.orders:
                self._take(model, model.orders.pop(0))

    def _take(self, model: Model, write: Write) -> None:
        current = model.alive and write.order == model.accepted and write.order != (0, 0)
        acked = self.core.applied(write, self.now_s)
        mine, model.before = model.before == 0, max(0, model.before - 1)
        if ((write.order == (0, 0) and mine) or write.latched) and not model.settled:
            self.moment += 1
            model.settled, model.plug_moment = True, self.moment
        assert self.core.in_force[write.index] == write.ceiling
        model.took_stop = write.latched
        if current:
            assert acked
        if acked:
            assert write.order != (0, 0)
            assert self.now_s < write.valid_until_s
            model.applied = max(model.applied, write.order)

    def _expire(self) -> None:
        writes = {w.index: w for w in self.core.expire(self.now_s)}
        for i, model in enumerate(self.evses):
            over = model.alive and not model.latched and self.now_s >= model.until_s
            assert (i in writes) == over
            if over:
                model.alive, model.ceiling = False, model.rest()
                assert writes[i].ceiling == model.ceiling
                model.orders.append(writes[i])

    def _deliver(self, message: pb.ConnectResponse, echo: Sent) -> None:
        fresh = echo.incarnation == self.incarnation and self.now_s - echo.at_s <= TTL_S
        writes = {w.index: w for w in self.core.receive(message, self.now_s)}
        if message.HasField("grants"):
            taken = self._expect_grants(message.grants, echo, fresh)
        else:
            taken = self._expect_renewal(message.renew_all, echo, fresh)
        assert {i: (w.ceiling, w.latched) for i, w in writes.items()} == taken
        for i, write in writes.items():
            model = self.evses[i]
            model.accepted, (model.ceiling, model.latched) = write.order, taken[i]
            model.alive, model.until_s, model.knew = True, echo.boottime_s + TTL_S, model.plugged
            model.orders.append(write)
            assert write.valid_until_s == (float("inf") if write.latched else model.until_s)

    def _expect_grants(self, message: pb.Grants, echo: Sent, fresh: bool) -> dict[int, tuple[float, bool]]:
        order = (message.epoch, message.seq)
        self.carried += 1
        for i in message.index:
            self.evses[i].sent = max(self.evses[i].sent, order)
        if not fresh or message.epoch < self.epoch:
            return {}
        self.epoch = message.epoch
        return {
            i: (ceiling, i in message.latched_index)
            for i, ceiling in zip(message.index, message.ceiling, strict=True)
            if self._open_to(self.evses[i], order, echo)
        }

    def _expect_renewal(self, message: pb.RenewAll, echo: Sent, fresh: bool) -> dict[int, tuple[float, bool]]:
        order = (message.epoch, message.seq)
        complete, self.carried = message.count == self.carried, message.count + 1
        before = [model.sent for model in self.evses]
        for model in self.evses:
            model.sent = max(model.sent, order)
        if not fresh or message.epoch < self.epoch or not complete:
            return {}
        self.epoch = message.epoch
        return {
            i: (model.ceiling, model.latched)
            for i, model in enumerate(self.evses)
            if self._open_to(model, order, echo)
            and model.alive
            and before[i] == model.applied == model.accepted != (0, 0)
        }

    @staticmethod
    def _open_to(model: Model, order: Order, echo: Sent) -> bool:
        return order > model.accepted and model.settled and echo.moment > model.plug_moment

    @invariant()
    def a_stop_holds(self) -> None:
        """Once the actuator has taken everything, a latched EVSE stands at 0 and any other at its lease or rest."""
        for i, model in enumerate(self.evses):
            if not model.orders:
                assert self.core.in_force[i] == (0.0 if model.latched else model.ceiling)


TestController = Controller.TestCase
TestController.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
