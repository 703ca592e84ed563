"""Messages on their way, in one direction of one stream; the faults of a network happen here."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Message = TypeVar("Message")

USUAL_S = 0.1
"""Delay of a message that nothing happens to [s]."""


@dataclass(kw_only=True)
class Channel(Generic[Message]):
    """One direction between one controller and the daemon; messages carry the number of their stream."""

    drop: int = 0
    """So many more messages are lost."""
    copy_s: float = 0.0
    """The next message comes again after so long."""
    late_s: float = 0.0
    """The next message is late by so much."""
    held_until_s: float = 0.0
    """What is under way arrives no sooner, and in order."""
    closed_until_s: float = 0.0
    """Nothing passes before."""
    cut_stream: int = 0
    """Streams up to this number are broken."""
    _under_way: list[tuple[float, int, int, Message]] = field(default_factory=list)
    _number: int = 0

    def send(self, message: Message, stream: int, now_s: float) -> None:
        """Puts a message on its way."""
        if self.drop > 0:
            self.drop -= 1
            return
        if now_s < self.closed_until_s or stream <= self.cut_stream:
            return
        self._push(now_s + USUAL_S + self.late_s, stream, message)
        if self.copy_s:
            self._push(now_s + USUAL_S + self.copy_s, stream, message)
        self.late_s = self.copy_s = 0.0

    def _push(self, at_s: float, stream: int, message: Message) -> None:
        self._number += 1
        heapq.heappush(self._under_way, (at_s, self._number, stream, message))

    def postpone(self, by_s: float) -> None:
        """What is under way comes so much later."""
        self._under_way = [(at_s + by_s, number, stream, message) for at_s, number, stream, message in self._under_way]

    def due(self, now_s: float) -> list[tuple[int, Message]]:
        """(stream, message) of all that have arrived, in the order of their arrival."""
        found: list[tuple[int, Message]] = []
        if now_s < self.held_until_s:
            return found
        while self._under_way and self._under_way[0][0] <= now_s:
            at_s, _, stream, message = heapq.heappop(self._under_way)
            if at_s >= self.closed_until_s and stream > self.cut_stream:
                found.append((stream, message))
        return found

    def heal(self) -> None:
        """No fault stands any more."""
        self.drop, self.copy_s, self.late_s, self.closed_until_s, self.held_until_s = 0, 0.0, 0.0, 0.0, 0.0
