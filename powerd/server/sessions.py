"""SessionService: what drivers say, and the running sessions."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable

import numpy as np
from grpc.aio import ServicerContext

from powerd.control.decision import Decision
from powerd.control.events import Done, SessionStarted, SessionStopped, SessionUpdated
from powerd.control.requests import answered_before
from powerd.errors import UnknownName
from powerd.server import checks
from powerd.server.demands import demand_from, demand_to, timestamp
from powerd.server.directory import Directory
from powerd.server.explain import reason
from powerd.server.posting import Desk
from powerd.server.status import as_status
from powerd.state.snapshot import SessionTold, session_told
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
            demand = demand_from(request.demand, self._names, self._where(session_id, request_id))
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

    def _where(self, session_id: str, request_id: str) -> int:
        """The EVSE of the session; of one that is over since the same request was done, the one of then."""
        snapshot = self._desk.latest().snapshot
        before = answered_before(snapshot, request_id)
        if before is not None and before.key == session_id and len(before.evse):
            return int(before.evse[0])
        running = snapshot.sessions.session_id
        if session_id not in running:
            raise UnknownName(f"there is no session {session_id!r}")
        return running.index(session_id)

    def _answer(self, done: Done) -> pb.Session:
        """The session as the request left it, the same in each retry; what is in force, as long as it runs."""
        decision = self._desk.latest()
        sessions = decision.snapshot.sessions
        if done.session is not None:
            (evse,), told = done.evse, done.session
        elif done.key in sessions.session_id:  # done by a powerd that kept no more of it: as it is now
            evse = sessions.session_id.index(done.key)
            told = session_told(sessions, evse)
        else:
            return pb.Session(session_id=done.key)
        session = self._told(told, done.key, evse)
        if sessions.session_id[evse] == done.key:
            self._add_state(session, decision, evse)
        return session

    def _running(self, decision: Decision) -> list[pb.Session]:
        sessions = decision.snapshot.sessions
        found = []
        for evse in [i for i, session_id in enumerate(sessions.session_id) if session_id]:
            session = self._told(session_told(sessions, evse), sessions.session_id[evse], evse)
            self._add_state(session, decision, evse)
            found.append(session)
        return found

    def _told(self, told: SessionTold, session_id: str, evse: int) -> pb.Session:
        session = pb.Session(
            session_id=session_id,
            evse_id=self._names.posts.ids[evse],
            demand=demand_to(told, self._names, evse),
            energy_kwh=told.energy_kwh,
        )
        if not math.isnan(told.started_utc_s):
            session.start_time.CopyFrom(timestamp(told.started_utc_s))
        return session

    def _add_state(self, session: pb.Session, decision: Decision, evse: int) -> None:
        """What is in force for it, and what it draws."""
        session.ceiling = float(decision.ceiling[evse])
        session.drawn = float(np.max(decision.snapshot.drawn[evse]))
        session.reason = reason(self._desk.core, decision, evse)
