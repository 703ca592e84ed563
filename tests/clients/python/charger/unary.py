"""A charger that asks by single calls: each request acks the grant before."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .api import Api, called
from .lease import boottime, place, refusal


class Charger:
    """One post without a stream."""

    def __init__(self, api: Api, evse_id: str, incarnation: int, tell: Callable[..., None]) -> None:
        self._api, self._evse_id, self._incarnation, self._tell = api, evse_id, incarnation, tell
        self._ack: Any = None

    def ask(self) -> float:
        """Acks the grant before, takes the next one; returns its ceiling [A]."""
        pb = self._api.controller_pb
        request = pb.RequestSetpointRequest(
            evse_id=self._evse_id, stamp=self._api.stamp(self._incarnation), plugged=True, ack=self._ack
        )
        answer = called(self._api.controllers.RequestSetpoint, request)
        grant = answer.grant
        last = (0, 0) if self._ack is None else place(self._ack)
        why = refusal(grant, incarnation=self._incarnation, last=last, now=boottime())
        if why:
            raise RuntimeError(f"refused a grant of powerd: {why}")
        acked = self._ack and self._ack.seq
        ceiling = float(grant.ceiling_a)  # the charger takes it here
        self._ack = self._api.common_pb.Ack(epoch=grant.epoch, seq=grant.seq, applied_ceiling=ceiling)
        self._say("grant", seq=grant.seq, ceiling=ceiling, acked=acked, reason=answer.reason)
        return ceiling

    def ask_until(self, ceiling: float, *, tries: int) -> None:
        """Asks until this ceiling came."""
        if not any(self.ask() == ceiling for _ in range(tries)):
            raise RuntimeError(f"{ceiling:g} A did not come in {tries} requests")

    def run(self) -> None:
        """24 A, then 16 A: powerd counts on 24 A until the 16 A are acked."""
        session_id = self._api.start(self._evse_id, 24)
        self._say("session", session_id=session_id)
        self.ask_until(24, tries=20)
        self.ask()
        self._api.update(session_id, 16)
        self.ask_until(16, tries=5)
        self._say("worst", acked=False, worst=self._api.worst(self._evse_id))
        self.ask()  # acks the 16 A
        self._say("worst", acked=True, worst=settled(self._api, self._evse_id, 16))

    def _say(self, event: str, **more: object) -> None:
        self._tell(event=event, way="unary", evse=self._evse_id, **more)


def settled(api: Api, evse_id: str, ceiling: float) -> float:
    """What powerd reckons with once it believes an ack, or still after 15 s [A]."""
    for _ in range(15):
        if api.worst(evse_id) <= ceiling:
            break
        time.sleep(1)
    return api.worst(evse_id)
