"""The simulated switchgear controller: tells the daemon over its stream how contacts stand, and takes its orders."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

import grpc
import numpy as np

from powerd.errors import PowerdError
from powerd.limits import Bools
from powerd.network.electrical import Electrical
from powerd.sim.grid import News
from powerd.sim.outage import Loss
from powerd.sim.policies import Order
from powerd.v1 import common_pb2
from powerd.v1 import switchgear_service_pb2 as pb
from powerd.v1 import switchgear_service_pb2_grpc as pb_grpc

#: An order that does not come although the daemon says it gave one [s].
WAIT_S = 60.0
REPORTER = "gateway"


class Gateway:
    """One stream for all switches of a site; a site without switches has none."""

    def __init__(self, electrical: Electrical, incarnation: int) -> None:
        branches = electrical.branches
        self._ids, self._supplies = branches.ids, electrical.supplies.ids
        self._switches = np.flatnonzero(branches.switchable).tolist()
        self._number = {name: e for e, name in enumerate(branches.ids)}
        self._incarnation = incarnation
        self._up: queue.SimpleQueue[pb.ConnectSwitchgearRequest | None] = queue.SimpleQueue()
        self._down: queue.Queue[pb.SwitchOrder] = queue.Queue()
        self._tripped: set[int] = set()
        self._given: list[tuple[int, Order]] = []
        self._starved: set[int] = set()
        self._opened = False
        self.sent = 0
        """Hellos and reports so far."""
        self._taken = 0

    def open(self, stub: pb_grpc.SwitchgearServiceStub, closed: Bools, now_s: float) -> None:
        """Connects; ``closed`` (E,) is how contacts stand."""
        if not self._switches:
            return
        hello = pb.SwitchgearHello(
            reporter_id=REPORTER, stamp=self._stamp(now_s), switches=self._reports(self._switches, closed)
        )
        self._send(pb.ConnectSwitchgearRequest(hello=hello))
        self._opened = True
        threading.Thread(
            target=self._listen, args=(stub.ConnectSwitchgear(iter(self._up.get, None)),), daemon=True
        ).start()

    def _listen(self, call: Iterator[pb.ConnectSwitchgearResponse]) -> None:
        try:
            for message in call:
                if message.HasField("order"):
                    self._down.put(message.order)
        except grpc.RpcError:
            return

    def close(self) -> None:
        """Ends the stream."""
        self._up.put(None)

    def report(self, news: News, closed: Bools, now_s: float) -> None:
        """What moved, what was lost, and which orders were refused since the last report."""
        if not self._opened:
            return
        self._tripped = (self._tripped | set(news.tripped)) - set(np.flatnonzero(closed).tolist())
        self._starved = (self._starved - set(news.moved)) | set(news.starved)
        answers = [
            pb.OrderAnswer(order_id=n, refused=True, reason="local") for n, order in self._given if order.refused
        ]
        self._given = []
        report = pb.SwitchgearReport(
            stamp=self._stamp(now_s),
            switches=self._reports(news.moved, closed),
            outages=[self._outage(loss) for loss in news.losses],
            answers=answers,
        )
        self._send(pb.ConnectSwitchgearRequest(report=report))

    def orders(self, count: int) -> tuple[Order, ...]:
        """Every order up to the daemon's ``count``-th.

        Raises:
            PowerdError: one did not come.
        """
        found = []
        while self._opened and self._taken < count:
            try:
                order = self._down.get(timeout=WAIT_S)
            except queue.Empty:
                raise PowerdError("the daemon gave a switch order that did not come") from None
            self._taken += 1
            one = Order(branch=self._number[order.switch_id], close=order.position == pb.POSITION_CLOSED)
            self._given.append((order.order_id, one))
            found.append(one)
        return tuple(found)

    def _send(self, message: pb.ConnectSwitchgearRequest) -> None:
        self.sent += 1
        self._up.put(message)

    def _stamp(self, now_s: float) -> common_pb2.Stamp:
        return common_pb2.Stamp(incarnation=self._incarnation, boottime_s=now_s)

    def _reports(self, branches: Sequence[int], closed: Bools) -> list[pb.SwitchReport]:
        found = []
        for branch in branches:
            tripped = branch in self._tripped
            found.append(
                pb.SwitchReport(
                    switch_id=self._ids[branch],
                    position=pb.POSITION_CLOSED if closed[branch] else pb.POSITION_OPEN,
                    quality=pb.QUALITY_GOOD,
                    protection_trip=tripped,
                    upstream_voltage_lost=not closed[branch] and not tripped and branch in self._starved,
                )
            )
        return found

    def _outage(self, loss: Loss) -> pb.OutageReport:
        names = self._supplies if loss.kind == "supply" else self._ids
        return pb.OutageReport(
            element=names[loss.index],
            lost=loss.lost,
            protection_trip=loss.lost and loss.protection,
            upstream_voltage_lost=loss.lost and not loss.protection,
        )
