"""Posts that connect L1 alone under lost messages, slow contactors and restarts: what could flow, for both beliefs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.control import events as ev
from powerd.control import turns
from powerd.control.absorb import absorb
from powerd.control.decision import GrantBatch
from powerd.control.phase_switch import Patience
from powerd.control.step import Stepper
from powerd.limits import Bools, Floats
from powerd.state.columns import replace
from powerd.state.hello import Said
from powerd.state.snapshot import reopen_snapshot
from tests.control.garage import TTL, Player, instant, site_text

POSTS, LIMIT_A = 4, 15.0
QUICK = Patience(waits_s=3.0, roomy_s=3.0, between_s=8.0, confirm_s=12.0)
TURNED = ("l123", "l231", "l312")


@dataclass
class Post:
    """The truth at one post, by the rules of docs/protocol.md."""

    accepted: tuple[int, int] = (0, 0)
    ceiling: float = 0.0
    one: bool = False
    """What its contactor connects, or did before it began to move."""
    moving_to: bool | None = None
    arrives_s: float = 0.0
    heard_s: float = 0.0
    """When its lease was last made or renewed."""
    proved: bool = False
    """It took a grant for L1 alone, and every grant sent since was one, too."""


@dataclass
class Hall(Player):
    """A garage whose messages may be lost on both ways, and whose contactors take their time."""

    posts: list[Post] = field(default_factory=lambda: [Post() for _ in range(POSTS)])
    deaf: set[int] = field(default_factory=set)
    """Posts that get no message."""
    mute: set[int] = field(default_factory=set)
    """Posts whose acks are lost."""
    voided: set[int] = field(default_factory=set)
    """Posts whose plug changed since the last tick: what it granted was for another car."""
    slow_s: float = 2.0

    def takes(self, batch: GrantBatch) -> Bools:
        """Grants arrive; who acks them says what is true."""
        told = np.ones(batch.evse.shape, np.bool_)
        for row, evse in enumerate(batch.evse.tolist()):
            one, post = bool(batch.one_phase[row]), self.posts[evse]
            post.proved &= one
            told[row] = evse not in self.deaf | self.voided and (batch.epoch, batch.seq) > post.accepted
            if not told[row]:
                continue
            post.accepted, post.heard_s = (batch.epoch, batch.seq), self.now_s
            if one != post.one or post.moving_to is not None:
                post.ceiling = 0.0
                if post.moving_to != one:
                    post.moving_to, post.arrives_s = one, self.now_s + self.slow_s
                told[row] = False
                continue
            post.ceiling, post.proved = float(batch.ceiling[row]), one
        mute = np.isin(batch.evse, list(self.mute))
        self.forgotten = batch.evse[~told & ~mute]
        return told & ~mute

    forgotten: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Who missed something and will ask."""

    def arrive(self) -> list[int]:
        """Contactors that are there; their posts ask for their grants again."""
        found = []
        for evse, post in enumerate(self.posts):
            if post.moving_to is not None and self.now_s >= post.arrives_s:
                post.one, post.moving_to = post.moving_to, None
                found.append(evse)
        return found

    def readings(self) -> ev.Measured:
        """Every car draws its ceiling, on what its post has connected."""
        drawn = np.array([[post.ceiling, *[post.ceiling * (not post.one)] * 2] for post in self.posts])
        return ev.Measured(evse=np.arange(len(self.posts)), drawn=drawn)

    def expire(self) -> None:
        """Who has the newest named grant is renewed; the others' leases end."""
        newest = self.snapshot.leases.explicit_seq
        for evse, post in enumerate(self.posts):
            if evse not in self.deaf and post.accepted[1] >= newest[evse]:
                post.heard_s = self.now_s
            elif self.now_s - post.heard_s >= TTL:
                post.ceiling = 0.0

    def could_flow(self, amps: Floats, alone: list[bool]) -> Floats:
        """(3,) of the feeder, with ``amps`` (n,) on L1 of the posts ``alone``, on all phases of the others [A]."""
        total = np.zeros(3)
        for evse, (most, one) in enumerate(zip(amps.tolist(), alone, strict=True)):
            total += most * (np.arange(3) == evse % 3 if one else np.ones(3))
        return total


def opened(path: Path, *, detects: bool = False) -> Hall:
    """Four posts on 15 A, each hung a phase further; a car at each."""
    able = f"max_current_a: 32, switches_phases: true{', detects_phases: true' if detects else ''}"
    text = site_text(POSTS, LIMIT_A).replace("max_current_a: 32", able)
    for k in range(POSTS):
        text = text.replace(f"{{id: P{k}, type: t}}", f"{{id: P{k}, type: t, rotation: {TURNED[k % 3]}}}")
    found = Player.open(path, text)
    hall = Hall(found.site, found.snapshot, Stepper(found.site, QUICK))
    for k in range(POSTS):
        hall.plug(k)
    greet(hall, 0)
    greet(hall, 1)
    return hall


