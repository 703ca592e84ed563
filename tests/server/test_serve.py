"""Listening: loopback or TLS or a word of the user; health and reflection."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from powerd.errors import CannotListen
from powerd.server.serve import TlsFiles, start_server
from powerd.v1 import site_service_pb2 as pb
from powerd.v1.site_service_pb2_grpc import SiteServiceStub
from tests.server.dialogue import serving
from tests.server.fake import FakeCore

# Self-signed, for localhost only, valid for 100 years; made with `openssl req -x509 -newkey ec`. Not a secret.


async def _start(address: str, *, tls: TlsFiles | None = None, insecure: bool = False, stepped: bool = False) -> str:
    server = await start_server(FakeCore(), address, tls=tls, allow_insecure=insecure, stepped=stepped)
    await server.stop()
    return server.address


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.7:50051", "powerd.example:50051"])
def test_beyond_this_machine_plain_text_is_refused(address: str) -> None:
    """And the message says the three ways out."""
    with pytest.raises(CannotListen, match=r"--tls-cert.*127\.0\.0\.1.*--insecure"):
        asyncio.run(_start(address))


def test_plain_text_beyond_this_machine_is_served_on_request() -> None:
    """The explicit flag is enough."""
    assert asyncio.run(_start("0.0.0.0:0", insecure=True)).startswith("0.0.0.0:")


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "[::1]:0", "127.8.9.10:0"])
def test_loopback_needs_no_tls(address: str) -> None:
    """The address it tells has the port it got."""
    host, _, port = asyncio.run(_start(address)).rpartition(":")
    assert host == address.rpartition(":")[0]
    assert int(port) > 0


def test_a_stepped_clock_stays_on_this_machine() -> None:
    """Even with the flag: who moves the clock moves the chargers."""
    with pytest.raises(CannotListen, match="loopback only"):
        asyncio.run(_start("0.0.0.0:0", insecure=True, stepped=True))


@pytest.mark.parametrize("address", ["7040", "localhost", "localhost:port", "127.0.0.1:99999", ""])
def test_an_address_without_host_and_port_is_refused(address: str) -> None:
    """With an example of a right one."""
    with pytest.raises(CannotListen, match="host:port"):
        asyncio.run(_start(address))


def test_two_daemons_do_not_share_a_port() -> None:
    """Linux would let them: half of the controllers would talk to the one, half to the other."""

    async def scene() -> None:
        async with serving(FakeCore()) as (server, _):
            with pytest.raises(CannotListen, match="another daemon"):
                await _start(server.address)

    asyncio.run(scene())


def test_missing_tls_files_are_named(tmp_path: Path) -> None:
    """Not a stack trace of gRPC's."""
    tls = TlsFiles(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    with pytest.raises(CannotListen, match=r"key\.pem"):
        asyncio.run(_start("127.0.0.1:0", tls=tls))


def test_tls_alone_lets_nobody_beyond_this_machine_in(tmp_path: Path) -> None:
    """It encrypts, and does not say who may command: that needs the authority of the clients."""
    tls = TlsFiles(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    with pytest.raises(CannotListen, match="--tls-client-ca"):
        asyncio.run(_start("0.0.0.0:0", tls=tls))


def test_a_key_of_another_certificate_is_named(tmp_path: Path) -> None:
    """Not the port is to blame."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    trustme.CA().issue_cert("localhost").cert_chain_pems[0].write_to_path(str(certificate))
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(str(key))
    with pytest.raises(CannotListen, match="TLS file"):
        asyncio.run(_start("127.0.0.1:0", tls=TlsFiles(certificate=certificate, key=key)))


@pytest.mark.parametrize("mutual", [False, True])
def test_with_tls_the_peer_is_known(mutual: bool, tmp_path: Path) -> None:
    """Plain text is not answered; where clients must show a certificate, those without one are not answered."""
    issuer = trustme.CA()
    issued = issuer.issue_cert("localhost")
    chain, key, trusted = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "authority.pem"
    issued.cert_chain_pems[0].write_to_path(str(chain))
    issued.private_key_pem.write_to_path(str(key))
    issuer.cert_pem.write_to_path(str(trusted))
    authority = trusted.read_bytes()
    pair = (key.read_bytes(), chain.read_bytes())

    async def serves(channel: grpc.aio.Channel) -> bool:
        async with channel:
            try:
                await SiteServiceStub(channel).GetSite(pb.GetSiteRequest(), timeout=5)
            except grpc.aio.AioRpcError as refused:
                return refused.code() is not grpc.StatusCode.UNAVAILABLE
            return True

    async def scene() -> None:
        tls = TlsFiles(certificate=chain, key=key, client_authority=trusted if mutual else None)
        server = await start_server(FakeCore(), "0.0.0.0:0", tls=tls, allow_insecure=not mutual, stepped=False)
        target = f"localhost:{server.port}"
        known = grpc.ssl_channel_credentials(authority, *pair)
        unknown = grpc.ssl_channel_credentials(authority)
        try:
            assert await serves(grpc.aio.secure_channel(target, known))
            assert await serves(grpc.aio.secure_channel(target, unknown)) != mutual
            assert not await serves(grpc.aio.insecure_channel(target))
        finally:
            await server.stop()

    asyncio.run(scene())


def test_health_is_bad_until_told_otherwise() -> None:
    """NOT_SERVING from the start for the server and each service, then SERVING, then not again."""

    async def scene() -> None:
        async with serving(FakeCore()) as (server, channel):
            stub = health_pb2_grpc.HealthStub(channel)

            async def state(service: str) -> int:
                return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)

            for service in ("", "powerd.v1.ControllerService"):
                assert await state(service) == health_pb2.HealthCheckResponse.NOT_SERVING
            server.set_serving()
            for service in ("", "powerd.v1.ControllerService", "powerd.v1.SiteService", "powerd.v1.SessionService"):
                assert await state(service) == health_pb2.HealthCheckResponse.SERVING
            server.set_serving(False)
            assert await state("") == health_pb2.HealthCheckResponse.NOT_SERVING

    asyncio.run(scene())


@pytest.mark.parametrize("stepped", [True, False])
def test_reflection_lists_what_is_served(stepped: bool) -> None:
    """grpcurl needs no .proto files; the stepped clock is listed only where it is."""

    async def scene() -> set[str]:
        async with serving(FakeCore(), stepped=stepped) as (_, channel):
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]  # knows no aio
            call = stub.ServerReflectionInfo()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            answer = await call.read()
            return {service.name for service in answer.list_services_response.service}

    names = asyncio.run(scene())
    assert names >= {"powerd.v1.ControllerService", "powerd.v1.SessionService", "powerd.v1.SiteService"}
    assert ("powerd.v1.SteppedClockService" in names) == stepped
