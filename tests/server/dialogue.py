"""A real server on loopback around a fake core, and short words for talking to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from powerd.server.serve import RunningServer, start_server
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb
from tests.server.fake import FakeCore

ME = 4711
Message = TypeVar("Message")


@asynccontextmanager
async def serving(core: FakeCore, *, stepped: bool = False) -> AsyncIterator[tuple[RunningServer, grpc.aio.Channel]]:
    """The server and a channel to it."""
    server = await start_server(core, "127.0.0.1:0", tls=None, allow_insecure=False, stepped=stepped)
    core.sink = server.sink
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield server, channel
    finally:
        await server.stop()


def stamp(boottime_s: float = 50.0, incarnation: int = ME) -> pb_common.Stamp:
    """A controller's stamp."""
    return pb_common.Stamp(incarnation=incarnation, boottime_s=boottime_s)


def hello(
    controller_id: str = "c0",
    evses: tuple[str, ...] = ("A1", "A2", "A3"),
    *,
    incarnation: int = ME,
    number: int = 1,
    boottime_s: float = 50.0,
) -> pb.ConnectRequest:
    """A good hello."""
    states = [pb.EvseState(evse_id=name) for name in evses]
    said = pb.Hello(
        controller_id=controller_id, stamp=stamp(boottime_s, incarnation), evses=states, report_number=number
    )
    return pb.ConnectRequest(hello=said)


def report(boottime_s: float = 51.0, **fields: object) -> pb.ConnectRequest:
    """A report with these fields."""
    return pb.ConnectRequest(report=pb.Report(stamp=stamp(boottime_s), **fields))  # type: ignore[arg-type]


async def read(call: grpc.aio.StreamStreamCall[pb.ConnectRequest, pb.ConnectResponse]) -> pb.ConnectResponse:
    """The next message of a stream."""
    message = await call.read()
    assert isinstance(message, pb.ConnectResponse), "the stream ended"
    return message


async def until_its_end(call: grpc.aio.StreamStreamCall[pb.ConnectRequest, pb.ConnectResponse]) -> None:
    """Reads a stream to its end; a refusal raises what gRPC makes of it."""
    while await call.read() is not grpc.aio.EOF:
        pass


async def until_grants(call: grpc.aio.StreamStreamCall[pb.ConnectRequest, pb.ConnectResponse]) -> pb.Grants:
    """The next Grants of a stream."""
    while True:
        message = await read(call)
        if message.HasField("grants"):
            return message.grants


def violations(error: grpc.RpcError) -> Iterator[tuple[str, str]]:
    """(field, description) of the google.rpc.BadRequest that an error carries."""
    assert isinstance(error, grpc.aio.AioRpcError)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (raw,) = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    status = status_pb2.Status.FromString(raw)
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    for packed in status.details:
        bad = error_details_pb2.BadRequest()
        assert packed.Unpack(bad)
        for violation in bad.field_violations:
            yield violation.field, violation.description


def only_violation(error: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> str:
    """The one field to blame; its description says what was expected."""
    ((field, description),) = violations(error.value)
    assert description.startswith("expected ")
    assert field in str(error.value.details())
    return field


class Mouth(Generic[Message]):
    """The requests of one stream without a channel, read in the turn of the event loop in which they are said."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self.say = self._said.put_nowait

    def __aiter__(self) -> Mouth[Message]:
        return self

    async def __anext__(self) -> Message:
        return await self._said.get()

    async def write(self, message: object) -> None:
        """Nobody listens."""
