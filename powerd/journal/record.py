"""What one tick took in and decided, as a link of a chain: no record can be altered, dropped or moved unnoticed.

    digest = sha256(digest before, number, kind, tick, time, content, digest of the decision)

A ``tick`` record holds the events and, in short, what was decided. A ``start`` or ``checkpoint`` record holds the whole
snapshot: a replay may begin there. A ``gap`` is a checkpoint after ticks that could not be recorded (a disk that was
away for longer than memory lasts).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import numpy as np
from zlib_ng.zlib_ng import crc32

from powerd.codec import classes_of, encode
from powerd.control.decision import Decision
from powerd.control.events import Event
from powerd.limits import Floats, Ints
from powerd.state.snapshot import Snapshot
from powerd.units import Now

ROOT = bytes(32)
"""The digest before the first record of a journal."""
DECIDED = ("lowered", "raised", "renewal", "ceiling", "want", "worst", "binding_limit", "path", "order")
"""Fields of a decision that its digest covers: all that leaves the daemon, and what it was made of."""
NOT_DECIDED = {
    "now": "an input, in the record itself",
    "tick": "in the record itself",
    "unanswered": "work for the background, whose answer comes in as an event",
    "site": "follows from the drawing and the snapshot's switchgear",
    "limits": "they follow from the site and from what is asked for and counted; they tell what holds whom",
    "shed": "tells why ceilings are as low as they are",
    "snapshot": "by its own digest",
    "overshoots": "they follow from the snapshot, which keeps them",
    "outcomes": "answers to callers; they follow from snapshot and events",
    "shadow_price": "explains, decides nothing",
    "term_names": "they follow from the drawing and from what is installed",
    "limit_flow": "follows from the ceilings",
    "uncontrolled": "follows from site and snapshot",
    "modes": "they follow from the snapshot and from the path",
    "alarms": "sentences for people; they may be worded better without a new decision",
}
"""The other fields, and why the digest leaves them out."""
_HEAD = struct.Struct("<qqdd")


class Kind(StrEnum):
    """What a record is."""

    START = "start"
    """The snapshot a daemon began with."""
    TICK = "tick"
    """One tick."""
    CHECKPOINT = "checkpoint"
    """The snapshot after the tick before."""
    GAP = "gap"
    """The snapshot after ticks that were lost."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Granted:
    """What a tick granted, for people and for comparing with another machine."""

    lowered: Ints
    """(k,) EVSEs that got less."""
    lowered_to: Floats
    """(k,) their ceilings [own unit]."""
    raised: Ints
    """(k,) EVSEs that got more or the same by name."""
    raised_to: Floats
    """(k,) their ceilings [own unit]."""
    renewed: Ints
    """(c,) controllers whose leases were extended."""
    path: str
    """How the wants were found."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TickContent:
    """Content of a tick record."""

    events: tuple[Event, ...]
    """What the tick absorbed, in order."""
    granted: Granted
    """What came of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StateContent:
    """Content of a start, checkpoint or gap record."""

    machine: str
    """Fingerprint of the machine and of the libraries that computed what follows."""
    terms: str
    """Whose terms bound what follows, and which; "" = nobody's."""
    snapshot: Snapshot
    """The whole state."""


CLASSES = classes_of(Event, TickContent, StateContent)
"""What a record may hold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """One row of the journal's record, without its place in the chain."""

    kind: Kind
    """What it is."""
    tick: int
    """Ticks so far."""
    utc_s: float
    """Wall clock of the tick, POSIX seconds."""
    boottime_s: float
    """Boottime clock of the tick [s]."""
    content: bytes
    """``TickContent`` or ``StateContent``, encoded."""
    decided: bytes
    """Digest of the decision; empty but for ticks."""

    def sealed(self, before: bytes, number: int) -> bytes:
        """Digest of this record as the ``number``th, after the one with digest ``before``."""
        seal = hashlib.sha256(before)
        seal.update(_HEAD.pack(number, self.tick, self.utc_s, self.boottime_s))
        seal.update(self.kind.encode())
        seal.update(self.content)
        seal.update(self.decided)
        return seal.digest()


def tick_record(now: Now, events: Sequence[Event], decision: Decision, state: bytes) -> Record:
    """The record of one tick; ``state`` is the digest of the snapshot after it."""
    content = TickContent(events=tuple(events), granted=granted_by(decision))
    return Record(
        kind=Kind.TICK,
        tick=decision.tick,
        utc_s=now.utc.timestamp(),
        boottime_s=now.boottime_s,
        content=encode(content),
        decided=digest_of(decision, state),
    )


def state_record(kind: Kind, snapshot: Snapshot, utc_s: float, machine: str, terms: str) -> Record:
    """The record of a whole snapshot."""
    return Record(
        kind=kind,
        tick=snapshot.tick,
        utc_s=utc_s,
        boottime_s=snapshot.boottime_s,
        content=encode(StateContent(machine=machine, terms=terms, snapshot=snapshot)),
        decided=b"",
    )


def now_of(record: Record) -> Now:
    """The instant of a record; microseconds survive, as ``datetime`` has no finer ones."""
    return Now(utc=datetime.fromtimestamp(record.utc_s, UTC), boottime_s=record.boottime_s)


def granted_by(decision: Decision) -> Granted:
    """In short, what a decision grants."""
    return Granted(
        lowered=decision.lowered.evse,
        lowered_to=decision.lowered.ceiling,
        raised=decision.raised.evse,
        raised_to=decision.raised.ceiling,
        renewed=decision.renewal.controller,
        path=decision.path,
    )


def digest_of(decision: Decision, state: bytes) -> bytes:
    """Digest of all that a decision says to the outside and of the state after it, bit by bit."""
    seal = hashlib.sha256(state)
    for name in DECIDED:
        _feed(seal, getattr(decision, name))
    return seal.digest()


def _feed(seal: Any, value: object) -> None:
    """Adds one value to a digest."""
    if isinstance(value, np.ndarray):
        # As the digest of the state has it: a checksum of each column is enough, and half the time.
        data = np.ascontiguousarray(value).data
        seal.update(f"{value.dtype.str}{value.shape}|{crc32(data)}".encode())
    elif is_dataclass(value):
        for own in fields(value):
            _feed(seal, getattr(value, own.name))
    elif isinstance(value, tuple):
        seal.update(f"({len(value)}".encode())
        for entry in value:
            _feed(seal, entry)
    else:
        seal.update(f"|{value!r}".encode())
