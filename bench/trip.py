"""``python -m bench trip``: a real daemon, a supply lost at any phase of the tick, until the last lowered grant is in.

5 000 EVSEs of ``mega_hub`` on 50 controllers, 50 streams in this process. Everything is fed over the closed tie; then
the northern supply is lost, which takes half of what all of them may draw: every EVSE that charges is lowered. Those
are all 5 000 the first time and 2 874 later, because what was stopped waits out its off-time, longer than from one trip
to the next; ``lowered_least`` beside ``charging_least`` shows it. Counted from before the report is written to the
socket until the last stream has handed the last lowered grant to its reader.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from ruamel.yaml import YAML

from powerd.sim.daemon import Child
from powerd.v1 import common_pb2
from powerd.v1 import controller_service_pb2 as pb
from powerd.v1 import switchgear_service_pb2 as gear
from powerd.v1.controller_service_pb2_grpc import ControllerServiceStub
from powerd.v1.switchgear_service_pb2_grpc import SwitchgearServiceStub

PACKAGES = ("numpy", "numba", "grpcio")
ROOT = Path(__file__).resolve().parents[1]
#: How long ceilings take to settle after a change: ack + reaction and some ticks [s].
SETTLE_S = 5.0
WAIT_S = 30.0
#: EVSEs of one controller.
EACH = 100
#: How long a post takes to apply a grant before it is acked [s].
ACTUATOR_S = 0.1
#: The reaction time of the cars here [s]; it sets how soon ceilings may rise again, and nothing of what is measured.
REACTION_S = 1.0

Row = dict[str, object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this bench."""
    parser.add_argument("--trips", type=int, default=200, help="how many trips")
    parser.add_argument("--seed", type=int, default=1, help="of the phases")


def site_of(folder: Path) -> Path:
    """The hub with 50 controllers of 100 EVSEs each, and its supplies allowed in parallel while the tie is closed."""
    yaml = YAML()
    site: dict[str, Any] = yaml.load((ROOT / "models" / "mega_hub" / "site.yaml").read_text())
    groups: list[dict[str, Any]] = []
    odd: list[dict[str, Any]] = []
    for group in site["station_groups"]:
        name = group["controller"]
        groups += [dict(group, count=50, first=1 + 50 * k, controller=f"{name}-{k}") for k in (0, 1)]
        odd.append(dict(group, count=25, first=101))
    for k, group in enumerate(odd):
        group["controller"] = f"pair-{k // 2}"
    site["station_groups"] = [*groups, *odd]
    for own in site["controller_classes"]:
        own["reaction_s"] = REACTION_S
    site["controllers"] = [
        {"id": name, "class": "deck"} for name in dict.fromkeys(g["controller"] for g in site["station_groups"])
    ]
    with (folder / "site.yaml").open("w") as file:
        yaml.dump(site, file)
    return folder


@dataclass(kw_only=True)
class Stream:
    """One controller: a car at every post; grants are stamped when they arrive, applied and acked ``ACTUATOR_S`` later.

    A thread that waits on the socket does no more: the fifty share two cores with the daemon that is measured.
    """

    name: str
    evses: list[str]
    ceilings: np.ndarray = field(init=False)
    lowered_at: float = 0.0
    changed: int = 0
    _up: queue.SimpleQueue[pb.ConnectRequest | None] = field(default_factory=queue.SimpleQueue)
    _number: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _arrived: queue.SimpleQueue[tuple[float, pb.ConnectResponse]] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self.ceilings = np.zeros(len(self.evses))

    def open(self, stub: ControllerServiceStub) -> None:
        """Connects with a car at every post."""
        states = [pb.EvseState(evse_id=evse, plugged=True) for evse in self.evses]
        hello = pb.Hello(controller_id=self.name, stamp=_stamp(), evses=states, report_number=1)
        self._up.put(pb.ConnectRequest(hello=hello))
        threading.Thread(target=self._listen, args=(stub.Connect(iter(self._up.get, None)),), daemon=True).start()

    def _listen(self, call: Iterator[pb.ConnectResponse]) -> None:
        try:
            for message in call:
                self._arrived.put((time.perf_counter(), message))
        except grpc.RpcError:
            return

    def apply(self) -> None:
        """What has arrived and has been on its way to the posts for long enough."""
        while not self._arrived.empty():
            arrived, message = self._arrived.get()
            time.sleep(max(0.0, arrived + ACTUATOR_S - time.perf_counter()))
            if message.HasField("grants"):
                self._grants(message.grants, arrived)
            elif message.HasField("renew_all"):
                self._ack(message.renew_all.epoch, message.renew_all.seq, [], [])

    def _grants(self, grants: pb.Grants, arrived: float) -> None:
        index, ceiling = list(grants.index), np.array(grants.ceiling)
        if (ceiling < self.ceilings[index] - 1e-9).any():
            self.lowered_at = arrived
            self.changed += int((ceiling < self.ceilings[index] - 1e-9).sum())
        self.ceilings[index] = ceiling
        self._ack(grants.epoch, grants.seq, index, list(grants.ceiling))

    def _ack(self, epoch: int, seq: int, index: list[int], ceiling: list[float]) -> None:
        everything = not index
        self.report([pb.AppliedGrants(epoch=epoch, seq=seq, index=index, ceiling=ceiling, all=everything)])

    def report(self, applied: list[pb.AppliedGrants]) -> None:
        """One report up; stamps of a process must not go back."""
        with self._lock:
            self._number += 1
            report = pb.Report(stamp=_stamp(), report_number=self._number, applied=applied)
            self._up.put(pb.ConnectRequest(report=report))

    def close(self) -> None:
        """Ends the stream."""
        self._up.put(None)


