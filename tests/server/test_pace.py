"""The streams' work is dealt out over the turns of the event loop; counted in turns."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine

import grpc.aio
from hypothesis import given
from hypothesis import strategies as st

from powerd.control.events import Event, StampSeen
from powerd.server.pace import PER_TURN, Pace
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb
from powerd.v1.controller_service_pb2_grpc import ControllerServiceStub
from tests.server.dialogue import hello, serving
from tests.server.fake import FakeCore, site_of
from tests.server.turns import CountingLoop


def in_turns(story: Coroutine[None, None, None], loop: CountingLoop) -> None:
    """Plays it on a loop that counts."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        loop.call_soon(loop.count)
        runner.run(story)


def test_a_turn_takes_its_number_of_grants_and_reports_in_turn() -> None:
    """Of 40 reports and 20 grants that want their turn at once each turn takes 6; from the second turn on, when all
    stand in the queue, 3 of each kind, then what is left of the one.
    """
    loop, pace, done = CountingLoop(), Pace(per_turn=6), list[tuple[int, str]]()

    async def one(kind: str) -> None:
        await (pace.grant(lambda: False) if kind == "grant" else pace.report())
        done.append((loop.turns, kind))

    async def story() -> None:
        await asyncio.gather(*(one(kind) for kind in ["report"] * 40 + ["grant"] * 20))

    in_turns(story(), loop)
    turns = [Counter(kind for turn, kind in done if turn == own) for own in sorted({turn for turn, _ in done})]
    shared = {"grant": 3, "report": 3}
    assert turns == [{"report": 6}, *[shared] * 6, {"grant": 2, "report": 4}, *[{"report": 6}] * 2]


@given(arrivals=st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_no_turn_takes_more_than_its_number(arrivals: list[int]) -> None:
    """However many come in each turn: those that waited for a turn count in it, with those that come in it."""
    loop, pace, done = CountingLoop(), Pace(per_turn=4), Counter[int]()

    async def one() -> None:
        await pace.report()
        done[loop.turns] += 1

    async def story() -> None:
        waiting: list[asyncio.Task[None]] = []
        for count in arrivals:
            waiting += [asyncio.ensure_future(one()) for _ in range(count)]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)

    in_turns(story(), loop)
    assert sum(done.values()) == sum(arrivals)
    assert max(done.values(), default=0) <= 4


def test_a_decrease_waits_for_nobody() -> None:
    """Behind 50 reports and 50 grants one that comes goes at once, and one that waits goes in the next turn."""
    loop, pace, lowered = CountingLoop(), Pace(per_turn=2), list[int]()
    turned = [False]

    async def waits() -> None:
        await pace.grant(lambda: turned[0])
        lowered.append(loop.turns)

    async def story() -> None:
        others = [asyncio.ensure_future(pace.report()) for _ in range(50)]
        others += [asyncio.ensure_future(pace.grant(lambda: False)) for _ in range(50)]
        waiting = asyncio.ensure_future(waits())
        await asyncio.sleep(0)
        before = loop.turns
        await pace.grant(lambda: True)
        assert loop.turns == before
        turned[0] = True
        await waiting
        assert lowered[0] <= before + 2
        assert not all(other.done() for other in others)
        await asyncio.gather(*others)

    in_turns(story(), loop)


def test_first_come_first_served_and_at_once_while_there_is_room() -> None:
    """Reports keep their order, over the turns; a single one waits for nothing."""
    loop, pace, done = CountingLoop(), Pace(per_turn=3), list[int]()

    async def one(number: int) -> None:
        await pace.report()
        done.append(number)

    async def story() -> None:
        await asyncio.gather(*map(one, range(20)))
        await asyncio.sleep(0)
        before = loop.turns
        await pace.report()
        assert loop.turns == before

    in_turns(story(), loop)
    assert done == list(range(20))


def test_a_stream_that_ended_keeps_nobody_waiting() -> None:
    """50 waiting readers are cancelled: the next one has its turn at once."""
    loop, pace = CountingLoop(), Pace(per_turn=1)

    async def story() -> None:
        gone = [asyncio.ensure_future(pace.report()) for _ in range(50)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        before = loop.turns
        await pace.report()
        assert loop.turns <= before + 2

    in_turns(story(), loop)


class _WhenCore(FakeCore):
    """Notes in which turn it was told of a stamp."""

    def __init__(self, loop: CountingLoop, streams: int) -> None:
        super().__init__(site_of(streams), eager=False)
        self.loop, self.when = loop, Counter[int]()

    def post(self, *events: Event, urgent: bool = False) -> asyncio.Future[tuple[object, ...]]:  # type: ignore[override]
        self.when[self.loop.turns] += any(isinstance(event, StampSeen) for event in events)
        return super().post(*events, urgent=urgent)  # type: ignore[return-value]


def test_a_hundred_streams_that_report_at_once_share_the_turns() -> None:
    """No turn of the loop takes more than its number of reports, and all are taken."""
    streams = 100
    loop = CountingLoop()
    core = _WhenCore(loop, streams)

    async def story() -> None:
        async with serving(core) as (_, channel):
            stub = ControllerServiceStub(channel)
            calls = [stub.Connect() for _ in range(streams)]
            for k, call in enumerate(calls):
                await call.write(hello(f"k{k}", (f"k{k}e",), incarnation=k + 1))
                assert (await call.read()) is not grpc.aio.EOF
            stamps = [pb_common.Stamp(incarnation=k + 1, boottime_s=51.0) for k in range(streams)]
            await asyncio.gather(
                *(
                    call.write(pb.ConnectRequest(report=pb.Report(stamp=stamp)))
                    for call, stamp in zip(calls, stamps, strict=True)
                )
            )
            await core.came(StampSeen, streams)

    in_turns(story(), loop)
    assert sum(core.when.values()) == streams
    assert max(core.when.values()) == PER_TURN
