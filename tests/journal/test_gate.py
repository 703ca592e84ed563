"""What leaves before the disk has it, what when it has answered: properties over any order of ticks and answers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.control.decision import Decision, GrantBatch, Renewal
from powerd.control.events import FreshWanted, TroubleBegan, TroubleEnded
from powerd.control.switching import SwitchOrder
from powerd.journal.gate import Gate, Leaving
from powerd.limits import Floats
from powerd.state.impaired import Trigger
from powerd.units import Now
from tests.control.garage import Player, site_text

POSTS, OWNER = 3, np.array([0, 1, 0])
SLOW_S = 0.5
NO_SEQ = 0


@cache
def _made() -> Decision:
    """Of a site of three posts: the frame for all that is made up here."""
    with TemporaryDirectory() as folder:
        return Player.open(Path(folder), site_text(POSTS, 32.0)).tick()


class Said(NamedTuple):
    """What a tick says of one EVSE."""

    word: str
    """lower, raise, keep, or void: another car, whose lease does not count any more."""
    ceiling: float
    more: float
    """By how much W lies above the newest ceiling."""


def _batch(epoch: int, seq: int, entries: list[tuple[int, float]]) -> GrantBatch:
    count = len(entries)
    return GrantBatch(
        epoch=epoch,
        seq=seq,
        evse=np.array([i for i, _ in entries], np.int64),
        ceiling=np.array([ceiling for _, ceiling in entries]),
        latched=np.zeros(count, np.bool_),
        one_phase=np.zeros(count, np.bool_),
        ttl_s=np.full(count, 15.0),
        echo_incarnation=np.ones(count, np.int64),
        echo_boottime_s=np.zeros(count),
    )


Tick = tuple[tuple[Said, ...], frozenset[int], bool]
"""What it says of each EVSE, the controllers it renews, whether its epoch is a new one."""


class Story:
    """A gate between made-up ticks and a disk; keeps what has left, and checks every piece of it."""

    def __init__(self) -> None:
        self.gate = Gate(OWNER, np.full(POSTS, 8.0), SLOW_S, epoch=1)
        self.epoch = self.durable_epoch = 1
        self.sent: Floats = np.full(POSTS, 8.0)
        self.states: list[Floats] = [np.full(POSTS, 8.0)]
        """W of the last durable state, then of all ticks that wait: each may be the last durable one."""
        self.unsure: list[Floats] = []
        """W of ticks that were refused or given up since then: each may be, too."""
        self.ticks: list[Decision] = []
        self.waiting: list[int] = []
        self.durable: set[int] = set()
        self.refused: set[int] = set()
        self.lowered_left: list[tuple[int, int]] = []
        """(tick, EVSE) of each decrease that left, in order."""
        self.raised_left: list[tuple[int, int]] = []
        self.renewed_left: list[tuple[int, int]] = []
        """(tick, controller)."""
        self.again: list[tuple[int, int]] = []
        """(tick, EVSE) of each that was to be named again."""

    def decide(self, said: tuple[Said, ...], renewed: frozenset[int], *, ahead: bool = False) -> None:
        """One more tick, a second after the one before, maybe of a new epoch; what troubles the disk is told first."""
        tick = len(self.ticks)
        self.epoch += ahead
        news = self.gate.news(float(tick))
        self.again += [(tick, int(i)) for event in news if isinstance(event, FreshWanted) for i in event.evse]
        named = {"lower": [], "raise": []}  # type: dict[str, list[tuple[int, float]]]
        for i, (word, ceiling, _) in enumerate(said):
            if word in named:
                named[word].append((i, ceiling))
                self.sent[i] = ceiling
            elif word == "void":
                self.sent[i] = np.nan
        worst = np.nan_to_num(self.sent) + np.array([one.more for one in said])
        book = replace(_made().snapshot.leases, epoch=self.epoch, sent_ceiling=self.sent.copy())
        decision = replace(
            _made(),
            tick=tick,
            now=Now(utc=_made().now.utc, boottime_s=float(tick)),
            snapshot=replace(_made().snapshot, leases=book),
            lowered=_batch(self.epoch, 3 * tick + 1, named["lower"]),
            raised=_batch(self.epoch, 3 * tick + 2, named["raise"]),
            renewal=Renewal(epoch=self.epoch, seq=3 * tick + 3, controller=np.array(sorted(renewed), np.int64)),
            worst=worst,
        )
        self.ticks.append(decision)
        self._left(self.gate.decided(decision))
        self.states.append(worst)
        self.waiting.append(tick)

    def answered(self, *, took: bool | None) -> None:
        """The disk's answer for the oldest tick that waits, if one does; None = none came, and it is given up."""
        if not self.waiting:
            return
        tick, worst = self.waiting.pop(0), self.states.pop(1)
        if took:
            self.unsure = []
            self.states[0], self.durable_epoch = worst, self.ticks[tick].snapshot.leases.epoch
            self.durable.update(range(tick + 1))
            self._left(self.gate.took())
        else:
            self.refused.add(tick)
            self.unsure += [worst]
            self._left(self.gate.refused())

    def _left(self, leaving: Leaving) -> None:
        least = np.minimum.reduce([*self.states, *self.unsure])
        for part in (*leaving.lowered, *leaving.raised):  # R4: an epoch is durable before anything of it leaves
            leaves = part.lowered.evse.size if part in leaving.lowered else part.raised.evse.size
            renews = part in leaving.raised and part.renewal.controller.size
            assert not (leaves or renews) or part.snapshot.leases.epoch <= self.durable_epoch
        for part in leaving.lowered:
            self._bounded(part, part.lowered, least)
            self.lowered_left += [(part.tick, int(i)) for i in part.lowered.evse]
        for part in leaving.raised:
            self._bounded(part, part.raised, least)
            self.raised_left += [(part.tick, int(i)) for i in part.raised.evse]
            self._renewed(part)
            self.renewed_left += [(part.tick, int(c)) for c in part.renewal.controller]

    def _bounded(self, part: Decision, batch: GrantBatch, least: Floats) -> None:
        """What leaves before the disk has its tick is below W of every state that may be the last durable one."""
        if part.tick not in self.durable:
            assert np.all(batch.ceiling <= least[batch.evse] + 1e-6)

    def _renewed(self, part: Decision) -> None:
        """What its tick or an earlier one named last has left, at a controller that is renewed: else it never counts.

        But for what the disk refused, which is named again, and the lease of a car that is gone.
        """
        for i in np.flatnonzero(np.isin(OWNER, part.renewal.controller)).tolist():
            named = [d.tick for d in self.ticks[: part.tick + 1] for b in (d.lowered, d.raised) if i in b.evse]
            if named and not np.isnan(part.snapshot.leases.sent_ceiling[i]) and named[-1] not in self.refused:
                assert (named[-1], i) in {*self.lowered_left, *self.raised_left}

    def end(self) -> None:
        """The disk is well again, and takes all that waits."""
        self.decide((Said("keep", 0.0, 0.0),) * POSTS, frozenset())
        while self.waiting:
            self.answered(took=True)
        self.decide((Said("keep", 0.0, 0.0),) * POSTS, frozenset())


