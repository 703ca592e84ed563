"""Which messages are news, whoever else speaks."""

from __future__ import annotations

import pytest

from powerd.errors import BadRequest
from powerd.server.stamps import OVERTAKEN_S, PROCESSES_KEPT, Reports, Stamps
from tests.server.dialogue import stamp


def test_posts_that_call_each_by_itself_make_none_of_them_forgotten() -> None:
    """A late call of the first is no news, and a hello as old as it none either, though many others called since."""
    stamps = Stamps()
    assert stamps.call(0, 0, 1, 100.0)
    for evse in range(1, 3 * PROCESSES_KEPT):
        assert stamps.call(0, evse, evse + 1, 50.0)
    assert not stamps.call(0, 0, 1, 60.0)
    with pytest.raises(BadRequest, match="not more than 60 s before the newest of this incarnation"):
        stamps.call(0, 0, 1, 39.9)
    with pytest.raises(BadRequest):
        stamps.hello(0, 1, 100.0)
    stamps.hello(0, 1, 101.0)
    assert not stamps.call(0, 5, 1, 100.5)


def test_a_process_heard_before_its_successor_undoes_nothing() -> None:
    """Its hello and its call were under way as it died: newer than all that was heard of it, and late all the same."""
    stamps = Stamps()
    stamps.hello(0, 1, 100.0)
    stamps.call(1, 3, 1, 100.0)
    stamps.hello(0, 2, 5.0)
    stamps.call(1, 3, 2, 5.0)
    with pytest.raises(BadRequest, match="another one has been heard since"):
        stamps.hello(0, 1, 110.0)
    with pytest.raises(BadRequest, match="another one has been heard since"):
        stamps.call(1, 3, 1, 110.0)
    stamps.hello(0, 2, 6.0)
    assert stamps.call(1, 3, 2, 6.0)


def test_a_second_process_by_mistake_shuts_out_nobody_for_good() -> None:
    """Who goes on speaking for longer than anything is under way lives; the other one is then the late one."""
    stamps = Stamps()
    stamps.hello(0, 1, 100.0)
    stamps.hello(0, 2, 5.0)
    for late_s in (110.0, 110.0 + OVERTAKEN_S):
        with pytest.raises(BadRequest):
            stamps.hello(0, 1, late_s)
    stamps.hello(0, 1, 110.1 + OVERTAKEN_S)
    with pytest.raises(BadRequest):
        stamps.hello(0, 2, 7.0)


def test_a_device_whose_last_process_lives_is_believed_again_after_a_minute() -> None:
    """Of the switches that its next process has told of; of another one, and of another device, it is heard at once."""
    reports, tie, main = Reports(), ("branch", 0), ("branch", 1)
    reports.hear("stamp", 1, [tie, main], stamp(100.0, 1))
    reports.hear("stamp", 1, [tie], stamp(5.0, 2))
    reports.hear("stamp", 1, [main], stamp(101.0, 1))
    reports.hear("stamp", 2, [tie], stamp(101.0, 1))
    for late_s in (110.0, 110.0 + OVERTAKEN_S):
        with pytest.raises(BadRequest, match="another one has been heard since"):
            reports.hear("stamp", 1, [main, tie], stamp(late_s, 1))
    reports.hear("stamp", 1, [main, tie], stamp(110.1 + OVERTAKEN_S, 1))


def test_a_process_is_late_whichever_way_it_and_its_successor_spoke() -> None:
    """One called and its successor said hello, or the other way round: what the first says on either way is late."""
    called = Stamps()
    for evse in (3, 4):
        called.call(0, evse, 1, 100.0)
    called.hello(0, 2, 5.0)
    said = Stamps()
    said.hello(0, 1, 100.0)
    for evse in (3, 4):
        said.call(0, evse, 2, 5.0)
    for stamps in (called, said):
        with pytest.raises(BadRequest, match="another one has been heard since"):
            stamps.hello(0, 1, 110.0)
        with pytest.raises(BadRequest, match="another one has been heard since"):
            stamps.call(0, 3, 1, 110.0)
        stamps.hello(0, 1, 110.1 + OVERTAKEN_S)
        assert stamps.call(0, 4, 1, 111.0 + OVERTAKEN_S)
