"""EnvelopeService: what the operator says reaches the inbox, what became of it is told; bad requests change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import grpc
import grpc.aio
import numpy as np
import pytest

from powerd.control.events import EnvelopeSet, EnvelopeWithdrawn
from powerd.v1 import envelope_service_pb2 as pb
from powerd.v1.envelope_service_pb2_grpc import EnvelopeServiceStub
from tests.server.dialogue import only_violation, serving
from tests.server.fake import SITE, FakeCore

LIMITED = SITE + "grid_connection: {import_limit_kw: 200, min_envelope_kw: 50}\n"


def _request(kw: float = 60.0, **fields: object) -> pb.SetEnvelopeRequest:
    return pb.SetEnvelopeRequest(envelope_id="night", source="dso", import_limit_kw=kw, **fields)  # type: ignore[arg-type]


def test_an_envelope_reaches_the_inbox_and_wakes_the_ticker() -> None:
    """Without a start it holds now; without an end, until it is withdrawn; without a heartbeat nothing is promised."""

    async def scene() -> tuple[FakeCore, pb.Envelope]:
        core = FakeCore(LIMITED)
        async with serving(core) as (_, channel):
            answer = await EnvelopeServiceStub(channel).SetEnvelope(_request(reason="congestion"))
        return core, answer.envelope

    core, told = asyncio.run(scene())
    (event,) = core.posted
    assert event == EnvelopeSet(
        request_id="",
        envelope_id="night",
        source="dso",
        reason="congestion",
        import_limit_kw=60.0,
        start_time=None,
        end_time=None,
        heartbeat_s=np.inf,
    )
    assert core.urgent == 1
    assert (told.envelope_id, told.guaranteed, told.in_force, told.silent) == ("night", True, True, False)
    assert not told.HasField("end_time")
    assert not told.HasField("heartbeat")


def test_a_window_to_come_wakes_nobody_and_is_told_back() -> None:
    """Instants and the promise come back as they were sent; below min_envelope_kw it is not guaranteed."""

    async def scene() -> tuple[FakeCore, pb.ListEnvelopesResponse]:
        core = FakeCore(LIMITED)
        async with serving(core) as (_, channel):
            request = _request(40.0)
            request.start_time.FromDatetime(datetime(2030, 1, 1, tzinfo=UTC))
            request.end_time.FromDatetime(datetime(2030, 1, 2, tzinfo=UTC))
            request.heartbeat.FromSeconds(60)
            await EnvelopeServiceStub(channel).SetEnvelope(request)
            return core, await EnvelopeServiceStub(channel).ListEnvelopes(pb.ListEnvelopesRequest())

    core, listed = asyncio.run(scene())
    assert core.urgent == 0
    (told,) = listed.envelopes
    assert told.start_time.ToDatetime(UTC) == datetime(2030, 1, 1, tzinfo=UTC)
    assert told.end_time.ToDatetime(UTC) == datetime(2030, 1, 2, tzinfo=UTC)
    assert told.heartbeat.seconds == 60
    assert (told.in_force, told.guaranteed) == (False, False)
    assert listed.import_limit_kw == 200.0


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("later", ["replaced", "withdrawn"])
def test_a_retry_that_comes_when_the_envelope_is_over_gives_what_was_said(later: str, start: bool) -> None:
    """And not what was said under its id since; that one, or none, is in force. One without a start began at once."""

    async def scene() -> None:
        async with serving(FakeCore(LIMITED)) as (_, channel):
            stub = EnvelopeServiceStub(channel)
            first = _request(60.0, request_id="r", reason="congestion")
            if start:
                first.start_time.FromDatetime(datetime(2020, 1, 1, tzinfo=UTC))
            first.end_time.FromDatetime(datetime(2030, 1, 2, tzinfo=UTC))
            first.heartbeat.FromSeconds(60)
            wanted = (await stub.SetEnvelope(first)).envelope
            if later == "replaced":
                await stub.SetEnvelope(_request(40.0))
            else:
                await stub.WithdrawEnvelope(pb.WithdrawEnvelopeRequest(envelope_id="night"))
            told = (await stub.SetEnvelope(first)).envelope
            assert wanted.in_force
            assert wanted.HasField("start_time")
            for flag in ("in_force", "in_force_since", "kept_since"):
                wanted.ClearField(flag)
            assert told == wanted

    asyncio.run(scene())


@pytest.mark.parametrize(("kw", "guaranteed"), [(5000.0, True), (200.0, True), (199.0, False)])
def test_without_a_lowest_envelope_the_contract_is_what_is_guaranteed(kw: float, guaranteed: bool) -> None:
    """R5 is proved for it, and for nothing below."""

    async def scene() -> pb.Envelope:
        async with serving(FakeCore(SITE + "grid_connection: {import_limit_kw: 200}\n")) as (_, channel):
            return (await EnvelopeServiceStub(channel).SetEnvelope(_request(kw))).envelope

    assert asyncio.run(scene()).guaranteed is guaranteed


def test_a_window_of_all_times_is_told_back() -> None:
    """The last instant that can be written, for "for ever", comes back as the last second, and breaks no list."""

    async def scene() -> pb.ListEnvelopesResponse:
        async with serving(FakeCore(LIMITED)) as (_, channel):
            request = _request()
            request.start_time.FromDatetime(datetime.min.replace(tzinfo=UTC))
            request.end_time.FromJsonString("9999-12-31T23:59:59.999999999Z")
            await EnvelopeServiceStub(channel).SetEnvelope(request)
            return await EnvelopeServiceStub(channel).ListEnvelopes(pb.ListEnvelopesRequest())

    (told,) = asyncio.run(scene()).envelopes
    assert told.start_time.ToJsonString() == "0001-01-01T00:00:00Z"
    assert told.end_time.ToJsonString() == "9999-12-31T23:59:59Z"


def test_withdrawing_reaches_the_inbox() -> None:
    """With its request id; one that is not there is NOT_FOUND."""

    async def scene() -> FakeCore:
        core = FakeCore(LIMITED)
        async with serving(core) as (_, channel):
            stub = EnvelopeServiceStub(channel)
            await stub.SetEnvelope(_request())
            await stub.WithdrawEnvelope(pb.WithdrawEnvelopeRequest(request_id="r", envelope_id="night", reason="over"))
            with pytest.raises(grpc.aio.AioRpcError) as missing:
                await stub.WithdrawEnvelope(pb.WithdrawEnvelopeRequest(envelope_id="night"))
            assert missing.value.code() is grpc.StatusCode.NOT_FOUND
        return core

    core = asyncio.run(scene())
    assert core.posted[1] == EnvelopeWithdrawn(request_id="r", envelope_id="night", reason="over")


def _reversed(request: pb.SetEnvelopeRequest) -> None:
    request.start_time.FromSeconds(2000)
    request.end_time.FromSeconds(1000)


def _nameless(request: pb.SetEnvelopeRequest) -> None:
    request.heartbeat.FromSeconds(60)
    request.ClearField("envelope_id")


BAD: list[tuple[str, Callable[[pb.SetEnvelopeRequest], object]]] = [
    ("import_limit_kw", lambda r: r.ClearField("import_limit_kw")),
    ("import_limit_kw", lambda r: setattr(r, "import_limit_kw", -1.0)),
    ("import_limit_kw", lambda r: setattr(r, "import_limit_kw", float("nan"))),
    ("source", lambda r: r.ClearField("source")),
    ("envelope_id", lambda r: setattr(r, "envelope_id", "x" * 129)),
    ("end_time", _reversed),
    ("start_time", lambda r: setattr(r.start_time, "seconds", 10**15)),
    ("envelope_id", _nameless),
    ("heartbeat", lambda r: r.heartbeat.FromMilliseconds(500)),
    ("heartbeat", lambda r: r.heartbeat.FromSeconds(100_000)),
]


@pytest.mark.parametrize(("field", "spoil"), BAD)
def test_a_bad_envelope_is_refused_by_field(field: str, spoil: Callable[[pb.SetEnvelopeRequest], object]) -> None:
    """INVALID_ARGUMENT with the path; nothing is taken: an envelope without a number is none, never "unlimited"."""

    async def scene() -> FakeCore:
        core = FakeCore(LIMITED)
        async with serving(core) as (_, channel):
            request = _request()
            spoil(request)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await EnvelopeServiceStub(channel).SetEnvelope(request)
            assert only_violation(refused) == field
        return core

    assert asyncio.run(scene()).posted == []


def test_a_site_without_an_import_limit_says_what_is_missing() -> None:
    """The refusal names the key of the site file."""

    async def scene() -> None:
        core = FakeCore()
        async with serving(core) as (_, channel):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await EnvelopeServiceStub(channel).SetEnvelope(_request())
            assert only_violation(refused) == "import_limit_kw"
            assert "grid_connection.import_limit_kw" in str(refused.value.details())

    asyncio.run(scene())
