"""Which messages are news, whoever else speaks."""

from __future__ import annotations

import pytest

from powerd.errors import BadRequest
from powerd.server.stamps import OVERTAKEN_S, PROCESSES_KEPT, PROCESSES_MOST, Reports, Stamps
from powerd.server.status import Superseded
from tests.server.dialogue import stamp


def test_posts_that_call_each_by_itself_make_none_of_them_forgotten() -> None:
    """A late call of the first is no news, and a hello as old as it none either, though many others called since."""
    stamps = Stamps()
    assert stamps.call(0, 0, 1, 100.0, 0.0)
    for evse in range(1, 3 * PROCESSES_KEPT):
        assert stamps.call(0, evse, evse + 1, 50.0, 0.0)
    assert not stamps.call(0, 0, 1, 60.0, 1.0)
    with pytest.raises(BadRequest, match="not more than 60 s before the newest of this incarnation"):
        stamps.call(0, 0, 1, 39.9, 1.0)
    with pytest.raises(BadRequest):
        stamps.hello(0, 1, 100.0, 1.0)
    stamps.hello(0, 1, 101.0, 1.0)
    assert not stamps.call(0, 5, 1, 100.5, 2.0)


def test_a_process_heard_before_its_successor_undoes_nothing() -> None:
    """Its hello and its call were under way as it died: newer than all that was heard of it, and late all the same."""
    stamps = Stamps()
    stamps.hello(0, 1, 100.0, 0.0)
    stamps.call(1, 3, 1, 100.0, 0.0)
    stamps.hello(0, 2, 5.0, 1.0)
    stamps.call(1, 3, 2, 5.0, 1.0)
    with pytest.raises(Superseded, match="was heard since this one"):
        stamps.hello(0, 1, 110.0, 1.0)
    with pytest.raises(Superseded, match="was heard since this one"):
        stamps.call(1, 3, 1, 110.0, 1.0)
    stamps.hello(0, 2, 6.0, 2.0)
    assert stamps.call(1, 3, 2, 6.0, 2.0)


def test_a_second_process_by_mistake_shuts_out_nobody_for_good() -> None:
    """Who speaks later than anything is under way lives; the other one is then the late one, and again for a minute."""
    stamps = Stamps()
    stamps.hello(0, 1, 100.0, 0.0)
    stamps.hello(0, 2, 5.0, 10.0)
    for late_s in (10.0, 10.0 + OVERTAKEN_S):
        with pytest.raises(Superseded):
            stamps.hello(0, 1, 100.0 + late_s, late_s)
    again_s = 10.1 + OVERTAKEN_S
    stamps.hello(0, 1, 200.0, again_s)
    with pytest.raises(Superseded):
        stamps.hello(0, 2, 70.0, again_s + 1.0)
    stamps.hello(0, 2, 200.0, again_s + 1.1 + OVERTAKEN_S)


def test_what_a_dead_process_had_queued_is_late_whatever_its_stamps_span() -> None:
    """Seventy words of 70 s of its clock, that arrive at once: the minute is the daemon's."""
    stamps = Stamps()
    stamps.call(0, 0, 1, 100.0, 0.0)
    stamps.call(0, 0, 2, 5.0, 1.0)
    for k in range(70):
        with pytest.raises(Superseded):
            stamps.call(0, 0, 1, 101.0 + k, 1.1)
    assert stamps.call(0, 0, 2, 6.0, 2.0)


def test_a_hello_of_an_hour_ago_shuts_out_no_post_that_calls_by_itself() -> None:
    """A cabinet's program ran for an hour, and its posts call each by itself again: the minute began with its hello."""
    stamps = Stamps()
    for evse in range(20):
        stamps.call(0, evse, 1000 + evse, 100.0, 0.0)
    stamps.hello(0, 7, 5.0, 10.0)
    assert all(stamps.call(0, evse, 1000 + evse, 3700.0, 3600.0) for evse in range(20))


def test_what_is_refused_changes_nothing() -> None:
    """A hello is late for EVSE 1 alone: that of EVSE 0, whose own process calls, is heard as before."""
    stamps = Stamps()
    stamps.hello(0, 100, 1.0, 0.0)
    stamps.call(0, 0, 1, 2.0, 2.0)
    stamps.call(0, 1, 2, 45.0, 45.0)
    with pytest.raises(Superseded):
        stamps.hello(0, 100, 68.0, 67.0)
    assert stamps.call(0, 0, 1, 68.0, 68.0)


def test_a_process_is_remembered_as_long_as_something_of_it_may_be_under_way() -> None:
    """Its late hello is refused however many others were heard since; an hour later nothing of it is kept."""
    stamps = Stamps()
    for process in range(1, 2 + 3 * PROCESSES_KEPT):
        stamps.hello(0, process, 1.0, float(process))
    with pytest.raises(Superseded):
        stamps.hello(0, 1, 2.0, 30.0)
    for process in range(1000, 1000 + 3 * PROCESSES_MOST):
        stamps.hello(0, process, 1.0, 3600.0 + process)
    assert len(stamps._hellos[0]._known) <= PROCESSES_MOST


def test_a_device_whose_last_process_lives_is_believed_again_after_a_minute() -> None:
    """Of the switches that its next process has told of; of another one, and of another device, it is heard at once."""
    reports, tie, main = Reports(), ("branch", 0), ("branch", 1)
    reports.hear(1, [tie, main], stamp(100.0, 1), 0.0)
    reports.hear(1, [tie], stamp(5.0, 2), 1.0)
    for late_s in (1.0, 1.0 + OVERTAKEN_S):
        assert reports.late(1, [main, tie], stamp(110.0, 1), late_s) == [False, True]
        assert reports.late(2, [tie], stamp(110.0, 1), late_s) == [False]
    assert reports.late(1, [main, tie], stamp(110.0, 1), 1.1 + OVERTAKEN_S) == [False, False]


def test_a_process_is_late_whichever_way_it_and_its_successor_spoke() -> None:
    """One called and its successor said hello, or the other way round: what the first says on either way is late."""
    called = Stamps()
    for evse in (3, 4):
        called.call(0, evse, 1, 100.0, 0.0)
    called.hello(0, 2, 5.0, 1.0)
    said = Stamps()
    said.hello(0, 1, 100.0, 0.0)
    for evse in (3, 4):
        said.call(0, evse, 2, 5.0, 1.0)
    for stamps in (called, said):
        with pytest.raises(Superseded, match="was heard since this one"):
            stamps.hello(0, 1, 110.0, 2.0)
        with pytest.raises(Superseded, match="was heard since this one"):
            stamps.call(0, 3, 1, 110.0, 2.0)
        stamps.hello(0, 1, 110.0, 2.0 + OVERTAKEN_S)
        assert stamps.call(0, 4, 1, 111.0, 3.0 + OVERTAKEN_S)
