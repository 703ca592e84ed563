"""Starts the gRPC server around a ``Core``."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from powerd.errors import CannotListen
from powerd.server.controllers import ControllerService
from powerd.server.core import Core, GrantSink
from powerd.server.directory import Directory
from powerd.server.envelopes import EnvelopeService
from powerd.server.gear_convert import GearNames
from powerd.server.gear_streams import GearStreams
from powerd.server.meters import MeterService
from powerd.server.posting import Desk
from powerd.server.publish import Publisher
from powerd.server.reasons import ReasonLog
from powerd.server.sessions import SessionService
from powerd.server.site import SiteService
from powerd.server.stamps import Stamps
from powerd.server.stepped import SteppedClockService
from powerd.server.streams import Streams
from powerd.server.switchgear import SwitchgearService
from powerd.server.unary import SetpointDesk
from powerd.units import PORT_MAX
from powerd.v1 import (
    controller_service_pb2,
    controller_service_pb2_grpc,
    envelope_service_pb2,
    envelope_service_pb2_grpc,
    meter_service_pb2,
    meter_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
    site_service_pb2,
    site_service_pb2_grpc,
    stepped_clock_service_pb2,
    stepped_clock_service_pb2_grpc,
    switchgear_service_pb2,
    switchgear_service_pb2_grpc,
)

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", 4 << 20),  # a hello of 5 000 EVSEs has 0.5 MB
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.max_concurrent_streams", 8192),  # of one connection: a gateway may carry many controllers
    # By default gRPC drops calls beyond 1 000 pending ones, and all beyond 3 000: streams above about 3 200 vanished.
    ("grpc.server_max_pending_requests", 20_000),
    ("grpc.server_max_pending_requests_hard_limit", 40_000),
    # A peer that is gone without a word is noticed within 15 s, as is a middle box that forgot the connection.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.so_reuseport", 0),  # a second daemon on the same port must fail, not share the controllers
)
SERVICES = (
    controller_service_pb2.DESCRIPTOR.services_by_name["ControllerService"].full_name,
    envelope_service_pb2.DESCRIPTOR.services_by_name["EnvelopeService"].full_name,
    meter_service_pb2.DESCRIPTOR.services_by_name["MeterService"].full_name,
    session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name,
    site_service_pb2.DESCRIPTOR.services_by_name["SiteService"].full_name,
    switchgear_service_pb2.DESCRIPTOR.services_by_name["SwitchgearService"].full_name,
)
STEPPED = stepped_clock_service_pb2.DESCRIPTOR.services_by_name["SteppedClockService"].full_name
OVERALL = ""
"""The name under which health speaks for the whole server."""
GRACE_S = 1.0
"""What running calls get to end when the server stops [s]; streams never end by themselves."""


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files of a server with TLS."""

    certificate: Path
    """Its certificate chain."""
    key: Path
    """Its private key."""
    client_authority: Path | None = None
    """If given, clients must show a certificate of this authority."""


@dataclass(kw_only=True, eq=False)
class RunningServer:
    """A server that listens."""

    address: str
    """Where: host:port with the port it got."""
    port: int
    """The port alone."""
    sink: GrantSink
    """Where the ticker hands its grants."""
    _server: grpc.aio.Server
    _health: health_aio.HealthServicer
    _services: tuple[str, ...]
    _reasons: asyncio.Task[None]
    _told: list[asyncio.Task[None]] = field(default_factory=list)

    def set_serving(self, serving: bool = True) -> None:
        """Tells health that grants beyond fallbacks are given (or no more); a server starts as NOT_SERVING."""
        self._told = [asyncio.create_task(self.tell_health(serving))]

    async def tell_health(self, serving: bool) -> None:
        """The same, done when it returns."""
        status = health_pb2.HealthCheckResponse
        state = status.SERVING if serving else status.NOT_SERVING
        for name in (OVERALL, *self._services):
            await self._health.set(name, state)

    async def stop(self) -> None:
        """Refuses new calls, ends the running ones, and closes the port."""
        self._reasons.cancel()
        await self._server.stop(GRACE_S)


