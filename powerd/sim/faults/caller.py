"""How a controller asks by single calls: one request an EVSE, which acks what the one before it was granted."""

from __future__ import annotations

from dataclasses import dataclass

from powerd.client import ControllerCore, Write
from powerd.client.messages import seconds_of
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb

RETRY_S = 1.0
"""Pause after a call that failed, or whose grant had to be refused [s]."""
PATIENCE_S = 3.0
"""After this without an answer it asks again; one that comes later is heard all the same [s]."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What becomes of one call."""

    index: int
    """The EVSE, by its place at its controller."""
    response: pb.RequestSetpointResponse | None = None
    """None = it failed: UNAVAILABLE, ABORTED or INVALID_ARGUMENT."""


class Caller:
    """What a process keeps beside its core to ask by single calls; times are true time [s]."""

    def __init__(self, core: ControllerCore, t_s: float) -> None:
        self._core = core
        self._due_s = [t_s] * len(core.evses)
        self._taken: dict[int, Write] = {}

    def took(self, write: Write) -> None:
        """An actuator took a grant, whichever way it came; the next call acks it."""
        self._taken[write.index] = write

    def hurry(self, index: int, t_s: float) -> None:
        """There is news of an EVSE: a call is due."""
        self._due_s[index] = t_s

    def due(self, t_s: float) -> list[int]:
        """The EVSEs for which a call is due."""
        return [index for index, due_s in enumerate(self._due_s) if t_s >= due_s]

    def failed(self, index: int, t_s: float) -> None:
        """There is nobody to call."""
        self._due_s[index] = t_s + RETRY_S

    def request(self, index: int, t_s: float, now_s: float, *, measured: bool) -> pb.RequestSetpointRequest:
        """The call for an EVSE."""
        self._due_s[index] = t_s + PATIENCE_S
        lease, taken = self._core.evses[index], self._taken.get(index)
        return pb.RequestSetpointRequest(
            evse_id=lease.config.evse_id,
            stamp=self._core.report(now_s).report.stamp,
            plugged=lease.plugged,
            plug_boottime_s=lease.told_plug_s,
            ack=None if taken is None else _ack(taken),
            measured=lease.measured if measured else None,
            highest_epoch=self._core.highest_epoch,
            unsettled=not lease.settled,
            accepted=lease.known,
        )

    def heard(self, answer: Answer, t_s: float, now_s: float) -> tuple[Write, ...]:
        """What an answer orders."""
        if answer.response is None:
            self._due_s[answer.index] = t_s + RETRY_S
            return ()
        writes = self._core.receive(_as_message(answer.index, answer.response.grant), now_s)
        pause_s = seconds_of(answer.response.next_request_in) if writes else RETRY_S
        self._due_s[answer.index] = t_s + (pause_s or RETRY_S)
        return writes


def _ack(write: Write) -> pb_common.Ack:
    return pb_common.Ack(
        epoch=write.epoch, seq=write.seq, applied_ceiling=write.ceiling, one_phase=bool(write.one_phase)
    )


def _as_message(index: int, grant: pb_common.Grant) -> pb.ConnectResponse:
    """The grant of an EVSE as the message of a stream, which the core knows."""
    grants = pb.Grants(epoch=grant.epoch, seq=grant.seq, ttl=grant.ttl, echo=grant.echo)
    grants.index.append(index)
    grants.ceiling.append(grant.ceiling_a)
    grants.latched_index.extend([index] if grant.latched else [])
    grants.one_phase_index.extend([index] if grant.one_phase else [])
    return pb.ConnectResponse(grants=grants)
