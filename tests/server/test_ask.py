"""What an operator asks from the command line, and over TLS: who shows what is wanted is let in, no others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import trustme

from powerd.client.ask import Daemon, SiteStatus, explain_ceiling, release_stop, status_of, stop_charging
from powerd.client.envelopes import list_envelopes
from powerd.daemon import ServeOptions, serve_site
from powerd.errors import PowerdError
from powerd.server.serve import TlsFiles, start_server
from powerd.v1.site_service_pb2 import GetSiteResponse, LimitInfo, StandingStop, WatchSiteResponse
from tests.server.dialogue import serving
from tests.server.fake import FakeCore

ITS_OWN_WORD = "the daemon has not ticked yet"


def _files(folder: Path) -> tuple[Path, Path, Path]:
    """Authority, certificate chain and key for localhost, of both sides."""
    authority, chain, key = folder / "ca.pem", folder / "chain.pem", folder / "key.pem"
    issuer = trustme.CA()
    issued = issuer.issue_cert("localhost")
    issuer.cert_pem.write_to_path(str(authority))
    issued.cert_chain_pems[0].write_to_path(str(chain))
    issued.private_key_pem.write_to_path(str(key))
    return authority, chain, key


def test_a_question_over_tls_reaches_the_daemon_with_a_certificate_alone(tmp_path: Path) -> None:
    """With all three files a daemon that has just begun says so itself; without our own nothing of it is heard; plain
    text gets a hint at TLS.
    """
    authority, chain, key = _files(tmp_path)

    async def scene() -> None:
        tls = TlsFiles(certificate=chain, key=key, client_authority=authority)
        server = await start_server(FakeCore(), "0.0.0.0:0", tls=tls, allow_insecure=False, stepped=False)
        address = f"localhost:{server.port}"
        try:
            known = Daemon(address=address, tls_ca=authority, tls_cert=chain, tls_key=key)
            with pytest.raises(PowerdError, match=ITS_OWN_WORD):
                await asyncio.to_thread(list_envelopes, known)
            with pytest.raises(PowerdError, match="does it want TLS"):
                await asyncio.to_thread(explain_ceiling, Daemon(address=address), "e1")
            with pytest.raises(PowerdError) as stranger:
                await asyncio.to_thread(explain_ceiling, Daemon(address=address, tls_ca=authority), "e1")
            assert ITS_OWN_WORD not in str(stranger.value)
        finally:
            await server.stop()

    asyncio.run(scene())


def test_a_port_that_is_none_is_refused() -> None:
    """gRPC takes it modulo 65 536, and would command whoever listens there."""
    with pytest.raises(PowerdError, match="a port is at most 65535"):
        explain_ceiling(Daemon(address="127.0.0.1:72969"), "e1")


@pytest.mark.parametrize(("certificate", "key"), [(True, False), (False, True)])
def test_half_of_a_pair_is_refused(certificate: bool, key: bool, tmp_path: Path) -> None:
    """On both sides, before anything is said: not plain text instead."""
    cert_file, key_file = (tmp_path / "half.pem" if given else None for given in (certificate, key))
    asker = Daemon(address="127.0.0.1:1", tls_ca=tmp_path / "ca.pem", tls_cert=cert_file, tls_key=key_file)
    with pytest.raises(PowerdError, match="both"):
        list_envelopes(asker)
    site = Path(__file__).parents[2] / "models" / "two_feeder_depot"
    options = ServeOptions(site=site, address="127.0.0.1:0", first_start=True, tls_cert=cert_file, tls_key=key_file)
    with pytest.raises(PowerdError, match="belong together"):
        asyncio.run(serve_site(options))


def test_an_operator_sees_how_it_stands_stops_it_and_lets_it_go_on() -> None:
    """Cars, an alarm, and a stop that nobody has acked, each in a line; the stop is gone after the release."""

    async def scene() -> None:
        core = FakeCore()
        core.snapshot.sessions.plugged[:2] = True
        core.tick(raised={0: 32.0, 1: 32.0})
        async with serving(core) as (server, _):
            daemon = Daemon(address=f"127.0.0.1:{server.port}")
            before = await asyncio.to_thread(status_of, daemon)
            taken = await asyncio.to_thread(stop_charging, daemon, "A1", "smoke")
            during = await asyncio.to_thread(status_of, daemon)
            freed = await asyncio.to_thread(release_stop, daemon, taken.stop_id, "it was steam")
            after = await asyncio.to_thread(status_of, daemon)
            with pytest.raises(PowerdError, match="no element 'T99'"):
                await asyncio.to_thread(stop_charging, daemon, "T99", "smoke")
        head, alarm = before.sentences()
        assert head.startswith("yard at ")
        assert head.endswith(": 2 of 5 EVSEs have a car, 2 may charge")
        assert alarm == "alarm: a test runs"
        assert list(during.sentences())[-1] == f"stop {taken.stop_id} of A1 (smoke): 1 EVSE, not acked by A1"
        assert list(freed.evse_ids) == ["A1"]
        assert not after.now.stops

    asyncio.run(scene())


def test_what_needs_a_look_is_not_in_order() -> None:
    """An alarm, or a stop that somebody has not acked; limits are told from nine tenths on, the fullest first."""
    limits = [LimitInfo(name=name, capacity=100.0, unit="A") for name in ("half", "nearly", "full")]
    built = GetSiteResponse(site_id="yard", limits=limits)
    calm = SiteStatus(built=built, now=WatchSiteResponse(limit_flow=[50.0, 90.0, 100.0]))
    assert calm.in_order
    assert [line.split(":")[0] for line in calm.sentences()][1:] == ["full", "nearly"]
    stop = StandingStop(stop_id="s", evse_ids=["A1"])
    assert SiteStatus(built=built, now=WatchSiteResponse(stops=[stop])).in_order
    stop.unacked_evse_ids.append("A1")
    assert not SiteStatus(built=built, now=WatchSiteResponse(stops=[stop])).in_order
    assert not SiteStatus(built=built, now=WatchSiteResponse(alarms=["a test runs"])).in_order
