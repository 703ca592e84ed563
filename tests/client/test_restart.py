"""A controller's program ends and starts again before the real daemon: whose session goes on, and whose is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from powerd.client import EvseConfig
from powerd.client.sync import BlockingController
from powerd.v1 import session_service_pb2 as pb
from powerd.v1.session_service_pb2_grpc import SessionServiceStub
from tests.clients.daemon import daemon
from tests.control.garage import site_text

PATIENCE_S = 30.0
"""So long a busy machine may take for what a few ticks do."""
HER_A = 8.0
"""What Anna's car takes: any other car here gets 32 A."""


class Hall:
    """One post, its program in this process, and the daemon's word of what is charging there."""

    def __init__(self, address: str, channel: grpc.Channel) -> None:
        self.address, self.service = address, SessionServiceStub(channel)
        self.told: list[float] = []
        """What the post of the present program has taken [A]."""

    @contextmanager
    def program(self, *, found: Collection[str] = (), takes_s: float = 0.0) -> Iterator[BlockingController]:
        """One life of the program; its post takes so long for an order."""
        told = self.told = []  # a program that has ended may still be writing

        def apply(_: str, ceiling: float, __: float) -> None:
            time.sleep(takes_s)
            told.append(ceiling)

        with BlockingController(self.address, "c0", [EvseConfig(evse_id="P0")], apply, found=found) as controller:
            yield controller

    def session(self) -> pb.Session:
        """The one at the post; an empty one where there is none."""
        found = self.service.ListSessions(pb.ListSessionsRequest(), timeout=PATIENCE_S).sessions
        return found[0] if found else pb.Session()

    def until(self, true: Callable[[], bool]) -> None:
        """Waits for it."""
        end_s = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < end_s, f"took {self.told} A for {self.session()}"
            time.sleep(0.05)

    def anna(self) -> pb.Session:
        """Her car comes, asks for 8 A and a departure, and has charged something."""
        with self.program() as controller:
            controller.plug("P0", True)
            self.until(lambda: max(self.told, default=0.0) > HER_A)
            request = pb.StartSessionRequest(evse_id="P0", session_id="anna")
            request.demand.max_current_a, request.demand.priority = HER_A, 3
            self.service.StartSession(request, timeout=PATIENCE_S)
            self.until(lambda: self.told[-1] == HER_A)
            controller.measure("P0", (HER_A, HER_A, HER_A))
            self.until(lambda: self.session().energy_kwh > 0.0)
            return self.session()


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    """The daemon, without a journal."""
    folder = tmp_path_factory.mktemp("hall")
    Path(folder / "site.yaml").write_text(site_text(1, 200.0, controllers=1), encoding="utf-8")
    with daemon(folder, "--tick", "0.2") as served, grpc.insecure_channel(served.address) as channel:
        yield Hall(served.address, channel)


@pytest.mark.parametrize("takes_s", [0.0, 0.6])
def test_the_session_of_a_car_that_is_there_outlives_the_program(hall: Hall, takes_s: float) -> None:
    """Also where the post takes its first order after the hello has told of it: Anna keeps her demand and her kWh, and
    nobody's session stands beside hers. The next car has another.
    """
    before = hall.anna()
    for _ in range(2):
        with hall.program(found=["P0"], takes_s=takes_s):
            hall.until(lambda: max(hall.told, default=0.0) > 0.0)
            assert max(hall.told) == HER_A
            after = hall.session()
            assert (after.session_id, after.demand) == ("anna", before.demand)
            assert after.energy_kwh >= before.energy_kwh
    with hall.program(found=["P0"], takes_s=takes_s) as controller:
        controller.plug("P0", False)
        controller.plug("P0", True)
        hall.until(lambda: max(hall.told, default=0.0) > HER_A)
        assert hall.session().session_id not in {"", "anna"}


def test_a_car_that_the_program_has_not_found_has_come(hall: Hall) -> None:
    """Told after the start it is another one, however soon: nobody else's demand and kWh are its own."""
    hall.anna()
    with hall.program() as controller:
        controller.plug("P0", True)
        hall.until(lambda: max(hall.told, default=0.0) > HER_A)
        assert hall.session().session_id not in {"", "anna"}
        assert hall.session().demand.max_current_a != HER_A
