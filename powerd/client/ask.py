"""Questions to a running daemon, for the command line and for scripts."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from powerd.errors import PowerdError
from powerd.units import PORT_MAX
from powerd.v1 import site_service_pb2 as pb
from powerd.v1 import site_service_pb2_grpc as rpc

PATIENCE_S = 5.0
"""How long to wait for an answer."""
STOP_PATIENCE_S = 30.0
"""The same for a stop, whose answer waits until all have acked it, or 2.5 ticks."""
FULL_SHARE = 0.9
"""From this share of its capacity a limit is told of."""

Stub = TypeVar("Stub")


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """Where a daemon listens, and how it and we show who we are."""

    address: str
    """host:port."""
    tls_ca: Path | None = None
    """PEM certificate of the authority that issued the daemon's; None = plain text."""
    tls_cert: Path | None = None
    """Our own PEM certificate chain, where the daemon wants one."""
    tls_key: Path | None = None
    """Its private key."""

    def channel(self) -> grpc.Channel:
        """A new one, to be closed.

        Raises:
            PowerdError: no such port, the files do not belong together, or one cannot be read.
        """
        port = self.address.rpartition(":")[2]
        if port.isdecimal() and int(port) > PORT_MAX:
            raise PowerdError(f"{self.address}: a port is at most {PORT_MAX}")
        if self.tls_ca is None and self.tls_cert is None and self.tls_key is None:
            return grpc.insecure_channel(self.address)
        if self.tls_ca is None or (self.tls_cert is None) != (self.tls_key is None):
            raise PowerdError("TLS needs --tls-ca; --tls-cert and --tls-key are given both or not at all")
        ca, cert, key = (
            None if file is None else _bytes_of(file) for file in (self.tls_ca, self.tls_cert, self.tls_key)
        )
        return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(ca, key, cert))

    @contextmanager
    def service(self, stub: Callable[[grpc.Channel], Stub]) -> Iterator[Stub]:
        """One of its services, for a few calls.

        Raises:
            PowerdError: nobody answers there, or it refuses.
        """
        with self.channel() as channel:
            try:
                yield stub(channel)
            except grpc.RpcError as error:
                raise self._refused(error) from error

    def _refused(self, error: grpc.RpcError) -> PowerdError:
        """The sentence for a call that failed."""
        silent = error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        tls = ", and does it want TLS?" if self.tls_ca is None else "?"
        hint = f"; is `powerd serve` running there (its first start takes minutes){tls}"
        return PowerdError(f"{self.address}: {error.details()}{hint if silent else ''}")


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as unreadable:
        raise PowerdError(f"{file}: cannot read this TLS file: {unreadable.strerror}") from unreadable


@dataclass(frozen=True, kw_only=True)
class CeilingExplained:
    """Why an EVSE's ceiling is what it is."""

    evse_id: str
    """Which."""
    ceiling: float
    """Newest ceiling sent [A or kW]."""
    want: float
    """What it is to get as soon as the leases of others allow [A or kW]."""
    worst: float
    """The most it could be drawing [A or kW]."""
    limit: str
    """The limit that binds it; "" = none."""
    source: str
    """Where that limit's rating came from."""
    shadow_price: float
    """Utility gained by one more unit of it."""
    others: int
    """How many other EVSEs it holds."""
    reason: str
    """The sentence."""

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return asdict(self)


def explain_ceiling(daemon: Daemon, evse_id: str) -> CeilingExplained:
    """Asks a daemon.

    Raises:
        PowerdError: nobody answers there, or there is no such EVSE.
    """
    with daemon.service(rpc.SiteServiceStub) as site:
        answer = site.ExplainCeiling(pb.ExplainCeilingRequest(evse_id=evse_id), timeout=PATIENCE_S)
    return CeilingExplained(
        evse_id=evse_id,
        ceiling=answer.ceiling,
        want=answer.want,
        worst=answer.worst,
        limit=answer.limit.name,
        source=answer.limit.source,
        shadow_price=answer.shadow_price,
        others=answer.others,
        reason=answer.reason,
    )