def greet(hall: Hall, controller: int) -> None:
    """A hello, of a new process if the last one was heard already; its posts say what they offer, and for what."""
    hall.hello(controller, highest_epoch=max(post.accepted[0] for post in hall.posts))
    said = hall.news.pop()
    assert isinstance(said, ev.HelloReceived)
    posts = [hall.posts[i] for i in said.evse.tolist()]
    ceiling = np.array([post.ceiling for post in posts])
    hall.news.append(
        replace(
            said,
            ceiling=ceiling,
            remaining_s=np.where(ceiling > 0, 15.0, 0.0),
            switches=np.ones(len(posts), np.bool_),
            one_phase=np.array([post.one for post in posts]),
        )
    )


def leave_or_come(hall: Hall, evse: int) -> None:
    """A plug changes; unplugging voids the lease."""
    hall.plug(evse, evse not in hall.plugged)
    hall.voided.add(evse)
    if evse not in hall.plugged:
        hall.posts[evse].ceiling = 0.0


def restart(hall: Hall) -> None:
    """The daemon dies and goes on with its journal; its controllers connect again."""
    hall.snapshot = reopen_snapshot(hall.snapshot, hall.site.terms, instant(hall.now_s))
    hall.decision = None
    greet(hall, 0)
    greet(hall, 1)


def test_a_fallback_beside_it_counts_where_a_minimum_does_not_fit(tmp_path: Path) -> None:
    """20 A: beside 16 A of a one-phase post on L2, which it may fall back to, three phases have no room for 6 A."""
    able, one = "max_current_a: 32, switches_phases: true", "{id: one, phases: '1', max_current_a: 32, fallback_a: 16}"
    text = site_text(2, 20.0).replace("max_current_a: 32", able).replace("evse_types: [", f"evse_types: [{one}, ")
    found = Player.open(tmp_path, text.replace("{id: P1, type: t}", "{id: P1, type: one, connection: l2}"))
    posts = [Post(), Post()]
    hall = Hall(found.site, found.snapshot, Stepper(found.site, QUICK), posts=posts)
    hall.plug(1)
    greet(hall, 0)
    greet(hall, 1)
    best = 0.0
    for second in range(200):
        if second == 20:
            hall.plug(0)
        wanted = np.union1d(hall.arrive(), hall.forgotten).astype(np.int64)
        decision = hall.tick(ev.FreshWanted(evse=wanted), hall.readings())
        hall.expire()
        best = max(best, float(decision.ceiling[0]))
    assert hall.snapshot.contactors.one[0]
    assert best >= 6.0


ACTIONS = st.tuples(
    st.sampled_from(["swap", "swap", "plug", "deaf", "mute", "hello", "slow", "restart"]), st.integers(0, POSTS - 1)
)


def act(hall: Hall, name: str, target: int) -> None:
    """One happening."""
    if name in {"deaf", "mute"}:
        group = hall.deaf if name == "deaf" else hall.mute
        group ^= {target}
    elif name in {"plug", "swap"}:
        leave_or_come(hall, target)
        for _ in range(8 if name == "swap" else 0):
            tick(hall)
        if name == "swap":
            leave_or_come(hall, target)
    elif name == "hello":
        greet(hall, target % 2)
    elif name == "slow":
        hall.slow_s = (0.0, 2.0, 9.0, 40.0)[target]
    else:
        restart(hall)


def tick(hall: Hall) -> None:
    """A second, and what must hold in it."""
    wanted = np.union1d(hall.arrive(), hall.forgotten).astype(np.int64)
    decision = hall.tick(ev.FreshWanted(evse=wanted[~np.isin(wanted, list(hall.deaf))]), hall.readings())
    hall.expire()
    hall.voided.clear()
    granted_one = decision.snapshot.contactors.one.tolist()
    proved = [post.proved and one for post, one in zip(hall.posts, granted_one, strict=True)]
    assert np.all(hall.could_flow(decision.worst, proved) <= LIMIT_A + 1e-6), "where nothing is proved: for both"
    offered = np.array([post.ceiling for post in hall.posts])
    assert np.all(hall.could_flow(offered, [post.one for post in hall.posts]) <= LIMIT_A + 1e-6), "at the posts"
    assert not decision.overshoots


@settings(max_examples=30, deadline=None)
@given(story=st.lists(st.tuples(ACTIONS, st.integers(1, 12)), min_size=6, max_size=14))
def test_no_row_is_above_its_limit_for_either_belief(
    tmp_path_factory: pytest.TempPathFactory, story: list[tuple[tuple[str, int], int]]
) -> None:
    """Whatever is lost, late or restarted: with every post on L1 alone only once it has taken a grant for that, and on
    all phases from the first grant for them, W is within the limit on each phase; so is what the posts really offer;
    and no switch makes an overshoot.
    """
    hall = opened(tmp_path_factory.getbasetemp())
    with pytest.MonkeyPatch.context() as patch:  # turns as quick as the switches
        for name, seconds in (("MIN_ON_S", 4.0), ("MIN_OFF_S", 4.0), ("ROTATION_S", 15.0)):
            patch.setattr(turns, name, seconds)
        for _ in range(40):
            tick(hall)
        for (what, target), lasts in story:
            act(hall, what, target)
            for _ in range(lasts):
                tick(hall)


