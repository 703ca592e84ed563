"""Request ids: the same request again changes nothing, another one under its id is not taken for it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powerd.control import events as ev
from powerd.control import requests as requests_module
from powerd.control import switch_events as sw
from powerd.control.requests import Request, answer_again, answered, answered_before
from powerd.journal.store import Journal
from powerd.state.snapshot import ANSWERS_A_PAGE, Snapshot, Stop, reopen_snapshot
from tests.control.garage import Player, instant, site_text

ROOT = Path(__file__).parents[2]

REQUESTS: tuple[Request, ...] = (
    ev.SessionStarted(request_id="r", evse=0, session_id="made", demand=ev.Demand(weight=2.0)),
    ev.SessionUpdated(request_id="r", session_id="a", demand=ev.Demand(weight=2.0)),
    ev.SessionStopped(request_id="r", session_id="a"),
    ev.StopOrdered(request_id="r", stop_id="made", element="P0", evse=np.array([0]), reason="smoke"),
    ev.StopReleased(request_id="r", stop_id="s", reason="smoke"),
    ev.EnvelopeSet(
        request_id="r",
        envelope_id="made",
        source="dso",
        reason="smoke",
        import_limit_kw=40.0,
        start_time=None,
        end_time=datetime(2026, 1, 2, tzinfo=UTC),
        heartbeat_s=np.inf,
    ),
    ev.EnvelopeWithdrawn(request_id="r", envelope_id="a", reason="smoke"),
    sw.SwitchOrdered(request_id="r", branch=0, close=True, reason="smoke"),
    sw.ServiceChanged(request_id="r", kind=sw.ElementKind.BRANCH, indices=(0,), in_service=False, reason="smoke"),
)
OTHER: dict[type[Any], Any] = {
    str: "other",
    int: 7,
    float: 9.0,
    tuple: (7,),
    np.ndarray: np.array([7]),
    ev.Demand: ev.Demand(weight=3.0),
    datetime: datetime(2026, 1, 3, tzinfo=UTC),
    type(None): datetime(2026, 1, 1, tzinfo=UTC),
    sw.ElementKind: sw.ElementKind.BUS,
}
MADE = {
    (ev.StopOrdered, "stop_id"),
    (ev.StopOrdered, "evse"),
}
"""Made by the door in each call anew, or looked up there; ids that a caller may give are the same in a retry."""


@pytest.fixture
def two(tmp_path: Path) -> Player:
    """Two cars, 16 A each, of a site that takes envelopes."""
    limit = "grid_connection: {import_limit_kw: 50, source: contract}\n"
    player = Player.open(tmp_path, site_text(2, 32.0) + limit)
    for k in range(2):
        player.plug(k)
        player.hello(k)
    player.tick()
    return player


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: type(one).__name__)
def test_a_request_id_stands_for_one_request(two: Player, request_: Request) -> None:
    """A retry, whatever the door made up for it, gets the key of the first; any other contents, and any other kind of
    request, are refused by the field of the id; what had none, or a new one, is a new request.
    """
    key = "made" if isinstance(request_, ev.SessionStarted | ev.EnvelopeSet) else "key"
    done = answered(two.snapshot, request_, ev.Done(key))
    for own in fields(request_):
        value = getattr(request_, own.name)
        change: dict[str, Any] = {own.name: (not value) if isinstance(value, bool) else OTHER[type(value)]}
        other = replace(request_, **change)
        again = answer_again(done, other)
        if own.name == "request_id":
            assert again is None
        elif (type(request_), own.name) in MADE:
            assert again == ev.Done(key)
        else:
            assert isinstance(again, ev.Refused), own.name
            assert again.field == "request_id"
    for other in REQUESTS:
        assert isinstance(answer_again(done, other), ev.Done if other is request_ else ev.Refused)
    assert answer_again(done, replace(request_, request_id="")) is None


def test_a_stop_under_the_id_of_a_session_is_not_taken_for_done(two: Player) -> None:
    """Who stops a garage with an id that was used before hears so, and stops it with one of its own."""
    two.tick(ev.SessionStarted(request_id="r", evse=0, session_id="a", demand=ev.Demand()))
    stop = ev.StopOrdered(request_id="r", stop_id="s", element="garage", evse=np.array([0, 1]), reason="smoke")
    decision = two.tick(stop)
    assert decision.outcomes[-1] == ev.Refused(
        "request_id", "an id of its own; this one was given with other contents before"
    )
    assert decision.snapshot.stops == ()
    stopped = two.tick(replace(stop, request_id="r2"))
    assert stopped.outcomes[-1] == ev.Done("s", (0, 1))
    assert stopped.ceiling.tolist() == [0.0, 0.0]


def told(outcome: ev.Outcome) -> str:
    """All of it: nan is not equal to itself, and what is told of a session is not compared."""
    assert isinstance(outcome, ev.Done)
    return repr(outcome)


def test_a_retry_is_told_what_the_first_call_was(tmp_path: Path, two: Player) -> None:
    """Whatever has become of it since: the stop released, the session over, another car there, and powerd restarted."""
    two.tick(ev.Measured(evse=np.array([0]), drawn=np.full((1, 3), 16.0)))
    two.tick(seconds=10.0)
    requests: tuple[Request, ...] = (
        replace(REQUESTS[5], request_id="g"),
        ev.SessionStarted(request_id="a", evse=0, session_id="s", demand=ev.Demand(weight=2.0)),
        ev.SessionUpdated(request_id="b", session_id="s", demand=ev.Demand(max_ceiling=20.0)),
        ev.StopOrdered(request_id="c", stop_id="t", element="garage", evse=np.array([0, 1]), reason="smoke"),
        ev.StopReleased(request_id="d", stop_id="t", reason="no smoke"),
        ev.SessionStopped(request_id="e", session_id="s"),
    )
    first = [told(two.tick(request).outcomes[-1]) for request in requests]
    assert f"start_utc_s={instant(two.now_s).utc.timestamp() - 5.0}" in first[0]
    assert "'s', evse=(0,), session=SessionTold(" in first[5]
    ended = two.decision.outcomes[-1] if two.decision is not None else None
    assert isinstance(ended, ev.Done)
    assert ended.session is not None
    assert ended.session.energy_kwh > 0.02
    assert (ended.session.weight, ended.session.max_ceiling) == (2.0, 20.0)
    gone, come = (
        ev.PlugChanged(evse=np.array([0]), plugged=np.array([there]), plug_boottime_s=np.array([two.now_s + place]))
        for place, there in enumerate((False, True))
    )
    two.tick(gone, come, ev.SessionStarted(request_id="f", evse=0, session_id="s", demand=ev.Demand(weight=5.0)))
    assert [told(two.tick(request).outcomes[-1]) for request in requests] == first
    with closing(Journal(tmp_path / "j", evse_ids=two.site.electrical.posts.ids)) as journal:
        journal.start(two.snapshot, instant(two.now_s))
        found = journal.recover(two.snapshot)
    assert found is not None
    two.snapshot = reopen_snapshot(found, two.site.terms, instant(two.now_s))
    assert [told(two.tick(request).outcomes[-1]) for request in requests] == first


def test_answers_name_no_more_posts_than_are_kept(two: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of stops of a large site the oldest are remembered without their posts, the newest with all, however many; those
    of one post, as sessions have, keep it. A stop that holds is told with its posts all the same.
    """
    monkeypatch.setattr(requests_module, "EVSES_KEPT", 5)
    snapshot, counts = two.snapshot, (1, 2, 2, 1, 2, 9)
    for number, count in enumerate(counts):
        snapshot = answered(snapshot, stop_of(number), ev.Done(f"s{number}", tuple(range(count))))
        if number == 4:
            assert posts_named(snapshot, len(counts) - 1) == [1, 0, 2, 1, 2]
    assert posts_named(snapshot, len(counts)) == [1, 0, 0, 1, 0, 9]
    held = Stop(stop_id="s4", element="P0", evse=np.array([0, 1]), reason="smoke")
    assert posts_named(replace(snapshot, stops=(held,)), len(counts)) == [1, 0, 0, 1, 2, 9]


