"""powerd's services with stubs of our own: protoc is run over the .proto files into a temporary folder."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc_tools
from grpc_tools import protoc

from .lease import Clock

FILES = ("common", "controller_service", "session_service", "site_service")
DEADLINE_S = 10.0


def generate(protos: Path, folder: Path) -> None:
    """Writes stubs for the services into ``folder`` and makes them importable."""
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    names = [f"powerd/v1/{name}.proto" for name in FILES]
    fault = protoc.main(
        ["protoc", f"-I{protos}", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}", *names]
    )
    if fault:
        raise SystemExit(f"protoc ended with {fault}")
    sys.path.insert(0, str(folder))


class Api:
    """One channel and what can be said on it."""

    def __init__(self, address: str) -> None:
        self.controller_pb = _module("controller_service_pb2")
        self.session_pb = _module("session_service_pb2")
        self.site_pb = _module("site_service_pb2")
        self.common_pb = _module("common_pb2")
        self._clock = Clock()
        self._channel = grpc.insecure_channel(address)
        self.controllers = _module("controller_service_pb2_grpc").ControllerServiceStub(self._channel)
        self.sessions = _module("session_service_pb2_grpc").SessionServiceStub(self._channel)
        self.sites = _module("site_service_pb2_grpc").SiteServiceStub(self._channel)

    def stamp(self, incarnation: int) -> Any:
        """Which process, and its clock."""
        return self.common_pb.Stamp(incarnation=incarnation, boottime_s=self._clock.later())

    def start(self, evse_id: str, max_current_a: float) -> str:
        """Starts a session; returns its id."""
        demand = self.session_pb.Demand(requested_energy_kwh=12, max_current_a=max_current_a)
        request = self.session_pb.StartSessionRequest(evse_id=evse_id, demand=demand)
        return str(called(self.sessions.StartSession, request).session.session_id)

    def update(self, session_id: str, max_current_a: float) -> None:
        """Changes what the car can take."""
        demand = self.session_pb.Demand(max_current_a=max_current_a)
        called(self.sessions.UpdateSession, self.session_pb.UpdateSessionRequest(session_id=session_id, demand=demand))

    def worst(self, evse_id: str) -> float:
        """The most that the EVSE could be drawing, in powerd's eyes [A]."""
        return float(called(self.sites.ExplainCeiling, self.site_pb.ExplainCeilingRequest(evse_id=evse_id)).worst)

    def close(self) -> None:
        """Lets go of the channel."""
        self._channel.close()


def called(method: Callable[..., Any], request: Any) -> Any:
    """One unary call, given up after 10 s."""
    return method(request, timeout=DEADLINE_S)


def _module(name: str) -> Any:
    return importlib.import_module(f"powerd.v1.{name}")
