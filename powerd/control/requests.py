"""Requests of people and programs: a retry gets the answer of the first call and changes nothing again.

A request id stands for one request. With other contents under it a caller would be told that something is done which
nobody did, a stop say; so that is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np

from powerd.codec import encode
from powerd.control import events as ev
from powerd.control.switch_events import ServiceChanged, SwitchOrdered
from powerd.limits import Ints
from powerd.state.columns import replace as changed
from powerd.state.snapshot import ANSWERS_A_PAGE, Answered, Answers, Snapshot

EVSES_KEPT = 100_000
"""EVSEs that answers of several may name together: 20 stops of 5 000 EVSEs. Beyond it the oldest name none."""

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
    return ev.Done(known.key, tuple(_evse_of(snapshot, known).tolist()), known.session, known.start_utc_s)


def answered_before(snapshot: Snapshot, request_id: str) -> Answered | None:
    """What was done under this id; None: it is empty, or new."""
    if not request_id:
        return None
    return next((known for page in snapshot.answered for known in page if known.request_id == request_id), None)


def _evse_of(snapshot: Snapshot, known: Answered) -> Ints:
    """EVSEs that the answer named; forgotten ones, of the stop that still holds: the answer says who has not acked."""
    if known.evse.shape[0]:
        return known.evse
    return next((stop.evse for stop in snapshot.stops if stop.stop_id == known.key), known.evse)


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
        evse=np.array(outcome.evse, np.int64),
        session=outcome.session,
        start_utc_s=outcome.start_utc_s,
    )
    after = _noted(snapshot.answered, new)
    return changed(snapshot, answered=_bounded(after) if len(new.evse) > 1 else after)


def _noted(pages: Answers, new: Answered) -> Answers:
    """With one more on the newest page; once that is full, the oldest is emptied for those to come."""
    after, place = list(pages), _newest(pages)
    after[place] = (*pages[place], new)
    if len(after[place]) == ANSWERS_A_PAGE:
        after[(place + 1) % len(pages)] = ()
    return tuple(after)


def _newest(pages: Answers) -> int:
    """Which page is being filled."""
    return next(place for place, page in enumerate(pages) if len(page) < ANSWERS_A_PAGE)


def _bounded(pages: Answers) -> Answers:
    """The oldest answers of several EVSEs without them, where more are named than are kept; the newest keeps them."""
    newest, after = _newest(pages), list(pages)
    several = [
        (place, k)
        for place in range(newest, newest - len(pages), -1)
        for k in reversed(range(len(pages[place])))
        if len(pages[place][k].evse) > 1
    ]
    named = accumulate(len(pages[place][k].evse) for place, k in several)
    for (place, k), count in list(zip(several, named, strict=True))[1:]:
        if count > EVSES_KEPT:
            page = after[place]
            after[place] = (*page[:k], changed(page[k], evse=np.zeros(0, np.int64)), *page[k + 1 :])
    return tuple(after)
