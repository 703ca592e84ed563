"""Posting requests that are answered: after the tick that absorbed them, or UNAVAILABLE after two ticks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from powerd.control.decision import Decision
from powerd.control.events import Done, Event, Outcome
from powerd.server.core import Core
from powerd.server.status import Unavailable, done_or_raise

MARGIN_S = 0.5
"""Beyond two ticks, before a waiting call is told to try again [s]: a disk that stalls."""


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where the single calls hand their events in."""

    core: Core
    """The controller."""
    stepped: bool
    """Ticks come when a simulation says so: no deadline of ours."""

    async def post(self, *events: Event, urgent: bool = False) -> tuple[Done, ...]:
        """Posts events and waits for the tick that absorbed them; one good outcome an event.

        Raises:
            BadRequest: a value did not fit what is going on.
            UnknownName: it named something that is not there.
            Overloaded: the inbox is full, nothing was taken.
            Unavailable: no tick absorbed it in time; it may still be absorbed.
        """
        answer = self._handed_in(events, urgent=urgent)
        deadline_s = None if self.stepped else 2 * self.core.tick_s + MARGIN_S
        try:
            outcomes = await asyncio.wait_for(asyncio.shield(answer), deadline_s)
        except TimeoutError:
            raise Unavailable(
                f"no tick took this in {deadline_s:.1f} s; repeat it, with the same request_id if it has one"
            ) from None
        return tuple(done_or_raise(outcome) for outcome in outcomes)

    async def post_until(self, enough: asyncio.Event, *events: Event) -> None:
        """Posts events and waits as ``post`` does, or until ``enough`` is set: then whatever the disk says of them.

        Raises:
            BadRequest, UnknownName, Overloaded, Unavailable: see ``post``; not once ``enough`` is set.
        """
        posted = asyncio.ensure_future(self.post(*events))
        first = asyncio.ensure_future(enough.wait())
        try:
            await asyncio.wait((posted, first), return_when=asyncio.FIRST_COMPLETED)
            if not enough.is_set():
                posted.result()
        finally:
            first.cancel()
            posted.cancel()

    def _handed_in(self, events: tuple[Event, ...], *, urgent: bool) -> asyncio.Future[tuple[Outcome, ...]]:
        """The answer to come; nobody may be there any more to hear of its failure."""
        answer = asyncio.ensure_future(self.core.post(*events, urgent=urgent))
        answer.add_done_callback(_heard)
        return answer

    def latest(self) -> Decision:
        """The newest decision.

        Raises:
            Unavailable: there was no tick yet.
        """
        decision = self.core.latest()
        if decision is None:
            raise Unavailable("the daemon has not ticked yet; try again")
        return decision

    async def decisions(self) -> AsyncIterator[Decision]:
        """The newest decision, if there is one, and every newer one; a slow reader skips."""
        newer = self.core.follow()
        decision = self.core.latest()
        if decision is not None:
            yield decision
        async for decision in newer:
            yield decision


def _heard(answer: asyncio.Future[tuple[Outcome, ...]]) -> None:
    """Whoever waits for it gets its error; without this, asyncio logs each one that nobody waits for any more."""
    if not answer.cancelled():
        answer.exception()