def stop_of(number: int) -> Request:
    """One of many requests."""
    return replace(REQUESTS[3], request_id=f"r{number}")


def posts_named(snapshot: Snapshot, count: int) -> list[int]:
    """How many posts the answers to the first requests name."""
    retries = [answer_again(snapshot, stop_of(number)) for number in range(count)]
    return [len(told.evse) for told in retries if isinstance(told, ev.Done)]


def test_at_least_the_4096_newest_are_remembered(two: Player) -> None:
    """Also where pages are used again, and one is just full; of those before, no more than fit on a page."""
    snapshot = two.snapshot
    for number in range(9000):
        snapshot = answered(snapshot, stop_of(number), ev.Done("s"))
        for back, known in ((0, True), (4095, True), (4096 + ANSWERS_A_PAGE, False)):
            if number % 61 in (0, 1) and number >= back:
                assert (answered_before(snapshot, f"r{number - back}") is not None) == known, (number, back)


def test_the_id_of_an_outage_of_service_does_not_return_it(two: Player) -> None:
    """Out of service and back are two requests: the second one under the id of the first changes nothing."""
    out = sw.ServiceChanged(request_id="r", kind=sw.ElementKind.BRANCH, indices=(0,), in_service=False, reason="oil")
    assert two.tick(out).outcomes[-1] == ev.Done("r")
    assert two.tick(out).outcomes[-1] == ev.Done("r")
    decision = two.tick(replace(out, in_service=True))
    assert isinstance(decision.outcomes[-1], ev.Refused)
    assert not decision.snapshot.gear.in_service[0]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("requested_energy_kwh", ev.Demand(requested_energy_kwh=1.0)),
        ("departure_time", ev.Demand(departure_time=instant(600.0).utc)),
    ],
)
def test_what_is_noted_and_does_not_count_is_said_to(tmp_path: Path, field: str, said: ev.Demand) -> None:
    """Three cars under 14 A, of which two can charge: whoever needs how much by when, ceilings are those of cars that
    said nothing, and the API says so. Once they count, its words change too.
    """
    played = []
    for demand in (ev.Demand(), said):
        player = Player.open(tmp_path, site_text(3, 14.0))
        for evse in range(3):
            player.plug(evse)
        player.hello(0)
        player.hello(1)
        player.tick()
        player.tick(ev.SessionStarted(request_id="", session_id="s", evse=2, demand=demand))
        played.append([player.tick(seconds=5.0).ceiling.tolist() for _ in range(400)])
    assert played[0] == played[1]
    assert any(ceilings[2] > 0 for ceilings in played[0])
    words = (ROOT / "protos/powerd/v1/session_service.proto").read_text("utf-8")
    above = words[: words.index(f" {field} = ")].rpartition(";")[2]
    assert "does not count yet" in above
