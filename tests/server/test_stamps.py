"""Which messages are news, whoever else speaks."""

from __future__ import annotations

import pytest

from powerd.errors import BadRequest
from powerd.server.stamps import PROCESSES_KEPT, Stamps


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
