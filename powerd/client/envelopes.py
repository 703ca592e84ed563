"""What a grid operator asks of a running daemon, for the command line and for scripts."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from powerd.client.ask import PATIENCE_S, Daemon
from powerd.errors import BadRequest
from powerd.v1 import envelope_service_pb2 as pb
from powerd.v1.envelope_service_pb2_grpc import EnvelopeServiceStub

DAY_S = 86_400.0
"""Longest heartbeat that a source may promise [s]."""


def set_envelope(
    daemon: Daemon,
    import_limit_kw: float,
    *,
    source: str,
    envelope_id: str = "",
    start: datetime | None = None,
    end: datetime | None = None,
    heartbeat_s: float | None = None,
) -> pb.Envelope:
    """Sets an envelope, or says it again; see SetEnvelopeRequest. Naive instants are local time.

    Raises:
        BadRequest: an instant or the heartbeat is none that can be said.
        PowerdError: nobody answers there, or it refuses.
    """
    request = pb.SetEnvelopeRequest(source=source, envelope_id=envelope_id, import_limit_kw=import_limit_kw)
    if start is not None:
        request.start_time.FromDatetime(_utc("start", start))
    if end is not None:
        request.end_time.FromDatetime(_utc("end", end))
    if heartbeat_s is not None:
        if not 0.0 < heartbeat_s <= DAY_S:
            raise BadRequest("heartbeat", f"a number of seconds up to {DAY_S:g}, got {heartbeat_s:g}")
        request.heartbeat.FromTimedelta(timedelta(seconds=heartbeat_s))
    with daemon.service(EnvelopeServiceStub) as service:
        return service.SetEnvelope(request, timeout=PATIENCE_S).envelope


def _utc(field: str, instant: datetime) -> datetime:
    """The same instant in UTC.

    Raises:
        BadRequest: it lies beyond the years 1 to 9999 there.
    """
    try:
        return instant.astimezone(UTC)
    except (OverflowError, ValueError):
        raise BadRequest(field, f"an instant of the years 1 to 9999 in UTC, got {instant.isoformat()}") from None


def withdraw_envelope(daemon: Daemon, envelope_id: str) -> None:
    """Takes an envelope back.

    Raises:
        PowerdError: nobody answers there, or there is none of that id.
    """
    with daemon.service(EnvelopeServiceStub) as service:
        service.WithdrawEnvelope(pb.WithdrawEnvelopeRequest(envelope_id=envelope_id), timeout=PATIENCE_S)


def list_envelopes(daemon: Daemon) -> pb.ListEnvelopesResponse:
    """All that hold or wait, and what the site could import now.

    Raises:
        PowerdError: nobody answers there.
    """
    with daemon.service(EnvelopeServiceStub) as service:
        return service.ListEnvelopes(pb.ListEnvelopesRequest(), timeout=PATIENCE_S)


def sentence(one: pb.Envelope) -> str:
    """An envelope in a line for people."""
    until = f"until {_clock(one.end_time.ToDatetime(UTC))}" if one.HasField("end_time") else "until withdrawn"
    state = f"waits for {_clock(one.start_time.ToDatetime(UTC))}"
    if one.in_force:
        state = "in force, not kept yet"
    if one.HasField("kept_since"):
        begun, kept = (_clock(at.ToDatetime(UTC)) for at in (one.in_force_since, one.kept_since))
        state = f"in force since {begun}, kept since {kept}"
    if one.silent:
        state += "; its source is silent"
    promise = "guaranteed" if one.guaranteed else "not guaranteed: below all that the site file promises to keep"
    return f"{one.envelope_id} of {one.source}: {one.import_limit_kw:g} kW {until}; {state}; {promise}"


def import_sentence(found: pb.ListEnvelopesResponse) -> str:
    """How much could be imported, and may be, in a line for people."""
    if math.isinf(found.import_limit_kw):
        return "the site file has no grid_connection.import_limit_kw: nothing is said of what may be imported"
    return f"at most {found.worst_import_kw:.4g} kW could be imported now, {found.import_limit_kw:.4g} kW may be"


def _clock(instant: datetime) -> str:
    return instant.astimezone().isoformat(timespec="seconds")
