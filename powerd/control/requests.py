"""Requests of people and programs: a retry gets the answer of the first call and changes nothing again.

A request id stands for one request. With other contents under it a caller would be told that something is done which
nobody did, a stop say; so that is refused.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from powerd.codec import encode
from powerd.control import events as ev
from powerd.control.switch_events import ServiceChanged, SwitchOrdered
from powerd.state.columns import replace as changed
from powerd.state.snapshot import Answered, Snapshot

ANSWERS_KEPT = 4096
"""Request ids remembered for idempotent retries: minutes of traffic at 10/s, a bound on memory."""
EVSES_KEPT = 100_000
"""EVSEs that their answers may name together: 20 stops of 5 000 EVSEs. Beyond it the oldest are forgotten."""

SiteRequest: TypeAlias = (
    ev.SessionStarted
    | ev.SessionUpdated
    | ev.SessionStopped
    | ev.StopOrdered
    | ev.StopReleased
    | ev.EnvelopeSet
    | ev.EnvelopeWithdrawn
)
Request: TypeAlias = SiteRequest | SwitchOrdered | ServiceChanged

_NOT_SAID: dict[type[Any], dict[str, Any]] = {
    ev.SessionStarted: {"session_id": ""},
    ev.StopOrdered: {"stop_id": "", "evse": np.zeros(0, np.int64)},
    ev.EnvelopeSet: {"envelope_id": ""},
}
"""What the door may have made up, or looked up in the state of the moment: another one in each retry. Names of sessions
and envelopes are compared by themselves: who gives one gives the same in a retry, and so does the door if none is."""


def contents_of(request: Request) -> str:
    """Digest of what was asked for."""
    said: Any = replace(request, request_id="", **_NOT_SAID.get(type(request), {}))
    return hashlib.blake2b(encode(said), digest_size=16).hexdigest()


def answer_again(snapshot: Snapshot, request: Request) -> ev.Outcome | None:
    """The answer to a request whose id is known; None: it has none, or a new one."""
    known = answered_before(snapshot, request.request_id)
    if known is None:
        return None
    if known.contents not in ("", contents_of(request)) or _name_of(request) not in (None, known.key):
        return ev.Refused("request_id", "an id of its own; this one was given with other contents before")
    return ev.Done(known.key, known.evse, known.session)


def answered_before(snapshot: Snapshot, request_id: str) -> Answered | None:
    """What was done under this id; None: it is empty, or new."""
    if not request_id:
        return None
    return next((known for known in reversed(snapshot.answered) if known.request_id == request_id), None)


def _name_of(request: Request) -> str | None:
    """The id of the session or envelope that is to be made; None = it makes none of that kind."""
    match request:
        case ev.SessionStarted():
            return request.session_id
        case ev.EnvelopeSet():
            return request.envelope_id
        case _:
            return None


def answered(snapshot: Snapshot, request: Request, outcome: ev.Outcome) -> Snapshot:
    """With what was done under the request's id; what was refused may be asked again."""
    if not request.request_id or not isinstance(outcome, ev.Done):
        return snapshot
    new = Answered(
        request_id=request.request_id,
        key=outcome.key,
        contents=contents_of(request),
        evse=outcome.evse,
        session=outcome.session,
    )
    kept = (*snapshot.answered, new)[-ANSWERS_KEPT:]
    if len(new.evse) > 1:
        kept = kept[-_fitting(kept) :]
    return changed(snapshot, answered=kept)


def _fitting(kept: tuple[Answered, ...]) -> int:
    """How many of the newest answers name no more EVSEs than are kept; the newest always is."""
    named = itertools.accumulate(len(one.evse) for one in reversed(kept))
    return max(1, sum(count <= EVSES_KEPT for count in named))
