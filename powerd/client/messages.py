"""The daemon's messages to plain values, checked, and the controller's values to messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from powerd.client.lease import NONE, EvseLease, Order, Terms, Write
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The entries of one Grants message."""

    index: list[int]
    """Which EVSEs, each once."""
    ceiling: list[float]
    """Their ceilings [own unit], >= 0 and finite."""
    latched: frozenset[int]
    """Which of them are stops."""
    one_phase: frozenset[int]
    """Which of them are for L1 alone."""


def terms_of(message: pb.Grants | pb.RenewAll | pb_common.Grant) -> Terms | None:
    """What the entries of ``message`` share; None if it is malformed: no epoch, seq, lease length or stamp."""
    ttl_s = seconds_of(message.ttl)
    echo_s = message.echo.boottime_s
    if message.epoch < 1 or message.seq < 1 or ttl_s is None or not math.isfinite(echo_s) or echo_s < 0:
        return None
    return Terms(order=(message.epoch, message.seq), echo_s=echo_s, ttl_s=ttl_s)


def seconds_of(span: Duration) -> float | None:
    """A span of time [s]; None where it is none: not above 0, or longer than any can be."""
    try:
        seconds = span.ToTimedelta().total_seconds()
    except (OverflowError, ValueError):
        return None
    return seconds if seconds > 0.0 else None


def grants_columns(message: pb.Grants, count: int) -> Columns | None:
    """The entries of ``message`` for a controller of ``count`` EVSEs; None if it is malformed."""
    index, ceiling = list(message.index), list(message.ceiling)
    latched, one_phase = frozenset(message.latched_index), frozenset(message.one_phase_index)
    known = set(index)
    if len(index) != len(ceiling) or len(known) != len(index) or not latched | one_phase <= known:
        return None
    if index and not 0 <= min(index) <= max(index) < count:
        return None
    if not all(math.isfinite(c) and c >= 0 for c in ceiling):
        return None
    if any(c > 0 for i, c in zip(index, ceiling, strict=True) if i in latched):
        return None
    return Columns(index=index, ceiling=ceiling, latched=latched, one_phase=one_phase)


def evse_state(lease: EvseLease, now_s: float) -> pb.EvseState:
    """What the hello says of one EVSE."""
    config = lease.config
    endless = config.watchdog_s == math.inf
    # The first one accepted for a car opens its fallback, whatever the post makes of it; one from before it does not.
    epoch, seq = lease.accepted if lease.known or not lease.plugged else NONE
    return pb.EvseState(
        evse_id=config.evse_id,
        plugged=lease.plugged,
        plug_boottime_s=lease.told_plug_s,
        epoch=epoch,
        seq=seq,
        applied_ceiling=lease.in_force,
        remaining_ttl_s=lease.remaining_s(now_s),
        latched=lease.stopped,
        fallback=config.fallback,
        fallback_idle=config.fallback_idle,
        boot_ceiling=config.boot_ceiling,
        watchdog_s=None if endless else config.watchdog_s,
        no_watchdog=endless,
        unsettled=not lease.settled,
        switches_phases=config.switches_phases,
        one_phase=bool(lease.on_one_phase),
    )


def applied_grants(order: Order, taken: Mapping[int, Write], *, everyone: bool) -> pb.AppliedGrants:
    """The ack of one message: which EVSEs took it (index -> what was written), or ``everyone``."""
    if everyone:
        return pb.AppliedGrants(epoch=order[0], seq=order[1], all=True)
    return pb.AppliedGrants(
        epoch=order[0],
        seq=order[1],
        index=list(taken),
        ceiling=[write.ceiling for write in taken.values()],
        one_phase_index=[i for i, write in taken.items() if write.one_phase],
    )
