"""The outbox merges and never drops; a renewal in it never extends a ceiling that something unsent has replaced.

The oracle is a reader who misses nothing: he applies every message of an outbox that is emptied after each step. A slow
reader, who takes what was merged meanwhile, must end with the same ceilings, and must at no moment hold a renewed
ceiling that the daemon did not mean by that renewal.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.server.outbox import PARTS_MAX, Lease, Outbox, Part, merge
from powerd.v1 import controller_service_pb2 as pb

SIZE = 4


@dataclass
class Reader:
    """A controller that trusts everything: per EVSE the ceiling it holds and the seq it holds it under."""

    ceiling: dict[int, float] = field(default_factory=dict)
    seq: dict[int, int] = field(default_factory=dict)
    renewed: dict[tuple[int, int], float] = field(default_factory=dict)
    messages: int = 0

    def read(self, messages: list[pb.ConnectResponse]) -> None:
        newest = 0
        for message in messages:
            if message.HasField("grants"):
                newest = self._grants(message.grants, newest)
            else:
                newest = self._renewal(message.renew_all, newest)
            self.messages += 1

    def _grants(self, grants: pb.Grants, newest: int) -> int:
        assert len(grants.index) == len(grants.ceiling) > 0
        assert grants.seq > newest
        assert grants.echo.boottime_s == grants.seq  # the stamp of its own decision, never a fresher one
        for i, ceiling in zip(grants.index, grants.ceiling, strict=True):
            assert grants.seq > self.seq.get(i, 0)
            self.ceiling[i], self.seq[i] = ceiling, grants.seq
            assert (i in grants.latched_index) == (ceiling == 0)
            assert (i in grants.one_phase_index) == (ceiling > 15)
        return grants.seq

    def _renewal(self, renewal: pb.RenewAll, newest: int) -> int:
        assert renewal.seq > newest
        assert renewal.count == self.messages
        for i, ceiling in self.ceiling.items():
            self.renewed[renewal.seq, i] = ceiling
        return renewal.seq


Step = dict[int, float] | str
STEPS = st.lists(
    st.one_of(
        st.dictionaries(st.integers(0, SIZE - 1), st.sampled_from([0.0, 6.0, 16.0, 32.0]), min_size=1),
        st.sampled_from(["renew", "take"]),
    ),
    max_size=40,
)


def _lease(seq: int) -> Lease:
    return Lease(epoch=1, seq=seq, ttl_s=15.0, incarnation=7, boottime_s=float(seq))


def _put(box: Outbox, step: Step, seq: int) -> None:
    if isinstance(step, dict):
        place = np.array(sorted(step), np.int64)
        ceiling = np.array([step[i] for i in sorted(step)])
        box.put(Part(lease=_lease(seq), place=place, ceiling=ceiling, latched=ceiling == 0, one_phase=ceiling > 15))
    elif step == "renew":
        box.renew(_lease(seq))


@settings(max_examples=400)
@given(STEPS)
def test_a_slow_reader_ends_where_a_fast_one_is(steps: list[Step]) -> None:
    """Same ceilings under the same seqs at the end; every renewal means for both the same ceilings."""

    async def play() -> None:
        prompt, slow = Outbox(SIZE), Outbox(SIZE)
        fast, late = Reader(), Reader()
        for seq, step in enumerate(steps, start=1):
            _put(prompt, step, seq)
            _put(slow, step, seq)
            fast.read(prompt.take())
            if step == "take":
                late.read(slow.take())
        late.read(slow.take())
        assert (late.ceiling, late.seq) == (fast.ceiling, fast.seq)
        for renewal, ceiling in late.renewed.items():
            assert fast.renewed[renewal] == ceiling
        assert slow.count == late.messages
        # The newest renewal is never lost.
        assert max(late.renewed, default=(0, 0))[0] == max(fast.renewed, default=(0, 0))[0]

    asyncio.run(play())


def test_a_stalled_stream_stays_small() -> None:
    """A thousand ticks unread, every twentieth of them a renewal: a handful of parts wait, one entry an EVSE a side."""

    async def play() -> None:
        box = Outbox(SIZE)
        for seq in range(1, 1001):
            _put(box, "renew" if seq % 20 == 0 else {seq % SIZE: float(seq), (seq + 1) % SIZE: float(seq)}, seq)
            assert len(box._before) <= PARTS_MAX
            assert len(box._after) <= PARTS_MAX
        messages = box.take()
        assert SIZE <= sum(len(message.grants.index) for message in messages) <= 2 * SIZE
        assert sum(message.HasField("renew_all") for message in messages) == 1

    asyncio.run(play())


def test_entries_before_a_renewal_are_not_merged_away_by_later_ones() -> None:
    """20 A was sent; 10 A waits, a renewal waits, 8 A waits: the renewal must not extend 20 A."""

    async def play() -> list[pb.ConnectResponse]:
        box = Outbox(1)
        _put(box, {0: 20.0}, 1)
        box.take()
        _put(box, {0: 10.0}, 2)
        _put(box, "renew", 3)
        _put(box, {0: 8.0}, 4)
        return box.take()

    lowered, renewal, again = asyncio.run(play())
    assert (list(lowered.grants.ceiling), renewal.renew_all.seq, list(again.grants.ceiling)) == ([10.0], 3, [8.0])


@pytest.mark.parametrize("stalled", [True, False])
def test_a_renewal_that_waited_for_the_disk_does_not_follow_a_newer_one(stalled: bool) -> None:
    """Tick 1 lowers and renews at once, tick 0 raised and renewed and waits: its renewal is over, its raise refused."""

    async def play() -> list[pb.ConnectResponse]:
        box, messages = Outbox(1), []
        _put(box, {0: 6.0}, 4)
        _put(box, "renew", 6)
        if not stalled:
            messages += box.take()
        _put(box, {0: 16.0}, 2)
        _put(box, "renew", 3)
        messages += box.take()
        assert box.count == len(messages)
        return messages

    told = [(one.grants.seq, list(one.grants.ceiling), one.renew_all.seq) for one in asyncio.run(play())]
    assert told == [(4, [6.0], 0), (0, [], 6), *([] if stalled else [(2, [16.0], 0)])]


def test_two_batches_of_one_lease_travel_together() -> None:
    """Lowered and raised entries under the same seq become one message, ascending by place."""
    parts = [
        Part(
            lease=_lease(5),
            place=np.array(p),
            ceiling=np.array(c),
            latched=np.zeros(len(p), np.bool_),
            one_phase=np.array(c) > 1.5,
        )
        for p, c in (([2, 3], [2.0, 3.0]), ([0], [1.0]))
    ]
    (joined,) = merge(parts, SIZE)
    assert joined.place.tolist() == [0, 2, 3]
    assert joined.ceiling.tolist() == [1.0, 2.0, 3.0]
    assert joined.one_phase.tolist() == [False, True, True]


def test_emptied_waits_until_everything_was_taken() -> None:
    """The stepped clock answers when grants are on their streams: `emptied` ends with `take`, not before."""

    async def play() -> None:
        box = Outbox(SIZE)
        await box.emptied()
        _put(box, {0: 6.0}, 1)
        waiting = asyncio.ensure_future(box.emptied())
        await asyncio.sleep(0)
        assert not waiting.done()
        box.take()
        await waiting

    asyncio.run(play())