def _stamp() -> common_pb2.Stamp:
    return common_pb2.Stamp(incarnation=7, boottime_s=time.clock_gettime(time.CLOCK_BOOTTIME))


@contextmanager
def _hub(folder: Path) -> Iterator[tuple[list[Stream], SwitchgearServiceStub]]:
    """A daemon on the hub with all its streams open."""
    site = site_of(folder)
    command = (sys.executable, "-m", "powerd", "serve", str(site), "--address", "127.0.0.1:0", "--first-start")
    child = Child(command)
    try:
        child.wait_ready()
        with grpc.insecure_channel(child.address) as channel:
            streams = _streams(channel)
            stop = threading.Event()
            threading.Thread(target=_beat, args=(streams, stop), daemon=True).start()
            threading.Thread(target=_apply, args=(streams, stop), daemon=True).start()
            yield streams, SwitchgearServiceStub(channel)
            stop.set()
            for stream in streams:
                stream.close()
    finally:
        child.close()


def _streams(channel: grpc.Channel) -> list[Stream]:
    """One open stream for every controller of the site."""
    from powerd.v1 import site_service_pb2
    from powerd.v1.site_service_pb2_grpc import SiteServiceStub

    site = SiteServiceStub(channel).GetSite(site_service_pb2.GetSiteRequest(), timeout=WAIT_S)
    owned: dict[str, list[str]] = {}
    for evse in site.evses:
        owned.setdefault(evse.controller_id, []).append(evse.evse_id)
    streams = [Stream(name=name, evses=evses) for name, evses in owned.items()]
    if {len(stream.evses) for stream in streams} != {EACH}:
        raise SystemExit("the hub's decks are no longer 125 stations of two posts: mend site_of")
    stub = ControllerServiceStub(channel)
    for stream in streams:
        stream.open(stub)
    return streams


def _apply(streams: list[Stream], stop: threading.Event) -> None:
    """All posts' actuators, in one thread."""
    while not stop.wait(0.02):
        for stream in streams:
            stream.apply()


def _beat(streams: list[Stream], stop: threading.Event) -> None:
    """A stamp from every controller every 2 s."""
    while not stop.wait(2.0):
        for stream in streams:
            stream.report([])


class Switchgear:
    """The gateway that tells of the tie and the northern supply."""

    def __init__(self, stub: SwitchgearServiceStub) -> None:
        self._stub = stub

    def tells(self, *, tie_closed: bool, north_lost: bool) -> None:
        """One report of both."""
        position = gear.POSITION_CLOSED if tie_closed else gear.POSITION_OPEN
        request = gear.ReportPositionsRequest(
            reporter_id="bench",
            stamp=_stamp(),
            switches=[gear.SwitchReport(switch_id="tie-mv", position=position, quality=gear.QUALITY_GOOD)],
            outages=[gear.OutageReport(element="north", lost=north_lost, upstream_voltage_lost=north_lost)],
        )
        self._stub.ReportPositions(request, timeout=WAIT_S)

    def released(self) -> None:
        """An operator's word, so that neither counts as flapping: they come and go six times a minute here."""
        for element in ("tie-mv", "north"):
            request = gear.ReturnToServiceRequest(element=element, reason="the bench moves it")
            self._stub.ReturnToService(request, timeout=WAIT_S)


def _until(done: Callable[[], bool]) -> bool:
    limit = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > limit:
            return False
        time.sleep(0.002)
    return True


def _trip(streams: list[Stream], switchgear: Switchgear, phase_s: float) -> tuple[float, int, int]:
    """One trip: (ms until the last lowered grant was received, EVSEs lowered, EVSEs that had a ceiling above zero)."""
    switchgear.tells(tie_closed=False, north_lost=False)
    switchgear.released()
    time.sleep(SETTLE_S + phase_s)
    for stream in streams:
        stream.lowered_at, stream.changed = 0.0, 0
    charging = sum(int((stream.ceilings > 0).sum()) for stream in streams)
    began = time.perf_counter()
    switchgear.tells(tie_closed=True, north_lost=True)
    time.sleep(0.6)  # what is still on its way would show as a later arrival
    last, lowered = max(stream.lowered_at for stream in streams), sum(stream.changed for stream in streams)
    if not lowered:
        raise SystemExit(f"the trip lowered none of the {charging} EVSEs that charge: nothing to measure")
    return 1e3 * (last - began), lowered, charging


def run(arguments: argparse.Namespace) -> list[Row]:
    """Trips one after the other; median and p99 of the time to the last lowered grant."""
    chance = random.Random(arguments.seed)
    found: list[tuple[float, int, int]] = []
    with tempfile.TemporaryDirectory(prefix="powerd-bench-") as folder, _hub(Path(folder)) as (streams, stub):
        if not _until(lambda: all((stream.ceilings > 0).all() for stream in streams)):
            raise SystemExit("not every EVSE got a first grant")
        switchgear = Switchgear(stub)
        for number in range(arguments.trips):
            found.append(_trip(streams, switchgear, chance.random()))
            ms, lowered, charging = found[-1]
            print(f"trip {number + 1}: {ms:.1f} ms, {lowered} of {charging} lowered", file=sys.stderr)
    times = np.array([ms for ms, *_ in found])
    return [
        {
            "case": "north lost, tie closed",
            "engine": "powerd",
            "n": len(streams) * EACH,
            "controllers": len(streams),
            "trips": len(found),
            "lowered_least": min(lowered for _, lowered, _ in found),
            "charging_least": min(charging for *_, charging in found),
            "median_ms": round(float(np.median(times)), 2),
            "p99_ms": round(float(np.percentile(times, 99)), 2),
            "worst_ms": round(float(times.max()), 2),
            "load": [round(load, 1) for load in os.getloadavg()],
        }
    ]