@dataclass(frozen=True, kw_only=True)
class SiteStatus:
    """What is built, and how it stands after the newest tick."""

    built: pb.GetSiteResponse
    now: pb.WatchSiteResponse

    @property
    def in_order(self) -> bool:
        """No alarm stands, and every stop is acked."""
        return not self.now.alarms and not any(stop.unacked_evse_ids for stop in self.now.stops)

    def sentences(self) -> Iterator[str]:
        """For people: cars, the limits that are nearly used up, alarms, stops."""
        now, cars = self.now, sum(self.now.plugged)
        charging = sum(plugged and ceiling > 0 for plugged, ceiling in zip(now.plugged, now.ceiling, strict=True))
        at = now.time.ToDatetime(UTC).astimezone().isoformat(timespec="seconds")
        yield f"{self.built.site_id} at {at}: {cars} of {len(now.plugged)} EVSEs have a car, {charging} may charge"
        full = [
            (flow, limit) for flow, limit in zip(now.limit_flow, self.built.limits, strict=True) if _full(flow, limit)
        ]
        for flow, limit in sorted(full, key=lambda one: one[1].capacity - one[0]):
            yield f"{limit.name}: {flow:.4g} of {limit.capacity:.4g} {limit.unit}"
        for alarm in now.alarms:
            yield f"alarm: {alarm}"
        for stop in now.stops:
            yield f"stop {stop.stop_id} of {stop.element} ({stop.reason}): {stopped(stop)}"

    def as_json(self) -> dict[str, object]:
        """For ``--json``: the fields of the .proto by their names."""
        return {**message_as_json(self.built), **message_as_json(self.now)}


def counted(evse_ids: Sequence[str]) -> str:
    """How many, for people."""
    return "1 EVSE" if len(evse_ids) == 1 else f"{len(evse_ids)} EVSEs"


def stopped(stop: pb.StandingStop | pb.StopChargingResponse) -> str:
    """How many a stop concerns and who has not acked it, for people."""
    open_ = f", not acked by {', '.join(stop.unacked_evse_ids)}" if stop.unacked_evse_ids else ""
    return counted(stop.evse_ids) + open_


def _full(flow: float, limit: pb.LimitInfo) -> bool:
    return flow >= FULL_SHARE * limit.capacity > 0.0


def message_as_json(message: Message) -> dict[str, object]:
    """The fields of the .proto by their names, instants as RFC 3339."""
    found: dict[str, object] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def status_of(daemon: Daemon) -> SiteStatus:
    """Asks how the site stands.

    Raises:
        PowerdError: nobody answers there.
    """
    with daemon.service(rpc.SiteServiceStub) as site:
        built = site.GetSite(pb.GetSiteRequest(), timeout=PATIENCE_S)
        watch = site.WatchSite(pb.WatchSiteRequest(), timeout=PATIENCE_S)
        now = next(iter(watch))
        watch.cancel()
    return SiteStatus(built=built, now=now)


def stop_charging(daemon: Daemon, element: str, reason: str) -> pb.StopChargingResponse:
    """Stops all charging below an element until it is released.

    Raises:
        PowerdError: nobody answers there, or there is no such element.
    """
    request = pb.StopChargingRequest(request_id=uuid.uuid4().hex, element=element, reason=reason)
    with daemon.service(rpc.SiteServiceStub) as site:
        return site.StopCharging(request, timeout=STOP_PATIENCE_S)


def release_stop(daemon: Daemon, stop_id: str, reason: str) -> pb.ReleaseStopResponse:
    """Ends a stop.

    Raises:
        PowerdError: nobody answers there, or there is no such stop.
    """
    request = pb.ReleaseStopRequest(request_id=uuid.uuid4().hex, stop_id=stop_id, reason=reason)
    with daemon.service(rpc.SiteServiceStub) as site:
        return site.ReleaseStop(request, timeout=PATIENCE_S)