@pytest.fixture
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hall:
    """A hall in which three posts have gone to L1 alone, and proved it."""
    for name, seconds in (("MIN_ON_S", 4.0), ("MIN_OFF_S", 4.0), ("ROTATION_S", 15.0)):
        monkeypatch.setattr(turns, name, seconds)
    hall = opened(tmp_path)
    for _ in range(40):
        tick(hall)
    assert hall.snapshot.contactors.proved.tolist() == [False, True, True, True]
    return hall


def test_what_a_post_does_by_itself_it_does_on_all_phases(settled: Hall) -> None:
    """A controller that now speaks of a fallback ends the proofs of its posts: they count on all phases at once."""
    for i in (1, 3):
        settled.posts[i].ceiling = 0.0
    greet(settled, 1)
    said = settled.news.pop()
    assert isinstance(said, ev.HelloReceived)
    unsaid = np.full(2, np.nan)
    configured = Said(fallback=np.full(2, 12.0), fallback_idle=unsaid, boot_current=unsaid, watchdog_s=unsaid)
    settled.news.append(replace(said, said=configured))
    decision = settled.tick(settled.readings())
    assert decision.snapshot.contactors.proved.tolist() == [False, False, True, False]
    could = settled.could_flow(decision.worst, [False, False, True, False])
    assert could.max() > LIMIT_A
    assert {one.limit for one in decision.overshoots} == {
        f"phase L{k} of feeder F1" for k in (1, 2, 3) if could[k - 1] > 15
    }


@pytest.mark.parametrize("same", [False, True], ids=["another", "same"])
def test_a_program_that_asks_by_single_calls_knows_of_no_phases(settled: Hall, same: bool) -> None:
    """It takes a post over from a stream that had switched it to L1, maybe its own: that counts, and is granted, on all
    phases.
    """
    one = np.array([1])
    incarnation = int(settled.snapshot.leases.echo_incarnation[1]) if same else 999
    call = ev.CallReceived(
        seen=ev.StampSeen(evse=one, incarnation=incarnation, boottime_s=settled.now_s),
        plug=ev.PlugChanged(evse=one, plugged=np.ones(1, np.bool_), plug_boottime_s=np.zeros(1)),
        ack=None,
    )
    news: list[ev.Event] = [ev.StreamClosed(evse=one), call]
    heard = absorb(settled.site, settled.snapshot, news, instant(settled.now_s)).snapshot.contactors
    assert heard.able.tolist() == [True, False, True, True]
    assert heard.proved.tolist() == [False, False, True, True]


def test_a_reading_on_other_phases_counts_at_once_when_the_guard_decides(settled: Hall) -> None:
    """In the first tick with it, whether a solve is late or not, its post counts on all phases, and an alarm tells."""
    shown = settled.readings()
    shown.drawn[1] = 9.0
    decision = settled.tick(shown, ev.SolveSkipped())
    assert decision.snapshot.contactors.proved.tolist() == [False, False, True, True]
    assert any("P1 draws on more than L1" in alarm for alarm in decision.alarms)


def test_what_is_seen_on_l1_alone_says_nothing_of_the_car(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Posts that find out a car's phases, too: after the way back it counts on all of them from the first grant on."""
    for name, seconds in (("MIN_ON_S", 4.0), ("MIN_OFF_S", 4.0), ("ROTATION_S", 15.0)):
        monkeypatch.setattr(turns, name, seconds)
    hall = opened(tmp_path, detects=True)
    for _ in range(100):
        tick(hall)
    assert hall.snapshot.contactors.one.any()
    for k in (0, 3):
        leave_or_come(hall, k)
    for _ in range(60):
        tick(hall)
    assert not hall.snapshot.contactors.one.any()
    assert [post.ceiling for post in hall.posts] == pytest.approx([0.0, 7.5, 7.5, 0.0])


def test_what_was_seen_under_another_leader_says_nothing_of_the_car(tmp_path: Path) -> None:
    """A hello that offers on L1 alone what we granted for all phases ends what was found out of its cars' phases."""
    hall = opened(tmp_path, detects=True)
    tick(hall)
    hall.snapshot = replace(hall.snapshot, phases=replace(hall.snapshot.phases, used=np.full(POSTS, 1)))
    hall.posts[1].one, hall.posts[1].ceiling = True, 3.0
    greet(hall, 1)
    used = hall.tick(hall.readings()).snapshot.phases.used
    assert used.tolist() == [1, 0, 1, 1]
