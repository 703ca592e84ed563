"""What the gRPC door needs of the daemon, and what it offers to it; the daemon implements ``Core``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Protocol

from powerd.control.decision import Decision
from powerd.control.events import Event, Outcome
from powerd.limits import Limits
from powerd.network.electrical import Electrical
from powerd.units import Now


class Drawn(Protocol):
    """A drawing with its limits: what a sentence about a decision needs beside it."""

    @property
    def electrical(self) -> Electrical:
        """The compiled site."""

    @property
    def limits(self) -> Limits:
        """Limits of the present switching state."""


class Core(Protocol):
    """The controller as a door sees it. All methods belong to the event loop's thread."""

    electrical: Electrical
    """The compiled site."""
    tick_s: float
    """Period of the tick [s]."""

    @property
    def limits(self) -> Limits:
        """Limits of the present switching state."""

    def post(self, *events: Event, urgent: bool = False) -> Awaitable[tuple[Outcome, ...]]:
        """Puts events into the inbox, all or none; the awaitable ends after the tick that absorbed them was published.

        ``urgent`` wakes the ticker at once.

        Raises:
            Overloaded: the inbox is full; nothing was taken (raised at the call, not from the awaitable).
        """

    @property
    def now_s(self) -> float:
        """Boottime of the newest tick, before the first one of the start [s]."""

    def latest(self) -> Decision | None:
        """The newest decision; None before the first tick."""

    def follow(self) -> AsyncIterator[Decision]:
        """Every newer decision from now on, latest wins (a slow reader skips)."""

    def below(self, element: str) -> tuple[int, ...] | None:
        """EVSEs at or below an element (EVSE, bus, branch, supply, controller, or the site); None = no such element."""

    def advance(self, now: Now) -> Awaitable[Decision]:
        """Runs one tick at ``now``; only with a stepped clock."""


class GrantSink(Protocol):
    """Where the ticker hands its grants: the streams. Called on the event loop, must not block."""

    def publish_lowered(self, decision: Decision) -> None:
        """Decreases and stops: before the disk."""

    def publish_raised(self, decision: Decision) -> None:
        """Raises, repeated grants, then renewals: after the disk."""
