"""The ticker: its rhythm, its inbox, and what waits for the disk and what does not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powerd import daemon
from powerd.allocation.allocate import Allocation
from powerd.control import events as ev
from powerd.control.compiled import CompiledSite
from powerd.control.decision import Decision
from powerd.control.plans_ahead import PlanWork
from powerd.control.question import question_of
from powerd.control.switch_events import PlansReady
from powerd.daemon import INBOX_EVENTS, SystemClock, Ticker, _tell_tick
from powerd.errors import EnvelopeUnheld, Overloaded
from powerd.journal.replay import ReplayRefused, replay
from powerd.journal.store import Entry, Journal, JournalBroken
from powerd.network.electrical import Electrical
from powerd.network.load import load_site
from powerd.network.plan import Planner
from powerd.server.status import Unavailable
from powerd.state.impaired import Trigger
from powerd.units import Now
from tests.control.garage import site_text


@pytest.fixture(scope="module")
def electrical(tmp_path_factory: pytest.TempPathFactory) -> Electrical:
    """Two posts of 32 A under 32 A."""
    file = tmp_path_factory.mktemp("site") / "site.yaml"
    file.write_text(site_text(2, 32.0), encoding="utf-8")
    return load_site(file).must()


def at(boottime_s: float) -> Now:
    """An instant."""
    return Now(utc=datetime.fromtimestamp(boottime_s, UTC), boottime_s=boottime_s)


def hello(evse: int, boottime_s: float) -> ev.HelloReceived:
    """A controller with a car at its only post."""
    one = np.array([evse])
    return ev.HelloReceived(
        evse=one,
        incarnation=5 + evse,
        boottime_s=boottime_s,
        highest_epoch=0,
        plugged=np.array([True]),
        plug_boottime_s=np.zeros(1),
        epoch=np.zeros(1, np.int64),
        seq=np.zeros(1, np.int64),
        ceiling=np.zeros(1),
        remaining_s=np.zeros(1),
        latched=np.zeros(1, np.bool_),
    )


class Shifted:
    """The machine's clock, counted from ``start_s``."""

    def __init__(self, start_s: float) -> None:
        self.start_s = start_s

    def now(self) -> Now:
        """This instant."""
        now = SystemClock().now()
        return Now(utc=now.utc, boottime_s=now.boottime_s - self.start_s)


class Heard:
    """A sink that notes what it was given."""

    def __init__(self) -> None:
        self.lowered: list[Decision] = []
        self.raised: list[Decision] = []

    def publish_lowered(self, decision: Decision) -> None:
        """Decreases."""
        self.lowered.append(decision)

    def publish_raised(self, decision: Decision) -> None:
        """Raises."""
        self.raised.append(decision)


def ticker_of(electrical: Electrical, *, tick_s: float = 1.0, journal: Journal | None = None) -> Ticker:
    """A ticker on a first start at boottime 0."""
    return Ticker(electrical, tick_s=tick_s, first_start=True, start=at(0.0), journal=journal)


def test_a_full_inbox_takes_nothing_and_says_so(electrical: Electrical, caplog: pytest.LogCaptureFixture) -> None:
    """The call that would overflow it is refused whole; after a tick there is room again. The log has both, once."""

    async def story() -> None:
        ticker = ticker_of(electrical)
        stamp = ev.StampSeen(evse=np.array([0]), incarnation=5, boottime_s=0.0)
        ticker.post(*[stamp] * (INBOX_EVENTS - 1))
        with pytest.raises(Overloaded, match="try again"):
            ticker.post(stamp, stamp)
        ticker.post(stamp)
        decision = await ticker.advance(at(1.0))
        assert len(decision.outcomes) == INBOX_EVENTS + 1  # the ticker's own word of it comes last
        assert decision.modes == (Trigger.OVERLOAD,)
        ticker.post(stamp, stamp)
        assert (await ticker.advance(at(2.0))).modes == ()

    asyncio.run(story())
    begun, over = [record.getMessage() for record in caplog.records if record.name == "powerd"]
    assert begun.startswith("inbox full: calls turned away; ")
    assert over == "inbox full: over"


