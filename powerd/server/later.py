"""What a stream starts and does not wait for: verdicts of later ticks, and the news of its own end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from powerd.errors import BadRequest, UnknownName
from powerd.server.status import Unavailable, done_or_raise

logger = logging.getLogger(__name__)


class Later:
    """Holds futures until they are done: the event loop itself keeps only weak references."""

    def __init__(self) -> None:
        self._held: set[asyncio.Future[Any]] = set()

    def keep(self, task: asyncio.Future[Any]) -> None:
        """Lets it go on to its end."""
        self._held.add(task)
        task.add_done_callback(self._held.discard)

    def judge(self, answer: asyncio.Future[Any], end: Callable[[BadRequest | UnknownName], None]) -> None:
        """Calls ``end`` if the tick that absorbs the events finds one of them wrong.

        Args:
            answer: what posting them gave; its result are their outcomes.
            end: ends the stream that they came from.
        """

        def told(answer: asyncio.Future[Any]) -> None:
            if answer.cancelled():
                return
            error = answer.exception()
            if isinstance(error, Unavailable):  # told in the alarms; a line a report would fill the disk that is full
                return
            if error is not None:
                logger.error("the inbox failed", exc_info=error)
                return
            try:
                for outcome in answer.result():
                    done_or_raise(outcome)
            except (BadRequest, UnknownName) as refused:
                end(refused)

        self.keep(answer)
        answer.add_done_callback(told)
