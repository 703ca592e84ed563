"""Questions of the command line over TLS: who shows what is wanted is let in, others learn what is missing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import trustme

from powerd.client.ask import Daemon, explain_ceiling
from powerd.client.envelopes import list_envelopes
from powerd.daemon import ServeOptions, serve_site
from powerd.errors import PowerdError
from powerd.server.serve import TlsFiles, start_server
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
