"""EnvelopeService: what grid operators say into the inbox, and what became of it."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
from google.protobuf.duration_pb2 import Duration
from grpc.aio import ServicerContext

from powerd.control.decision import Decision
from powerd.control.events import Done, EnvelopeSet, EnvelopeWithdrawn
from powerd.errors import BadRequest
from powerd.network.electrical import least_import_kw
from powerd.server import checks
from powerd.server.demands import instant, timestamp
from powerd.server.posting import Desk
from powerd.server.status import as_status
from powerd.state.envelopes import Envelope, bound, holds, is_silent
from powerd.v1 import envelope_service_pb2 as pb
from powerd.v1.envelope_service_pb2_grpc import EnvelopeServiceServicer

HEARTBEAT_S = (1.0, 86_400.0)
"""Shortest and longest promise [s]."""


class EnvelopeService(EnvelopeServiceServicer):
    """Serves grid operators and their gateways."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def SetEnvelope(  # noqa: N802
        self, request: pb.SetEnvelopeRequest, context: ServicerContext[pb.SetEnvelopeRequest, pb.SetEnvelopeResponse]
    ) -> pb.SetEnvelopeResponse:
        """Takes an envelope; one without a start wakes the ticker."""
        async with as_status(context):
            event = _event(request)
            (done,) = await self._desk.post(event, urgent=event.start_time is None)
            return pb.SetEnvelopeResponse(envelope=_answer(self._desk.latest(), done, event))

    async def WithdrawEnvelope(  # noqa: N802
        self,
        request: pb.WithdrawEnvelopeRequest,
        context: ServicerContext[pb.WithdrawEnvelopeRequest, pb.WithdrawEnvelopeResponse],
    ) -> pb.WithdrawEnvelopeResponse:
        """Takes one back."""
        async with as_status(context):
            event = EnvelopeWithdrawn(
                request_id=checks.request_id(request.request_id),
                envelope_id=checks.text("envelope_id", request.envelope_id),
                reason=checks.text("reason", request.reason, most=checks.REASON_MAX, empty=True),
            )
            await self._desk.post(event)
            return pb.WithdrawEnvelopeResponse()

    async def ListEnvelopes(  # noqa: N802
        self,
        request: pb.ListEnvelopesRequest,
        context: ServicerContext[pb.ListEnvelopesRequest, pb.ListEnvelopesResponse],
    ) -> pb.ListEnvelopesResponse:
        """How things stand after the newest tick."""
        async with as_status(context):
            decision = self._desk.latest()
            site, electrical = decision.site, decision.site.electrical
            allowed = bound(decision.snapshot.envelopes, electrical.failsafe_limit_kw, decision.now)
            contract_kw = electrical.site_import_limit_kw
            flow = site.limits.limit_flow(decision.worst) + decision.uncontrolled
            return pb.ListEnvelopesResponse(
                envelopes=[_told(decision, one) for one in decision.snapshot.envelopes],
                import_limit_kw=contract_kw if allowed is None else min(allowed.import_limit_kw, contract_kw),
                worst_import_kw=site.imported_kw(flow),
                time=timestamp(decision.now.utc.timestamp()),
            )


def _answer(decision: Decision, done: Done, said: EnvelopeSet) -> pb.Envelope:
    """The envelope as it stands after a tick; to a retry that comes when it is over, what was said."""
    start_utc_s = done.start_utc_s
    if start_utc_s is None and said.start_time is not None:  # done by a powerd that did not keep it
        start_utc_s = said.start_time.timestamp()
    for one in decision.snapshot.envelopes:
        if one.envelope_id == said.envelope_id and _is_of(one, said, start_utc_s):
            return _told(decision, one)
    told = pb.Envelope(
        envelope_id=said.envelope_id,
        source=said.source,
        reason=said.reason,
        import_limit_kw=said.import_limit_kw,
        guaranteed=_is_guaranteed(decision, said.import_limit_kw),
    )
    if start_utc_s is not None:
        told.start_time.CopyFrom(timestamp(start_utc_s))
    if said.end_time is not None:
        told.end_time.FromDatetime(said.end_time)
    if np.isfinite(said.heartbeat_s):
        told.heartbeat.FromTimedelta(timedelta(seconds=said.heartbeat_s))
    return told


def _is_of(one: Envelope, said: EnvelopeSet, start_utc_s: float | None) -> bool:
    """That envelope is what was said, and not what was said under its id since; None = its start is not known."""
    end_utc_s = np.inf if said.end_time is None else said.end_time.timestamp()
    words = said.source, said.reason, said.import_limit_kw, end_utc_s, said.heartbeat_s
    same = words == (one.source, one.reason, one.import_limit_kw, one.end_utc_s, one.heartbeat_s)
    return same and start_utc_s in (None, one.start_utc_s)


def _is_guaranteed(decision: Decision, import_limit_kw: float) -> bool:
    """The site keeps it whatever happens."""
    return import_limit_kw >= least_import_kw(decision.site.electrical)


def _event(request: pb.SetEnvelopeRequest) -> EnvelopeSet:
    """The request as an event.

    Raises:
        BadRequest: a field has no possible value.
    """
    if not request.HasField("import_limit_kw"):
        raise BadRequest("import_limit_kw", "a number of kW; silence never means unlimited")
    start = instant("start_time", request.start_time) if request.HasField("start_time") else None
    end = instant("end_time", request.end_time) if request.HasField("end_time") else None
    if start is not None and end is not None and end <= start:
        raise BadRequest("end_time", "after start_time")
    if request.HasField("heartbeat") and not request.envelope_id:
        # Each word would begin another one, and the one before would fall silent.
        raise BadRequest("envelope_id", "an id of your own beside a heartbeat: said again, it is the next one of that")
    request_id = checks.request_id(request.request_id)
    return EnvelopeSet(
        request_id=request_id,
        envelope_id=checks.text("envelope_id", request.envelope_id, empty=True) or checks.made_id(request_id),
        source=checks.text("source", request.source),
        reason=checks.text("reason", request.reason, most=checks.REASON_MAX, empty=True),
        import_limit_kw=checks.number("import_limit_kw", request.import_limit_kw),
        start_time=start,
        end_time=end,
        heartbeat_s=_heartbeat(request.heartbeat) if request.HasField("heartbeat") else np.inf,
    )


def _heartbeat(value: Duration) -> float:
    least, most = HEARTBEAT_S
    return checks.number("heartbeat", value.seconds + value.nanos / 1e9, least=least, most=most)


def _told(decision: Decision, one: Envelope) -> pb.Envelope:
    """An envelope as it stood after a tick."""
    now = decision.now
    told = pb.Envelope(
        envelope_id=one.envelope_id,
        source=one.source,
        reason=one.reason,
        import_limit_kw=one.import_limit_kw,
        start_time=timestamp(one.start_utc_s),
        guaranteed=_is_guaranteed(decision, one.import_limit_kw),
        in_force=holds(one, now),
        silent=is_silent(one, now),
    )
    if np.isfinite(one.end_utc_s):
        told.end_time.CopyFrom(timestamp(one.end_utc_s))
    if np.isfinite(one.heartbeat_s):
        told.heartbeat.FromTimedelta(timedelta(seconds=one.heartbeat_s))
    if one.in_force_utc_s is not None:
        told.in_force_since.CopyFrom(timestamp(one.in_force_utc_s))
    if one.kept_utc_s is not None:
        told.kept_since.CopyFrom(timestamp(one.kept_utc_s))
    return told
