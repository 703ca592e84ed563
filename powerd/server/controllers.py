"""ControllerService: the stream and the single call of charger controllers."""

from __future__ import annotations

from collections.abc import AsyncIterator

from grpc.aio import ServicerContext

from powerd.server.status import as_status
from powerd.server.streams import Context, Streams
from powerd.server.unary import SetpointDesk
from powerd.v1 import controller_service_pb2 as pb
from powerd.v1.controller_service_pb2_grpc import ControllerServiceServicer


class ControllerService(ControllerServiceServicer):
    """Serves the chargers' side."""

    def __init__(self, streams: Streams, setpoints: SetpointDesk) -> None:
        self._streams = streams
        self._setpoints = setpoints

    # The stub knows only generators; a coroutine that writes by itself is ended at once when the client goes away.
    async def Connect(  # type: ignore[override]  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ConnectRequest], context: Context
    ) -> None:
        """One stream per controller."""
        async with as_status(context):
            await self._streams.run(request_iterator, context)

    async def RequestSetpoint(  # noqa: N802
        self,
        request: pb.RequestSetpointRequest,
        context: ServicerContext[pb.RequestSetpointRequest, pb.RequestSetpointResponse],
    ) -> pb.RequestSetpointResponse:
        """One question, one grant."""
        async with as_status(context):
            return await self._setpoints.answer(request)
