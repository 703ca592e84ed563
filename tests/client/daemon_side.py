"""What a daemon would send: the messages of the controller stream, one line each."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from powerd.client import ControllerCore, EvseConfig, Memory, Write
from powerd.server.outbox import duration
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb

ME = 77
TTL_S = 15.0


def controller(
    count: int = 2,
    *,
    fallback: float = 6.0,
    idle: float = 0.0,
    incarnation: int = ME,
    memory: Memory | None = None,
    found: Collection[str] = (),
    switches: bool = False,
) -> ControllerCore:
    """A core of ``count`` EVSEs that has started."""
    evses = [
        EvseConfig(evse_id=f"e{i}", fallback=fallback, fallback_idle=idle, switches_phases=switches)
        for i in range(count)
    ]
    core = ControllerCore("c", evses, incarnation=incarnation, memory=memory, found=found)
    take(core, core.start(), 0.0)
    return core


def grants(
    order: tuple[int, int],
    ceilings: Mapping[int, float],
    echo_s: float,
    *,
    latched: tuple[int, ...] = (),
    one_phase: tuple[int, ...] = (),
    incarnation: int = ME,
    ttl_s: float = TTL_S,
) -> pb.ConnectResponse:
    """A Grants message."""
    message = pb.Grants(
        epoch=order[0],
        seq=order[1],
        ttl=duration(ttl_s),
        echo=pb_common.Stamp(incarnation=incarnation, boottime_s=echo_s),
        index=list(ceilings),
        ceiling=list(ceilings.values()),
        latched_index=latched,
        one_phase_index=one_phase,
    )
    return pb.ConnectResponse(grants=message)


def renewal(
    order: tuple[int, int], echo_s: float, count: int, *, incarnation: int = ME, ttl_s: float = TTL_S
) -> pb.ConnectResponse:
    """A RenewAll message."""
    message = pb.RenewAll(
        epoch=order[0],
        seq=order[1],
        ttl=duration(ttl_s),
        echo=pb_common.Stamp(incarnation=incarnation, boottime_s=echo_s),
        count=count,
    )
    return pb.ConnectResponse(renew_all=message)


def take(core: ControllerCore, writes: tuple[Write, ...], now_s: float) -> None:
    """The actuators take everything at once."""
    for write in writes:
        core.applied(write, now_s)


def hello(core: ControllerCore, now_s: float) -> float:
    """Opens a stream; returns the stamp."""
    return core.hello(now_s).hello.stamp.boottime_s


def beat(core: ControllerCore, now_s: float) -> float:
    """Sends a report; returns its stamp."""
    return core.report(now_s).report.stamp.boottime_s
