"""The daemon's event loop under a burst of gRPC's events, counted in turns."""

from __future__ import annotations

import asyncio
import contextlib

import grpc.aio

from powerd.v1 import controller_service_pb2 as pb
from powerd.v1.controller_service_pb2_grpc import ControllerServiceStub
from tests.server.turns import CountingLoop

CALLS = 600
"""More than twice what fills the socket of the wake-ups."""


async def _refused(channel: grpc.aio.Channel) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):
        await ControllerServiceStub(channel).RequestSetpoint(pb.RequestSetpointRequest())


def test_a_burst_of_events_is_taken_in_a_few_turns() -> None:
    """600 calls that are refused at once are over within 30 turns; asyncio's own loop takes 400 and more."""

    async def story() -> int:
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            await _refused(channel)  # connecting is over
            loop.count()
            await asyncio.gather(*(_refused(channel) for _ in range(CALLS)))
            return loop.turns

    loop = CountingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        assert runner.run(story()) <= 30