_CEILING = st.sampled_from([6.0, 8.0, 16.0])
_SAID = st.builds(Said, st.sampled_from(["keep", "lower", "raise", "void"]), _CEILING, st.sampled_from([0, 4]))
_TICK = st.tuples(
    st.tuples(*[_SAID] * POSTS),
    st.frozensets(st.sampled_from([0, 1])),
    st.sampled_from([False] * 7 + [True]),
)
_ACTS = st.lists(st.one_of(_TICK, _TICK, st.sampled_from([True, False, None])), min_size=4, max_size=16)


@settings(max_examples=300)
@given(acts=_ACTS)
def test_whatever_the_disk_does_nothing_is_lost_or_overtaken(acts: list[Tick | bool | None]) -> None:
    """Each decrease leaves once, each raise once or its EVSE is named again; on the way see ``Story``."""
    story = Story()
    for act in acts:
        if act is None or isinstance(act, bool):
            story.answered(took=act)
        else:
            said, renewed, ahead = act
            story.decide(said, renewed, ahead=ahead)
    story.end()
    assert sorted(story.lowered_left) == [(d.tick, i) for d in story.ticks for i in d.lowered.evse.tolist()]
    assert len(set(story.raised_left)) == len(story.raised_left)
    for decision in story.ticks:
        for i in decision.raised.evse.tolist():
            named_again = any(tick > decision.tick and evse == i for tick, evse in story.again)
            assert (decision.tick, i) in story.raised_left or named_again


def _told(word: str, ceiling: float) -> tuple[Said, ...]:
    """Of the first EVSE; nothing of the others."""
    return (Said(word, ceiling, 0.0), *(Said("keep", 0.0, 0.0),) * (POSTS - 1))


def test_a_decrease_that_a_restart_covers_waits_for_no_disk() -> None:
    """However many ticks wait, and after refusals too."""
    story = Story()
    for tick, ceiling in enumerate((8.0, 6.0, 0.0)):
        story.decide(_told("lower", ceiling), frozenset())
        assert story.lowered_left[-1] == (tick, 0)
        story.answered(took=False)


@pytest.mark.parametrize("took", [True, False])
def test_of_a_raise_that_waits_either_all_leaves_or_it_is_named_again(took: bool) -> None:
    """Taken it leaves as it was decided; refused it never does, and the next tick is told to name the EVSE."""
    story = Story()
    story.decide(_told("raise", 16.0), frozenset({0}))
    assert story.raised_left == []
    story.answered(took=took)
    assert story.raised_left == ([(0, 0)] if took else [])
    story.decide(_told("keep", 0.0), frozenset())
    assert story.again == ([] if took else [(1, 0)])
    story.decide(_told("keep", 0.0), frozenset())
    assert story.again == ([] if took else [(1, 0)])


