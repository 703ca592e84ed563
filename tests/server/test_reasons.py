"""The log of reasons: on change, with the limit behind it, and never a flood."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from powerd.control.decision import Decision
from powerd.server.reasons import BURST, LINES_A_SECOND, ReasonLog
from powerd.units import Now
from tests.server.fake import FakeCore, site_of


def _decision(core: FakeCore, ceiling: float, limit: int, *, at_s: float) -> Decision:
    """All cars plugged in, at one ceiling, held by one limit."""
    decision = core.tick()
    n = core.electrical.evse_count
    sessions = decision.snapshot.sessions
    sessions = replace(sessions, plugged=np.ones(n, np.bool_), served=np.ones(n, np.bool_))
    return replace(
        decision,
        now=Now(utc=decision.now.utc, boottime_s=at_s),
        snapshot=replace(decision.snapshot, sessions=sessions),
        ceiling=np.full(n, ceiling),
        want=np.full(n, ceiling),
        binding_limit=np.full(n, limit),
    )


def _told(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "powerd.reasons"]
    caplog.clear()
    return lines


def test_a_change_is_told_once_with_its_limit(caplog: pytest.LogCaptureFixture) -> None:
    """Element, phase, source, price, how many others, and the sentence; then silence until it changes."""
    caplog.set_level(logging.INFO, "powerd.reasons")
    core = FakeCore()
    core.snapshot.leases.echo_at_s[:] = core.now_s  # nobody is silent
    log = ReasonLog(core)
    log.tell(_decision(core, 14.0, 1, at_s=0.0))
    first = _told(caplog)
    assert len(first) == 5
    limits = core.site.limits
    assert first[0]["evse"] == "A1"
    assert first[0]["controller"] == "c0"
    assert first[0]["time"] == "2026-01-01T00:00:00.000+00:00"
    assert first[0]["ceiling"] == 14.0
    assert (first[0]["element"], first[0]["phase"]) == (limits.element[1], limits.phase[1])
    assert first[0]["source"] == limits.source[1]
    assert first[0]["shadow_price"] == 0.25
    assert first[0]["others"] == 4
    assert str(first[0]["reason"]).startswith("held at 14 A by phase")
    log.tell(_decision(core, 14.01, 1, at_s=1.0))
    assert _told(caplog) == []
    log.tell(_decision(core, 14.0, 0, at_s=2.0))
    assert len(_told(caplog)) == 5


def test_a_tick_of_the_guard_alone_tells_of_nobody_whose_ceiling_stayed(caplog: pytest.LogCaptureFixture) -> None:
    """It knows of no limit, and the next tick finds the same ones again: a stop elsewhere is no line for each car."""
    caplog.set_level(logging.INFO, "powerd.reasons")
    core = FakeCore()
    log = ReasonLog(core)
    log.tell(_decision(core, 14.0, 1, at_s=0.0))
    _told(caplog)
    log.tell(replace(_decision(core, 14.0, -1, at_s=1.0), path="guard"))
    log.tell(_decision(core, 14.0, 1, at_s=1.2))
    assert _told(caplog) == []


def test_a_flood_is_counted_instead(caplog: pytest.LogCaptureFixture) -> None:
    """300 EVSEs change every second: a burst, then the rate, and the number of the others."""
    caplog.set_level(logging.INFO, "powerd.reasons")
    core = FakeCore(site_of(300))
    log = ReasonLog(core)
    log.tell(_decision(core, 10.0, 0, at_s=0.0))
    assert len(_told(caplog)) == BURST + 1
    log.tell(_decision(core, 12.0, 0, at_s=1.0))
    lines = _told(caplog)
    assert len(lines) == LINES_A_SECOND + 1
    assert lines[-1] == {"time": "2026-01-01T00:00:00.000+00:00", "event": "ceilings", "tick": 2, "not_told": 280}
