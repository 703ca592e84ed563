"""What drivers say, from and to the wire."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from powerd.control.events import Demand
from powerd.errors import BadRequest
from powerd.server import checks
from powerd.server.directory import Directory
from powerd.state.snapshot import SessionTold
from powerd.v1 import session_service_pb2 as pb

PRIORITY_MAX = 9
WEIGHT_MIN, WEIGHT_MAX = 0.001, 1000.0
LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The last second: as POSIX seconds in a double what follows it is the year 10000, which no instant can be."""


def demand_from(message: pb.Demand, names: Directory, evse: int) -> Demand:
    """Checks what was said about a car at column ``evse``; what is absent stays None.

    Raises:
        BadRequest: a value cannot be, or is not for this kind of post.
    """
    _for_this_kind(message, dc=bool(names.posts.is_dc[evse]))
    low, high = _bounds(message, names, evse)
    weight = _present(message, "weight")
    return Demand(
        requested_energy_kwh=_above_zero(message, "requested_energy_kwh"),
        departure_time=instant("demand.departure_time", message.departure_time)
        if message.HasField("departure_time")
        else None,
        min_ceiling=low,
        max_ceiling=high,
        priority=_priority(message),
        weight=None if weight is None else checks.number("demand.weight", weight, least=WEIGHT_MIN, most=WEIGHT_MAX),
    )


def demand_to(told: SessionTold, names: Directory, evse: int) -> pb.Demand:
    """What is known of the car at column ``evse``."""
    least = max(told.min_ceiling, float(names.posts.min_ceiling[evse]))
    most = min(told.max_ceiling, float(names.posts.max_ceiling[evse]))
    demand = pb.Demand(priority=told.priority, weight=told.weight)
    if not math.isnan(told.requested_kwh):
        demand.requested_energy_kwh = told.requested_kwh
    if not math.isnan(told.departure_utc_s):
        demand.departure_time.CopyFrom(timestamp(told.departure_utc_s))
    if names.posts.is_dc[evse]:
        demand.max_power_kw = most
    else:
        demand.min_current_a = least
        demand.max_current_a = most
    return demand


def timestamp(utc_s: float) -> Timestamp:
    """POSIX seconds as a protobuf instant, to the microsecond."""
    instant = Timestamp()
    instant.FromDatetime(datetime.fromtimestamp(utc_s, UTC))
    return instant


def instant(field: str, message: Timestamp) -> datetime:
    """A protobuf instant as an aware datetime, ``LATEST`` at most.

    Raises:
        BadRequest: it is outside of what protobuf allows (years 1 to 9999).
    """
    try:
        return min(message.ToDatetime(tzinfo=UTC), LATEST)
    except (ValueError, OverflowError):
        raise BadRequest(field, "an instant of the years 1 to 9999, nanos from 0 to 999999999") from None


def _for_this_kind(message: pb.Demand, *, dc: bool) -> None:
    wrong = ("min_current_a", "max_current_a") if dc else ("max_power_kw",)
    for name in wrong:
        if message.HasField(name):  # type: ignore[arg-type]  # one of the literals above
            instead = "max_power_kw" if dc else "max_current_a"
            raise BadRequest(f"demand.{name}", f"absent for {'a DC' if dc else 'an AC'} EVSE; say {instead}")


def _bounds(message: pb.Demand, names: Directory, evse: int) -> tuple[float | None, float | None]:
    """Least and largest ceiling the car takes [own unit]."""
    least = float(names.posts.min_ceiling[evse])
    low = _present(message, "min_current_a")
    high = _above_zero(message, "max_power_kw" if names.posts.is_dc[evse] else "max_current_a")
    if low is not None:
        checks.number("demand.min_current_a", low, least=least)
    if low is not None and high is not None and high < low:
        raise BadRequest("demand.max_current_a", f"not below min_current_a ({low:g} A), got {high:g}")
    return low, high


def _priority(message: pb.Demand) -> int | None:
    if not message.HasField("priority"):
        return None
    if not 0 <= message.priority <= PRIORITY_MAX:
        raise BadRequest("demand.priority", f"an integer from 0 to {PRIORITY_MAX}, got {message.priority}")
    return message.priority


def _present(message: pb.Demand, name: str) -> float | None:
    if not message.HasField(name):  # type: ignore[arg-type]  # callers pass literals
        return None
    return float(getattr(message, name))


def _above_zero(message: pb.Demand, name: str) -> float | None:
    value = _present(message, name)
    return None if value is None else checks.positive(f"demand.{name}", value)
