"""Questions to a running daemon, for the command line and for scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import grpc

from powerd.errors import PowerdError
from powerd.v1 import site_service_pb2 as pb
from powerd.v1 import site_service_pb2_grpc as rpc

PATIENCE_S = 5.0
"""How long to wait for an answer."""


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


def explain_ceiling(address: str, evse_id: str) -> CeilingExplained:
    """Asks the daemon at ``address`` (host:port, loopback, no TLS).

    Raises:
        PowerdError: nobody answers there, or there is no such EVSE.
    """
    with grpc.insecure_channel(address) as channel:
        try:
            answer = rpc.SiteServiceStub(channel).ExplainCeiling(
                pb.ExplainCeilingRequest(evse_id=evse_id), timeout=PATIENCE_S
            )
        except grpc.RpcError as error:
            raise refused(address, error) from error
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


def refused(address: str, error: grpc.RpcError) -> PowerdError:
    """The sentence for a call that failed."""
    silent = error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    hint = "; is `powerd serve` running there?" if silent else ""
    return PowerdError(f"{address}: {error.details()}{hint}")