def test_trouble_is_told_once_and_ends_with_the_disk() -> None:
    """With up to where a restart covers; a refusal is told at once, slowness after its time."""
    story = Story()
    story.decide(_told("raise", 16.0), frozenset())
    assert story.gate.news(SLOW_S) == []
    (slow,) = story.gate.news(SLOW_S + 0.1)
    assert isinstance(slow, TroubleBegan)
    assert slow.trigger is Trigger.DISK_SLOW
    assert slow.cap is not None
    assert slow.cap.tolist() == [8.0] * POSTS
    story.answered(took=False)
    failed, over, again = story.gate.news(SLOW_S + 0.2)
    assert isinstance(failed, TroubleBegan)
    assert isinstance(over, TroubleEnded)
    assert (failed.trigger, over.trigger) == (Trigger.DISK_FAILED, Trigger.DISK_SLOW)
    assert isinstance(again, FreshWanted)
    assert story.gate.troubled
    story.decide(_told("keep", 0.0), frozenset())
    story.answered(took=True)
    (over,) = story.gate.news(9.0)
    assert over == TroubleEnded(trigger=Trigger.DISK_FAILED)
    assert not story.gate.troubled


def test_what_was_given_up_may_be_durable_until_a_later_tick_is() -> None:
    """A tick that voided a lease is given up: nothing above its W leaves, though no tick waits, until one is taken."""
    story = Story()
    story.decide(_told("void", 0.0), frozenset())
    story.answered(took=None)
    story.decide(_told("raise", 6.0), frozenset())
    assert story.gate.troubled
    assert story.raised_left == []
    story.answered(took=True)
    assert story.raised_left == [(1, 0)]


def test_nothing_of_an_epoch_leaves_before_it_is_durable() -> None:
    """R4: not even a decrease to zero, also when a tick of the epoch before is taken, or a renewal in trouble."""
    story = Story()
    story.decide(_told("keep", 0.0), frozenset())
    story.decide(_told("lower", 0.0), frozenset({0}), ahead=True)
    story.answered(took=True)
    assert story.lowered_left == []
    story.decide(_told("keep", 0.0), frozenset({0, 1}))
    assert story.gate.troubled
    assert story.renewed_left == []
    story.answered(took=True)
    assert story.lowered_left == [(1, 0)]
    assert story.renewed_left == [(1, 0), (2, 0), (2, 1)]


@pytest.mark.parametrize("took", [True, False])
def test_an_order_to_the_switchgear_leaves_once_and_after_the_disk(took: bool) -> None:
    """Also in trouble, when what a restart covers does not wait; refused it never leaves, and is given anew later."""
    gate = Gate(OWNER, np.full(POSTS, 32.0), SLOW_S, epoch=_made().snapshot.leases.epoch)
    order = SwitchOrder(
        order_id=1, branch=0, close=False, valid_s=5.0, echo_incarnation=1, echo_clock_s=0.0, reason="smoke"
    )
    gate.decided(_made())
    assert gate.news(_made().now.boottime_s + 2 * SLOW_S)
    before = gate.decided(replace(_made(), tick=_made().tick + 1, order=order))
    before = Leaving(lowered=before.lowered, raised=(*before.raised, *gate.took().raised))
    after = gate.took() if took else gate.refused()
    assert [part.order for part in before.raised if part.order is not None] == []
    assert [part.order for part in after.raised if part.order is not None] == ([order] if took else [])


def test_a_renewal_leaves_with_the_grant_before_it() -> None:
    """A raise within what a restart covers waits for a disk that seems well; when it does not, both leave, in order."""
    story = Story()
    story.decide(_told("raise", 6.0), frozenset())
    assert story.raised_left == []
    story.decide(_told("keep", 0.0), frozenset({0}))
    assert story.raised_left == [(0, 0)]
    assert story.renewed_left == [(1, 0)]


def test_a_decrease_that_a_newer_one_has_replaced_keeps_nobody_from_renewals() -> None:
    """A raise and a lowering wait above what is covered; the next one leaves, and leases go on meanwhile."""
    story = Story()
    story.decide(_told("raise", 32.0), frozenset())
    story.decide(_told("lower", 16.0), frozenset())
    story.decide(_told("lower", 8.0), frozenset())
    assert story.lowered_left == [(2, 0)]
    for tick in (3, 4):
        story.answered(took=False)
        story.decide(_told("keep", 0.0), frozenset({0}))
        assert story.renewed_left[-1] == (tick, 0)


def test_without_a_journal_nothing_waits() -> None:
    """A tick is taken as it comes, and what a restart would hold bounds nothing."""
    story = Story()
    story.gate = Gate(OWNER, np.full(POSTS, np.inf), SLOW_S, epoch=None)
    story.states[0] = np.full(POSTS, np.inf)
    story.decide(_told("lower", 16.0), frozenset())
    assert story.gate.took().raised == (story.ticks[0],)
    story.states[1:] = []
    story.decide(_told("lower", 32.0), frozenset())
    assert story.lowered_left == [(0, 0), (1, 0)]
    assert story.gate.news(100.0) == []
