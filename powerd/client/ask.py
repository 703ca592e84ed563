"""Questions to a running daemon, for the command line and for scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

from powerd.errors import PowerdError
from powerd.v1 import site_service_pb2 as pb
from powerd.v1 import site_service_pb2_grpc as rpc

PATIENCE_S = 5.0
"""How long to wait for an answer."""


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
            PowerdError: the files do not belong together, or one cannot be read.
        """
        if self.tls_ca is None and self.tls_cert is None and self.tls_key is None:
            return grpc.insecure_channel(self.address)
        if self.tls_ca is None or (self.tls_cert is None) != (self.tls_key is None):
            raise PowerdError("TLS needs --tls-ca; --tls-cert and --tls-key are given both or not at all")
        ca, cert, key = (
            None if file is None else _bytes_of(file) for file in (self.tls_ca, self.tls_cert, self.tls_key)
        )
        return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(ca, key, cert))

    def refused(self, error: grpc.RpcError) -> PowerdError:
        """The sentence for a call that failed."""
        silent = error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        hint = "; is `powerd serve` running there" + (", and does it want TLS?" if self.tls_ca is None else "?")
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
    with daemon.channel() as channel:
        try:
            answer = rpc.SiteServiceStub(channel).ExplainCeiling(
                pb.ExplainCeilingRequest(evse_id=evse_id), timeout=PATIENCE_S
            )
        except grpc.RpcError as error:
            raise daemon.refused(error) from error
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