def test_a_disk_that_refuses_stops_raises_and_answers_but_no_decrease(
    electrical: Electrical, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raises and acknowledgements wait for the disk, a decrease goes out in its tick; health hears of both ends."""

    def refuse(_journal: Journal, _entries: object, **_: object) -> int:
        raise JournalBroken("disk full")

    async def story() -> None:
        journal = Journal(tmp_path / "j", evse_ids=electrical.posts.ids)
        ticker = ticker_of(electrical, journal=journal)
        sink, serving = Heard(), list[bool]()
        ticker.sink, ticker.on_serving = sink, serving.append
        ticker.post(hello(0, 1.0))
        await ticker.advance(at(1.0))
        assert sink.raised[-1].raised.ceiling == pytest.approx([32.0], abs=1e-5)
        monkeypatch.setattr(Journal, "commit", refuse)
        answer = ticker.post(hello(1, 2.0))
        decision = await ticker.advance(at(2.0))
        assert decision.lowered.ceiling == pytest.approx([16.0], abs=1e-5)
        assert sink.lowered[-1] is decision
        assert decision not in sink.raised
        with pytest.raises(Unavailable, match="disk full"):
            await answer
        monkeypatch.undo()
        ticker.post(ev.StampSeen(evse=np.array([0]), incarnation=5, boottime_s=3.0))
        decision = await ticker.advance(at(3.0))
        assert decision.modes == (Trigger.DISK_FAILED,)
        assert serving == [False]
        decision = await ticker.advance(at(4.0))
        assert decision.modes == ()
        assert sink.raised[-1] is decision
        assert serving == [False, True]
        await ticker.close()

    asyncio.run(story())


def drawn(folder: Path, more: str = "") -> Electrical:
    """The site, with more in its file."""
    (folder / "site.yaml").write_text(site_text(2, 32.0) + more, encoding="utf-8")
    return load_site(folder / "site.yaml").must()


async def lived(electrical: Electrical, file: Path, start_s: float, *events: ev.Event) -> Decision:
    """The first tick of a daemon that starts with this journal, on the same boot whenever, and then ends."""
    journal = Journal(file, evse_ids=electrical.posts.ids)
    try:
        ticker = Ticker(electrical, tick_s=1.0, first_start=True, start=at(start_s), journal=journal, boot="the same")
    except EnvelopeUnheld:
        journal.close()
        raise
    ticker.post(*events)
    decision = await ticker.advance(at(start_s + 1.0))
    await ticker.close()
    return decision


def test_the_journal_names_the_terms_that_bind_the_ticks(tmp_path: Path) -> None:
    """Those of the daemon's own start: a replay with them decides the same, one without them says whose they were."""
    (tmp_path / "mine.py").write_text("def terms(site):\n    yield site.ceiling[0] <= 9\n", encoding="utf-8")
    own, without = drawn(tmp_path, "terms: [mine.py]\n"), drawn(tmp_path)

    async def story() -> None:
        ticker = ticker_of(own, journal=Journal(tmp_path / "j", evse_ids=own.posts.ids))
        ticker.post(hello(0, 1.0))
        assert (await ticker.advance(at(1.0))).ceiling[0] == pytest.approx(9.0, abs=1e-3)
        await ticker.close()

    asyncio.run(story())
    found = replay(tmp_path / "j", CompiledSite.of(own), verify=True)
    assert (found.fault, found.ticks, found.other_terms) == (None, 1, 0)
    with pytest.raises(ReplayRefused, match=r"other terms of users \(mine.py "):
        replay(tmp_path / "j", CompiledSite.of(without), verify=True)


def held_until(end_s: float) -> ev.EnvelopeSet:
    """A grid operator's 15 kW."""
    return ev.EnvelopeSet(
        request_id="",
        envelope_id="night",
        source="dso",
        reason="",
        import_limit_kw=15.0,
        start_time=None,
        end_time=datetime.fromtimestamp(end_s, UTC),
        heartbeat_s=np.inf,
    )


GRID = "grid_connection: {import_limit_kw: 60}\n"


def test_envelopes_that_the_site_file_can_no_longer_hold_refuse_the_start(tmp_path: Path) -> None:
    """Nothing would be lowered beside an envelope that is told to be in force. With the limit back, or once the window
    is over, it starts.
    """
    limited, unlimited = drawn(tmp_path, GRID), drawn(tmp_path)
    asyncio.run(lived(limited, tmp_path / "j", 10.0, held_until(100.0)))
    with pytest.raises(EnvelopeUnheld, match=r"import_limit_kw: .* night of dso \(15 kW\)\. Write the limit again"):
        asyncio.run(lived(unlimited, tmp_path / "j", 50.0))
    assert len(asyncio.run(lived(limited, tmp_path / "j", 60.0)).snapshot.envelopes) == 1
    assert asyncio.run(lived(unlimited, tmp_path / "j", 100.0)).snapshot.envelopes == ()


def test_a_restart_knows_that_the_machine_has_not(tmp_path: Path) -> None:
    """The boot is in the journal: the boottime at which a window ends stays what it was."""
    limited = drawn(tmp_path, GRID)
    before = asyncio.run(lived(limited, tmp_path / "j", 10.0, held_until(100.0)))
    after = asyncio.run(lived(limited, tmp_path / "j", 50.0))
    assert before.snapshot.envelopes[0].ends_s == after.snapshot.envelopes[0].ends_s == 100.0


def test_an_urgent_event_does_not_wait_for_the_tick(electrical: Electrical) -> None:
    """With a tick of 30 s a stop is decided at once; a storm of them makes at most 20 guard-only ticks a second."""

    async def story() -> None:
        ticker = ticker_of(electrical, tick_s=30.0)
        await ticker.advance(at(0.5))
        running = asyncio.create_task(ticker.run(SystemClock()))
        await asyncio.sleep(0.3)
        stop = ev.StopOrdered(request_id="", stop_id="s", element="F1", evse=np.array([0]), reason="smoke")
        began = time.monotonic()
        outcomes = await asyncio.wait_for(ticker.post(stop, urgent=True), 5)
        assert isinstance(outcomes[0], ev.Done)
        latest = ticker.latest()
        assert latest is not None
        ticks = latest.tick
        while time.monotonic() < began + 1.0:
            ticker.post(stop, urgent=True)
            await asyncio.sleep(0.002)
        latest = ticker.latest()
        assert latest is not None
        assert latest.tick - ticks <= 2 * 21  # each is followed by a full one
        running.cancel()

    asyncio.run(story())


def test_work_in_advance_waits_until_the_decreases_are_out(
    electrical: Electrical, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An urgent tick starts no plan; the full one that follows it does."""

    async def story() -> None:
        ticker = ticker_of(electrical, tick_s=30.0)
        await ticker.advance(at(0.5))
        sink = ticker.sink = Heard()
        begun: list[int] = []
        again = asyncio.Event()

        def begin(decision: Decision) -> None:
            begun.append(decision.tick)
            again.set()

        monkeypatch.setattr(ticker, "_plan_ahead", begin)
        running = asyncio.create_task(ticker.run(SystemClock()))
        await asyncio.sleep(0.3)
        stop = ev.StopOrdered(request_id="", stop_id="s", element="F1", evse=np.array([0]), reason="smoke")
        await asyncio.wait_for(ticker.post(stop, urgent=True), 5)
        urgent = sink.lowered[-1]
        assert urgent.path == "guard"
        assert urgent.tick not in begun
        again.clear()
        await asyncio.wait_for(again.wait(), 5)
        assert begun[-1] == urgent.tick + 1
        running.cancel()

    asyncio.run(story())


def test_a_late_solve_loses_no_tick_and_its_answer_is_used(
    electrical: Electrical, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A solve of two and a half periods: the guard decides each tick meanwhile, on time; then its want is granted."""

    async def story() -> None:
        ticker = ticker_of(electrical, tick_s=0.2)
        await ticker.advance(at(0.5))
        allocate, solves = ticker._stepper._allocator.allocate, []

        def slow(*arguments: Any) -> Allocation:
            solves.append(time.monotonic())
            time.sleep(0.5 if len(solves) == 3 else 0.0)
            return allocate(*arguments)

        monkeypatch.setattr(ticker._stepper._allocator, "allocate", slow)
        sink = ticker.sink = Heard()
        running = asyncio.create_task(ticker.run(SystemClock()))
        await asyncio.sleep(2.0)
        running.cancel()
        begun = [decision.now.boottime_s for decision in sink.raised]
        late = [Trigger.SOLVER_LATE in decision.modes for decision in sink.raised]
        assert 2 <= sum(late) <= 3
        first = late.index(True)
        answered = sink.raised[first + sum(late)]
        assert answered.path == "guard"  # nobody proves for this tick what was solved for another
        assert sink.raised[first + sum(late) + 1].path == "kernel"
        assert np.diff(begun).max() < 0.35
        assert len(begun) <= 2.0 / 0.2 + 3  # and no burst follows

    asyncio.run(story())


def test_an_urgent_event_is_decided_while_a_solve_runs(electrical: Electrical, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that comes into a solve of half a second is sent within 50 ms; what the solve found is thrown away."""

    async def story() -> None:
        ticker = ticker_of(electrical, tick_s=1.0)
        ticker.post(hello(0, 1.0))
        await ticker.advance(at(1.0))
        allocate, solving = ticker._stepper._allocator.allocate, threading.Event()

        def slow(*arguments: Any) -> Allocation:
            solving.set()
            time.sleep(0.5)
            return allocate(*arguments)

        monkeypatch.setattr(ticker._stepper._allocator, "allocate", slow)
        sink = ticker.sink = Heard()
        start = SystemClock().now().boottime_s - 1.5
        clock = Shifted(start)
        running = asyncio.create_task(ticker.run(clock))
        await asyncio.to_thread(solving.wait, 5)
        stop = ev.StopOrdered(request_id="", stop_id="s", element="F1", evse=np.array([0]), reason="smoke")
        began = time.monotonic()
        await asyncio.wait_for(ticker.post(stop, urgent=True), 5)
        assert time.monotonic() - began < 0.2
        assert sink.lowered[-1].lowered.ceiling.tolist() == [0.0]
        assert sink.lowered[-1].lowered.latched.tolist() == [True]
        assert sink.lowered[-1].path == "guard"
        running.cancel()

    asyncio.run(story())


class Solve:
    """The solves of a ticker, which wait from now on until the test lets them go on."""

    def __init__(self, ticker: Ticker, monkeypatch: pytest.MonkeyPatch) -> None:
        self._allocate = ticker._stepper._allocator.allocate
        self.begun, self.goes_on = threading.Event(), threading.Event()
        monkeypatch.setattr(ticker._stepper._allocator, "allocate", self._waits)

    def _waits(self, *arguments: Any) -> Allocation:
        self.begun.set()
        self.goes_on.wait(20)
        return self._allocate(*arguments)


async def overtaken(ticker: Ticker, solve: Solve, *calls: ev.Event) -> list[ev.Outcome]:
    """What each call is told that comes while a tick solves which has news of its own: a call before was turned away.

    The last one is urgent, so that the guard decides it with all that this tick has absorbed.
    """
    stamp = ev.StampSeen(evse=np.array([0]), incarnation=5, boottime_s=1.0)
    ticker.post(*[stamp] * daemon.INBOX_EVENTS)
    with pytest.raises(Overloaded):
        ticker.post(stamp)
    running = asyncio.create_task(ticker.run(Shifted(SystemClock().now().boottime_s - 1.5)))
    await asyncio.to_thread(solve.begun.wait, 20)
    answers = [ticker.post(call, urgent=call is calls[-1]) for call in calls]
    outcomes = [(await asyncio.wait_for(answer, 20))[0] for answer in answers]
    running.cancel()
    solve.goes_on.set()
    return outcomes


@pytest.mark.parametrize("waits_for", ["solve", "disk"])
def test_a_tick_whose_caller_has_gone_is_made_all_the_same(
    electrical: Electrical, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits_for: str
) -> None:
    """All that it had taken is answered and published, the next ticks come after it, and the daemon ends in order."""
    begun, answers, commit = threading.Event(), threading.Event(), Journal.commit

    def late(journal: Journal, entries: Sequence[Entry], *, lost: bool = False) -> int:
        begun.set()
        answers.wait(20)
        return commit(journal, entries, lost=lost)

    async def story() -> None:
        ticker = ticker_of(electrical, journal=Journal(tmp_path / "j", evse_ids=electrical.posts.ids))
        sink = ticker.sink = Heard()
        await ticker.advance(at(1.0))
        solve = Solve(ticker, monkeypatch) if waits_for == "solve" else None
        monkeypatch.setattr(Journal, "commit", late)
        told = ticker.post(hello(0, 2.0))
        advancing = asyncio.create_task(ticker.advance(at(2.0)))
        await asyncio.to_thread((begun if solve is None else solve.begun).wait, 20)
        advancing.cancel()
        await asyncio.wait((advancing,))
        following = asyncio.create_task(ticker.advance(at(3.0)))
        await asyncio.sleep(0.05)
        answers.set()
        if solve is not None:
            assert ticker._latest is not None
            assert ticker._latest.tick == 1  # never two steps at once
            solve.goes_on.set()
        assert (await asyncio.wait_for(told, 20)) == (ev.Done(),)
        assert (await asyncio.wait_for(following, 20)).tick == 3
        assert [decision.tick for decision in sink.raised] == [1, 2, 3]
        assert sink.raised[1].raised.ceiling == pytest.approx([32.0], abs=1e-5)
        await ticker.close()

    asyncio.run(story())


@pytest.mark.parametrize("refused", [Overloaded("full"), Unavailable("disk full")])
def test_a_plan_that_is_not_taken_is_no_mistake(
    electrical: Electrical, monkeypatch: pytest.MonkeyPatch, refused: Exception
) -> None:
    """A full inbox or a disk that refuses: no stack trace in the log for each of them, it is planned again."""

    class Work(PlanWork):
        def run(self, planner: Planner) -> PlansReady:
            return PlansReady(base="", entries=())

    async def refuses(*_: ev.Event) -> tuple[ev.Outcome, ...]:
        raise refused

    async def story() -> None:
        ticker = ticker_of(electrical)
        monkeypatch.setattr(ticker, "post", refuses)
        decision = await ticker.advance(at(1.0))
        gear = decision.snapshot.gear
        question = question_of(electrical, gear, np.zeros(2), 1.0)
        await ticker._planned(Work(electrical=electrical, question=question, ahead=False))

    asyncio.run(story())


def test_a_mistake_in_publishing_ends_the_daemon(electrical: Electrical, tmp_path: Path) -> None:
    """Else it would tick on for ever, and nobody would be answered again; a supervisor starts it anew."""

    class Mistaken(Heard):
        def publish_raised(self, decision: Decision) -> None:
            raise ZeroDivisionError(decision.tick)

    async def story() -> None:
        ticker = ticker_of(electrical, tick_s=0.3, journal=Journal(tmp_path / "j", evse_ids=electrical.posts.ids))
        await ticker.advance(at(1.0))
        ticker.sink = Mistaken()
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(ticker.run(Shifted(SystemClock().now().boottime_s - 2.0)), 20)
        with pytest.raises(ZeroDivisionError):
            await ticker.close()
        Journal(tmp_path / "j", evse_ids=electrical.posts.ids).close()  # it was closed all the same

    asyncio.run(story())


def test_the_end_waits_for_a_tick_that_is_under_way(
    electrical: Electrical, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller has gone, as callers do when the server stops: the tick is in the journal that is closed after it."""

    async def story() -> None:
        ticker = ticker_of(electrical, journal=Journal(tmp_path / "j", evse_ids=electrical.posts.ids))
        solve = Solve(ticker, monkeypatch)
        ticker.post(hello(0, 1.0))
        advancing = asyncio.create_task(ticker.advance(at(1.0)))
        await asyncio.to_thread(solve.begun.wait, 20)
        advancing.cancel()
        closing = asyncio.create_task(ticker.close())
        await asyncio.sleep(0.05)
        solve.goes_on.set()
        await closing

    asyncio.run(story())
    found = Journal(tmp_path / "j", evse_ids=electrical.posts.ids).recover(ticker_of(electrical)._snapshot)
    assert found is not None
    assert found.tick == 1


STOP = ev.StopOrdered(request_id="", stop_id="s", element="F1", evse=np.array([0]), reason="smoke")


def test_each_caller_is_told_what_became_of_his_own_call(
    electrical: Electrical, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the guard overtakes a tick that had news of its own, which no caller waits for."""

    async def story() -> None:
        ticker = ticker_of(electrical, tick_s=30.0)
        await ticker.advance(at(1.0))
        withdrawn = ev.EnvelopeWithdrawn(request_id="", envelope_id="none", reason="")
        released = ev.StopReleased(request_id="", stop_id="nobody", reason="")
        told = await overtaken(ticker, Solve(ticker, monkeypatch), withdrawn, released, STOP)
        assert told == [ev.NotFound("envelope 'none'"), ev.NotFound("stop 'nobody'"), ev.Done("s", (0,))]

    monkeypatch.setattr(daemon, "INBOX_EVENTS", 10)
    asyncio.run(story())


def test_a_full_inbox_is_told_also_where_the_guard_overtakes_the_tick(
    electrical: Electrical, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What begins in a decision does not end in it, however little came after; it ends with the one after it."""

    async def story() -> None:
        ticker = ticker_of(electrical, tick_s=30.0)
        await ticker.advance(at(1.0))
        sink = ticker.sink = Heard()
        await overtaken(ticker, Solve(ticker, monkeypatch), STOP)
        assert Trigger.OVERLOAD in sink.lowered[0].modes
        assert Trigger.OVERLOAD not in (await ticker.advance(at(3.0))).modes

    monkeypatch.setattr(daemon, "INBOX_EVENTS", 10)
    asyncio.run(story())


def test_who_follows_misses_no_tick_before_he_looks(electrical: Electrical) -> None:
    """He follows from when he says so: what was decided while he was still writing the picture before is there."""

    async def story() -> None:
        ticker = ticker_of(electrical)
        await ticker.advance(at(1.0))
        newer = ticker.follow()
        await ticker.advance(at(2.0))
        assert (await asyncio.wait_for(anext(newer), 5)).tick == 2

    asyncio.run(story())


def test_a_full_inbox_still_takes_what_is_urgent(electrical: Electrical) -> None:
    """Stops and trips have room of their own: one is taken and answered where another call is turned away."""

    async def story() -> None:
        ticker = ticker_of(electrical)
        stamp = ev.StampSeen(evse=np.array([0]), incarnation=5, boottime_s=0.0)
        ticker.post(*[stamp] * INBOX_EVENTS)
        with pytest.raises(Overloaded):
            ticker.post(STOP)
        answer = ticker.post(STOP, urgent=True)
        await ticker.advance(at(1.0))
        assert (await answer)[0] == ev.Done("s", (0,))

    asyncio.run(story())


def test_a_stop_finds_everything_below_an_element(electrical: Electrical) -> None:
    """By EVSE, bus, branch, supply, controller and site; None for what is not there."""
    ticker = ticker_of(electrical)
    assert ticker.below("P1") == (1,)
    assert ticker.below("c0") == (0,)
    for element in ("F1", "panel", "main", "grid", "garage"):
        assert ticker.below(element) == (0, 1)
    assert ticker.below("nothing") is None


@pytest.mark.parametrize(("tick_s", "told"), [(11.0, False), (11.25, True)])
def test_a_tick_that_leases_do_not_outlive_is_told(
    tick_s: float, told: bool, electrical: Electrical, caplog: pytest.LogCaptureFixture
) -> None:
    """A lease of 15 s is counted from a report that may be 3.75 s old when the tick answers it."""
    _tell_tick(tick_s, electrical)
    assert ("end before they are renewed" in caplog.text) is told
