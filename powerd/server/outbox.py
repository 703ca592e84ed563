"""What waits to be sent on one stream. Merges per EVSE, never drops: one entry an EVSE on each side of a renewal.

A renewal extends what was sent *before* it. So entries before a pending renewal are merged among themselves and those
after it among themselves, never across: else a renewal could extend a ceiling that an entry merged away had replaced
(docs/protocol.md, "What the daemon promises"). A newer renewal replaces an older pending one, which joins the sides.

What waited for a slow disk may come after what is newer: grants then count as put before a pending renewal that is
newer than they, and a renewal that comes after a newer one is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.duration_pb2 import Duration

from powerd.limits import Bools, Floats, Ints
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb

PARTS_MAX = 8
"""Pending parts on one side before they are merged, so that a stalled stream stays small."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """What the entries of one message share."""

    epoch: int
    seq: int
    ttl_s: float
    """Lease length [s]."""
    incarnation: int
    """Process of the echoed stamp."""
    boottime_s: float
    """Clock of the echoed stamp [s]; fixed by the deciding tick, never refreshed here."""

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, seq)."""
        return (self.epoch, self.seq)


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Grants of one decision for one stream."""

    lease: Lease
    place: Ints
    """(k,) places in the hello, each once."""
    ceiling: Floats
    """(k,) [own unit]."""
    latched: Bools
    """(k,) stops."""
    one_phase: Bools
    """(k,) for the post's L1 alone."""


class Outbox:
    """Pending messages of one stream of ``size`` EVSEs, and the count of those taken from it."""

    def __init__(self, size: int) -> None:
        self.count = 0
        """Grants and RenewAll messages taken so far."""
        self.lowers = False
        """A decrease is pending."""
        self._size = size
        self._before: list[Part] = []
        self._renewal: Lease | None = None
        self._renewed = (0, 0)  # order of the newest renewal, pending or taken
        self._after: list[Part] = []
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def put(self, part: Part, *, lowers: bool = False) -> None:
        """Adds grants; ``lowers``: decreases are among them."""
        self.lowers |= lowers
        before = self._renewal is None or part.lease.order < self._renewal.order
        side = self._before if before else self._after
        side.append(part)
        self._shrink(side)
        self._changed()

    def renew(self, lease: Lease) -> None:
        """Adds a renewal; after a newer one it is worth nothing any more."""
        if lease.order < self._renewed:
            return
        self._renewed = lease.order
        self._before += self._after
        self._after = []
        self._shrink(self._before)
        self._renewal = lease
        self._changed()

    def take(self) -> list[pb.ConnectResponse]:
        """Everything pending as messages, ascending in (epoch, seq); they count as carried."""
        messages = [_grants(part) for part in merge(self._before, self._size)]
        if self._renewal is not None:
            messages.append(_renew_all(self._renewal, self.count + len(messages)))
        messages += [_grants(part) for part in merge(self._after, self._size)]
        self._before, self._renewal, self._after = [], None, []
        self.count += len(messages)
        self.lowers = False
        self._filled.clear()
        self._empty.set()
        return messages

    async def filled(self) -> None:
        """Ends when something is pending."""
        await self._filled.wait()

    async def emptied(self) -> None:
        """Ends when nothing is pending."""
        await self._empty.wait()

    def _shrink(self, side: list[Part]) -> None:
        if len(side) > PARTS_MAX:
            side[:] = merge(side, self._size)

    def _changed(self) -> None:
        self._filled.set()
        self._empty.clear()


def merge(parts: Sequence[Part], size: int) -> list[Part]:
    """The newest entry of each EVSE, one part a lease, ascending in (epoch, seq)."""
    if len(parts) < 2:  # nearly always
        return list(parts)
    newest: dict[Lease, list[Part]] = {}
    seen = np.zeros(size, np.bool_)
    for part in sorted(parts, key=lambda p: p.lease.order, reverse=True):
        fresh = ~seen[part.place]
        seen[part.place] = True
        if fresh.any():
            newest.setdefault(part.lease, []).append(part if fresh.all() else _chosen(part, fresh))
    return [_joined(lease, group) for lease, group in reversed(newest.items())]


def _chosen(part: Part, keep: Bools) -> Part:
    return Part(
        lease=part.lease,
        place=part.place[keep],
        ceiling=part.ceiling[keep],
        latched=part.latched[keep],
        one_phase=part.one_phase[keep],
    )


def _joined(lease: Lease, group: list[Part]) -> Part:
    """The parts of one lease as one, ascending by place."""
    if len(group) == 1:
        return group[0]
    place = np.concatenate([p.place for p in group])
    by_place = np.argsort(place)
    ceiling = np.concatenate([p.ceiling for p in group])[by_place]
    latched = np.concatenate([p.latched for p in group])[by_place]
    one_phase = np.concatenate([p.one_phase for p in group])[by_place]
    return Part(lease=lease, place=place[by_place], ceiling=ceiling, latched=latched, one_phase=one_phase)


def duration(seconds: float) -> Duration:
    """A protobuf span, to the nanosecond."""
    return Duration(seconds=int(seconds // 1), nanos=round(seconds % 1 * 1e9) % 1_000_000_000)


def _echo(lease: Lease) -> pb_common.Stamp:
    return pb_common.Stamp(incarnation=lease.incarnation, boottime_s=lease.boottime_s)


def _grants(part: Part) -> pb.ConnectResponse:
    lease = part.lease
    grants = pb.Grants(epoch=lease.epoch, seq=lease.seq, ttl=duration(lease.ttl_s), echo=_echo(lease))
    # Lists: extending a packed column by an array is four times slower.
    grants.index.extend(part.place.tolist())
    grants.ceiling.extend(part.ceiling.tolist())
    grants.latched_index.extend(part.place[part.latched].tolist())
    grants.one_phase_index.extend(part.place[part.one_phase].tolist())
    return pb.ConnectResponse(grants=grants)


def _renew_all(lease: Lease, count: int) -> pb.ConnectResponse:
    renewal = pb.RenewAll(epoch=lease.epoch, seq=lease.seq, ttl=duration(lease.ttl_s), echo=_echo(lease), count=count)
    return pb.ConnectResponse(renew_all=renewal)