async def start_server(
    core: Core, address: str, *, tls: TlsFiles | None, allow_insecure: bool, stepped: bool
) -> RunningServer:
    """Listens on ``address`` ("host:port", port 0 = any) and serves ``core``.

    Args:
        core: The controller.
        address: Where to listen. Choose a port below 32768: above, Linux may have lent it to an outgoing connection.
        tls: Its certificate; None = plain text.
        allow_insecure: That anybody beyond this machine may command is what the user asked for.
        stepped: Also serve SteppedClockService; only on loopback.

    Raises:
        CannotListen: the address must not or cannot be listened on; says what to do.
    """
    loopback = _is_loopback(address)
    if stepped and not loopback:
        raise CannotListen(f"{address}: a stepped clock is served on loopback only; listen on 127.0.0.1")
    if (tls is None or tls.client_authority is None) and not loopback and not allow_insecure:
        raise CannotListen(
            f"{address}: everybody on that network could command the chargers; give --tls-cert, --tls-key and "
            "--tls-client-ca (TLS without it only encrypts), listen on 127.0.0.1, or say --insecure if another layer "
            "protects the network"
        )
    names = Directory.of(core.electrical)
    publisher = Publisher(names, core.electrical.controllers.ttl_s)
    server = grpc.aio.server(options=list(OPTIONS))
    services = _add_services(server, core, names, publisher, stepped=stepped)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflected = (*services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(reflected, server)
    port = _listen(server, address, tls)
    running = RunningServer(
        address=address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}",
        port=port,
        sink=publisher,
        _server=server,
        _health=health,
        _services=services,
        _reasons=asyncio.create_task(ReasonLog(core).follow()),
    )
    await running.tell_health(serving=False)
    await server.start()
    return running


def _add_services(
    server: grpc.aio.Server, core: Core, names: Directory, publisher: Publisher, *, stepped: bool
) -> tuple[str, ...]:
    """Adds powerd's services; returns their full names."""
    desk = Desk(core=core, stepped=stepped)
    stamps = Stamps()
    controllers = ControllerService(
        Streams(core, names, publisher, stamps), SetpointDesk(desk, names, publisher, stamps)
    )
    controller_service_pb2_grpc.add_ControllerServiceServicer_to_server(controllers, server)
    envelope_service_pb2_grpc.add_EnvelopeServiceServicer_to_server(EnvelopeService(desk), server)
    meter_service_pb2_grpc.add_MeterServiceServicer_to_server(MeterService(core), server)
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(
        SessionService(desk, names, publisher.session_called), server
    )
    site_service_pb2_grpc.add_SiteServiceServicer_to_server(SiteService(desk, names), server)
    gear_names = GearNames.of(core.electrical)
    gear = GearStreams(core, gear_names)
    publisher.order = gear.publish
    gear.told = publisher.gear_reported
    switchgear_service_pb2_grpc.add_SwitchgearServiceServicer_to_server(
        SwitchgearService(desk, names, gear_names, gear), server
    )
    if not stepped:
        return SERVICES
    clock = SteppedClockService(core, names, publisher, lambda: gear.given)
    stepped_clock_service_pb2_grpc.add_SteppedClockServiceServicer_to_server(clock, server)
    return (*SERVICES, STEPPED)


def _is_loopback(address: str) -> bool:
    """Can only this machine reach ``address``?

    Raises:
        CannotListen: it is not "host:port".
    """
    if address.startswith("unix:"):
        return True
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > PORT_MAX:
        raise CannotListen(f"{address}: write host:port, the port at most {PORT_MAX}, for example 127.0.0.1:7433")
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: who knows where it points
        return False


def _listen(server: grpc.aio.Server, address: str, tls: TlsFiles | None) -> int:
    """Binds the port.

    Raises:
        CannotListen: taken, not ours, or the TLS files are unreadable.
    """
    try:
        port = _bind(server, address, tls)
    except RuntimeError as refused:
        pem = "" if tls is None else ", or is a TLS file no PEM, or the key another certificate's"
        raise CannotListen(f"{address}: cannot listen there; is another daemon running, or is it not ours{pem}?") from (
            refused
        )
    return port


def _bind(server: grpc.aio.Server, address: str, tls: TlsFiles | None) -> int:
    return server.add_insecure_port(address) if tls is None else server.add_secure_port(address, _credentials(tls))


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    try:
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        authority = None if tls.client_authority is None else tls.client_authority.read_bytes()
    except OSError as unreadable:
        raise CannotListen(f"{unreadable.filename}: cannot read this TLS file: {unreadable.strerror}") from unreadable
    return grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=authority is not None)
