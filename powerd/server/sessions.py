"""SessionService: what drivers say, and the running sessions."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable

import numpy as np
from grpc.aio import ServicerContext

from powerd.control.decision import Decision
from powerd.control.events import Done, SessionStarted, SessionStopped, SessionUpdated
from powerd.errors import UnknownName
from powerd.server import checks
from powerd.server.demands import demand_from, demand_to, timestamp
from powerd.server.directory import Directory
from powerd.server.explain import reason
from powerd.server.posting import Desk
from powerd.server.status import as_status
from powerd.v1 import session_service_pb2 as pb
from powerd.v1.session_service_pb2_grpc import SessionServiceServicer


class SessionService(SessionServiceServicer):
    """Serves the drivers' side."""

    def __init__(self, desk: Desk, names: Directory, called: Callable[[], None]) -> None:
        """``called`` is told of each call that changes something, before it is looked at."""
        self._desk = desk
        self._names = names
        self._called = called

    async def StartSession(  # noqa: N802
        self, request: pb.StartSessionRequest, context: ServicerContext[pb.StartSessionRequest, pb.StartSessionResponse]
    ) -> pb.StartSessionResponse:
        """Starts a session or replaces the running one of that EVSE."""
        self._called()
        async with as_status(context):
            request_id = checks.request_id(request.request_id)
            evse = self._names.find_evse(checks.text("evse_id", request.evse_id))
            session_id = checks.text("session_id", request.session_id, empty=True) or checks.made_id(request_id)
            demand = demand_from(request.demand, self._names, evse)
            (done,) = await self._desk.post(
                SessionStarted(request_id=request_id, evse=evse, session_id=session_id, demand=demand)
            )
            return pb.StartSessionResponse(session=self._answer(done))

    async def UpdateSession(  # noqa: N802
        self,
        request: pb.UpdateSessionRequest,
        context: ServicerContext[pb.UpdateSessionRequest, pb.UpdateSessionResponse],
    ) -> pb.UpdateSessionResponse:
        """Changes a demand."""
        self._called()
        async with as_status(context):
            request_id = checks.request_id(request.request_id)
            session_id = checks.text("session_id", request.session_id)
            demand = demand_from(request.demand, self._names, self._where(session_id))
            (done,) = await self._desk.post(SessionUpdated(request_id=request_id, session_id=session_id, demand=demand))
            return pb.UpdateSessionResponse(session=self._answer(done))

    async def StopSession(  # noqa: N802
        self, request: pb.StopSessionRequest, context: ServicerContext[pb.StopSessionRequest, pb.StopSessionResponse]
    ) -> pb.StopSessionResponse:
        """Ends a session."""
        self._called()
        async with as_status(context):
            request_id = checks.request_id(request.request_id)
            session_id = checks.text("session_id", request.session_id)
            (done,) = await self._desk.post(SessionStopped(request_id=request_id, session_id=session_id))
            return pb.StopSessionResponse(session=self._answer(done))

    async def ListSessions(  # noqa: N802
        self, request: pb.ListSessionsRequest, context: ServicerContext[pb.ListSessionsRequest, pb.ListSessionsResponse]
    ) -> pb.ListSessionsResponse:
        """All running sessions."""
        async with as_status(context):
            return pb.ListSessionsResponse(sessions=self._running(self._desk.latest()))

    async def WatchSessions(  # noqa: N802
        self,
        request: pb.WatchSessionsRequest,
        context: ServicerContext[pb.WatchSessionsRequest, pb.WatchSessionsResponse],
    ) -> AsyncIterator[pb.WatchSessionsResponse]:
        """The running sessions now and after each tick that changed them."""
        last: bytes | None = None
        async for decision in self._desk.decisions():
            picture = pb.WatchSessionsResponse(sessions=self._running(decision))
            now = picture.SerializeToString(deterministic=True)
            if now != last:
                yield picture
            last = now

    def _where(self, session_id: str) -> int:
        running = self._desk.latest().snapshot.sessions.session_id
        if session_id not in running:
            raise UnknownName(f"there is no session {session_id!r}")
        return running.index(session_id)

    def _answer(self, done: Done) -> pb.Session:
        """The session that an event concerned; only its id where it has gone since."""
        if not done.evse:
            return pb.Session(session_id=done.key)
        return self._session(self._desk.latest(), done.evse[0], done.key)

    def _running(self, decision: Decision) -> list[pb.Session]:
        ids = decision.snapshot.sessions.session_id
        return [self._session(decision, i, session_id) for i, session_id in enumerate(ids) if session_id]

    def _session(self, decision: Decision, evse: int, session_id: str) -> pb.Session:
        snapshot = decision.snapshot
        sessions = snapshot.sessions
        session = pb.Session(
            session_id=session_id,
            evse_id=self._names.posts.ids[evse],
            demand=demand_to(sessions, self._names, evse),
            energy_kwh=float(sessions.energy_kwh[evse]),
            ceiling=float(decision.ceiling[evse]),
            drawn=float(np.max(snapshot.drawn[evse])),
            reason=reason(self._desk.core, decision, evse),
        )
        if not math.isnan(sessions.started_utc_s[evse]):
            session.start_time.CopyFrom(timestamp(float(sessions.started_utc_s[evse])))
        return session
