"""Verdicts of ticks that nobody waits for."""

from __future__ import annotations

import asyncio
import logging

import pytest

from powerd.server.later import Later
from powerd.server.status import Unavailable


def _refused(error: Exception) -> None:
    raise AssertionError(error)


def test_what_the_disk_refused_is_no_line_for_each_report(caplog: pytest.LogCaptureFixture) -> None:
    """The alarms tell of it, once; a thousand controllers that report would fill the log, and the disk."""

    async def story() -> None:
        answer: asyncio.Future[tuple[()]] = asyncio.get_running_loop().create_future()
        Later().judge(answer, _refused)
        answer.set_exception(Unavailable("disk full"))
        await asyncio.sleep(0)

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert caplog.records == []
