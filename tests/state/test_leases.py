"""The lease book against a controller that may lose, delay, reorder, restart: W covers what the EVSE could draw."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.limits import Controllers, Posts
from powerd.state import hello, leases
from powerd.state.hello import advance_epoch
from powerd.state.lease_book import HOLDS, SLOTS, LeaseBook, open_book
from powerd.state.lease_slots import insert_hold
from powerd.state.lease_terms import LeaseTerms
from powerd.state.readings import STEP, rounded_down

TTL, REACTION, WATCHDOG, DRIFT = 15.0, 5.0, 2.0, 1e-3
LIFE = TTL * (1 + DRIFT) + WATCHDOG + REACTION
ONE = np.array([0])


def terms(*, fallback: float = 0.0, watchdog: float = WATCHDOG, boot: float = 0.0) -> LeaseTerms:
    """One EVSE of 32 A."""
    return LeaseTerms(
        ttl_s=np.array([TTL]),
        life_s=np.array([np.inf if np.isnan(watchdog) else TTL * (1 + DRIFT) + watchdog + REACTION]),
        reaction_s=np.array([REACTION]),
        watchdog_s=np.array([watchdog]),
        has_watchdog=np.array([not np.isnan(watchdog)]),
        fallback=np.array([fallback]),
        fallback_idle=np.array([0.0]),
        boot=np.array([boot]),
        rating=np.array([32.0]),
    )


def book_of(own: LeaseTerms) -> LeaseBook:
    """A first start, already heard from."""
    book = open_book(own, epoch=1, unknown_until_s=-np.inf)
    return leases.stamp(book, ONE, 7, 0.0, 0.0)


def send(book: LeaseBook, own: LeaseTerms, ceiling: float, now_s: float) -> LeaseBook:
    """One grant."""
    return leases.send(book, own, ONE, np.array([ceiling]), np.array([False]), now_s)


def worst(book: LeaseBook, own: LeaseTerms, now_s: float, *, plugged: bool = True, drawn: float = 0.0) -> float:
    """W of the one EVSE."""
    return float(leases.worst(book, own, np.array([plugged]), np.array([drawn]), now_s)[0])


def test_a_stop_that_is_said_again_needs_no_other_ack() -> None:
    """An ack that is as slow as two sendings is an ack, and one who acked is not asked again; a new stop is another."""
    own, latched = terms(), np.array([True])
    book = leases.send(book_of(own), own, ONE, np.zeros(1), latched, 0.0)
    book = leases.send(book, own, ONE, np.zeros(1), latched, 1.0)
    assert leases.unacked(book).all()
    book = leases.ack(book, own, ONE, 1, 1, np.zeros(1), 2.0)
    book = leases.send(book, own, ONE, np.zeros(1), latched, 2.0)
    assert not leases.unacked(book).any()
    book = leases.ack_renewal(leases.renew(book, own, ONE, 3.0), own, ONE, 1, 4, 3.5)
    assert (int(book.acked_seq[0]), float(book.acked_ceiling[0])) == (4, 0.0)
    book = leases.send(send(book, own, 6.0, 4.0), own, ONE, np.zeros(1), latched, 5.0)
    assert leases.unacked(book).all()


def test_an_unacked_lowering_keeps_the_old_ceiling_until_its_expiry() -> None:
    """R2: the freed current may be lent on only when W has fallen, by ack or by expiry."""
    own = terms()
    book = send(book_of(own), own, 32.0, 0.0)
    book = leases.ack(book, own, ONE, 1, 1, np.array([32.0]), 0.5)
    book = send(book, own, 6.0, 1.0)
    assert worst(book, own, 1.0) == 32.0
    assert worst(book, own, LIFE - 0.01) == 32.0
    assert worst(book, own, LIFE + 0.01) == 6.0


def test_an_acked_lowering_frees_current_after_the_reaction_time() -> None:
    """The value before a lowering counts until ack + reaction."""
    own = terms()
    book = leases.ack(send(book_of(own), own, 32.0, 0.0), own, ONE, 1, 1, np.array([32.0]), 0.5)
    book = leases.ack(send(book, own, 6.0, 1.0), own, ONE, 1, 2, np.array([6.0]), 1.5)
    assert worst(book, own, 1.5 + REACTION - 0.01) == 32.0
    assert worst(book, own, 1.5 + REACTION + 0.01) == 6.0


def test_a_post_that_does_less_than_it_was_granted_counts_at_the_grant() -> None:
    """Heat derates it to 8 A of 20, and that is what it acks; cool again it does all of it, and has nothing to ack."""
    own = terms()
    book = leases.ack(send(book_of(own), own, 20.0, 0.0), own, ONE, 1, 1, np.array([8.0]), 0.5)
    assert worst(book, own, 10.0) == 20.0
    book = leases.ack(send(book, own, 6.0, 10.0), own, ONE, 1, 2, np.array([6.0]), 10.5)
    assert worst(book, own, 10.5 + REACTION + 0.01) == 6.0


def test_what_a_hello_does_not_say_stays_as_it_was_said() -> None:
    """The post is the same: its fallback and its slower watchdog go on counting."""
    own = terms(fallback=6.0)
    nothing = np.array([np.nan])
    said = hello.Said(
        fallback=np.array([16.0]), fallback_idle=nothing, boot_current=np.array([3.0]), watchdog_s=np.array([30.0])
    )
    book = hello.reconcile(book_of(own), own, ONE, said)
    unsaid = hello.Said(fallback=nothing, fallback_idle=nothing, boot_current=nothing, watchdog_s=nothing)
    again = hello.reconcile(book, own, ONE, unsaid)
    assert (again.said_fallback[0], again.said_boot[0], again.late_s[0]) == (16.0, 3.0, 30.0 - WATCHDOG)
    other = hello.reconcile(again, own, ONE, replace(said, fallback=np.array([8.0]), watchdog_s=np.array([WATCHDOG])))
    assert (other.said_fallback[0], other.late_s[0]) == (8.0, 0.0)


def test_an_ack_of_another_epoch_retires_nothing() -> None:
    """Trace 11: after a restart an ack of (1, 900) must not retire (2, 5)."""
    own = terms()
    book = advance_epoch(book_of(own), own, 1, -1000.0)
    book = send(book, own, 32.0, 0.0)
    book = send(book, own, 6.0, 0.5)
    assert worst(leases.ack(book, own, ONE, 1, 900, np.array([6.0]), 0.6), own, 0.7) == 32.0
    assert worst(leases.ack(book, own, ONE, 1, 2, np.array([6.0]), 0.6), own, 10.0) == 32.0


def test_an_ack_of_a_seq_never_sent_changes_nothing() -> None:
    """A confused controller cannot free current by acking the future."""
    own = terms()
    book = send(book_of(own), own, 32.0, 0.0)
    assert worst(leases.ack(book, own, ONE, 1, 99, np.array([0.0]), 0.1), own, 10.0) == 32.0


def test_a_renewal_ack_counts_only_after_the_named_grant_was_acked() -> None:
    """A RenewAll ack tells nothing of an EVSE that missed its lowering."""
    own = terms()
    book = leases.ack(send(book_of(own), own, 32.0, 0.0), own, ONE, 1, 1, np.array([32.0]), 0.1)
    book = send(book, own, 6.0, 1.0)
    book = leases.renew(book, own, ONE, 4.0)
    early = leases.ack_renewal(book, own, ONE, 1, 3, 4.5)
    assert worst(early, own, 12.0) == 32.0
    named = leases.ack(book, own, ONE, 1, 2, np.array([6.0]), 4.4)
    late = leases.ack_renewal(named, own, ONE, 1, 3, 4.5)
    assert worst(late, own, 12.0) == 6.0
    assert worst(late, own, 4.0 + LIFE - 0.1) == 6.0
    assert worst(late, own, 4.0 + LIFE + 0.1) == 0.0


def test_reserve_is_held_under_a_lower_grant() -> None:
    """Trace 1: a post at 0 whose link dies goes to its fallback, which was reserved all along."""
    own = terms(fallback=6.0)
    book = leases.ack(send(book_of(own), own, 0.0, 0.0), own, ONE, 1, 1, np.array([0.0]), 0.1)
    assert worst(book, own, 10.0) == 6.0
    assert worst(book, own, 10.0, plugged=False) == 0.0


def test_boot_current_counts_from_the_plug_in_the_fallback_from_the_first_grant() -> None:
    """A post may restart at any moment (trace 9); its fallback is possible only once a grant was sent (trace 7)."""
    own = terms(fallback=6.0, boot=10.0)
    assert worst(book_of(own), own, 1.0) == 10.0
    own = terms(fallback=6.0)
    assert worst(book_of(own), own, 1.0) == 0.0
    assert worst(send(book_of(own), own, 0.0, 1.0), own, 1.0) == 6.0


def test_without_watchdog_silence_frees_nothing() -> None:
    """A class without watchdog keeps W for ever; one never heard from counts at its rating."""
    own = terms(watchdog=float("nan"))
    assert worst(open_book(own, epoch=1, unknown_until_s=-np.inf), own, 1e9) == 32.0
    assert worst(send(book_of(own), own, 20.0, 0.0), own, 1e9) == 20.0


def test_what_an_untrusted_controller_reported_counts_while_it_is_silent() -> None:
    """Without a watchdog a barred controller's word stands: its silence frees nothing of it."""
    own = terms(fallback=6.0, watchdog=float("nan"))
    book = leases.ack(send(book_of(own), own, 6.0, 0.0), own, ONE, 1, 1, np.array([6.0]), 0.1)
    book = hello.bar(book, ONE, np.array([32.0]))
    assert worst(book, own, 1.0) == worst(book, own, TTL + 1.0) == worst(book, own, 1e9) == 32.0


def test_a_restart_without_state_counts_every_rating_until_every_old_lease_is_over() -> None:
    """R3: without state anything up to the rating may have been granted by the last leader."""
    own = terms()
    book = open_book(own, epoch=1, unknown_until_s=100.0 + own.life_s)
    assert worst(book, own, 100.0 + LIFE - 0.1) == 32.0
    assert worst(book, own, 100.0 + LIFE + 0.1) == 0.0


def other_terms(ttl_s: float, watchdog_s: float, reaction_s: float) -> LeaseTerms:
    """The same EVSE in a site file with these."""
    life_s = np.array([ttl_s * (1 + DRIFT) + watchdog_s + reaction_s])
    columns = {"ttl_s": np.array([ttl_s]), "watchdog_s": np.array([watchdog_s]), "reaction_s": np.array([reaction_s])}
    return replace(terms(), life_s=life_s, **columns)


TERMS = st.builds(other_terms, st.floats(1.0, 120.0), st.floats(0.0, 60.0), st.floats(1.0, 60.0))


@given(old=TERMS, new=TERMS, acked=st.booleans(), lag_s=st.floats(0.0, 60.0), up_s=st.floats(0.0, 30.0))
def test_a_restart_with_other_terms_counts_what_was_granted_under_those_of_before(
    old: LeaseTerms, new: LeaseTerms, acked: bool, lag_s: float, up_s: float
) -> None:
    """R3: W covers a grant up to its E under the old ttl, watchdog and reaction, renewed up to the kill, and no longer.

    Also through a second restart, which finds the new terms in its journal; no longer means: than the longer one of
    that E and a whole life of the new terms from the last restart.
    """
    book = send(book_of(old), old, 32.0, 100.0)
    if acked:
        book = leases.ack(book, old, ONE, 1, 1, np.array([32.0]), 100.5)
    book = replace(book, reaction_s=old.reaction_s + lag_s)
    plugged, drawn, killed_s = np.array([True]), np.zeros(1), 101.0
    ends_s = killed_s + float(old.life_s[0]) + lag_s  # a renewal that left just then, and is not in the journal
    book = leases.reopen_book(book, new, plugged, drawn, killed_s, killed_s)
    assert worst(book, new, min(ends_s, killed_s + up_s) - 1e-6) == 32.0
    again_s = killed_s + up_s
    book = leases.reopen_book(book, new, plugged, drawn, again_s, again_s)
    lag_s = max(0.0, float(old.reaction_s[0] + lag_s - new.reaction_s[0]))
    latest_s = max(ends_s, again_s + float(new.life_s[0]) + lag_s)
    if again_s < ends_s:  # else all was over before
        assert worst(book, new, ends_s - 1e-6) == 32.0
    assert worst(book, new, latest_s + 1e-6) == 0.0


def test_a_restart_that_is_told_of_a_watchdog_waits_for_an_ack() -> None:
    """What was granted to a class without watchdog has no end: the file's word frees nothing, the post's own does."""
    old, new = terms(watchdog=np.nan), terms()
    book = leases.ack(send(book_of(old), old, 32.0, 0.0), old, ONE, 1, 1, np.array([32.0]), 0.5)
    book = leases.reopen_book(book, new, np.array([True]), np.zeros(1), 1.0, 1.0)
    assert worst(book, new, 1e9) == 32.0
    book = send(leases.stamp(book, ONE, 7, 2.0, 2.0), new, 6.0, 2.0)
    book = leases.ack(book, new, ONE, 2, 1, np.array([6.0]), 3.0)
    assert worst(book, new, 3.0 + REACTION + 0.01) == 6.0


def test_a_meter_above_the_ceiling_counts() -> None:
    """Drawn + margin while it is above the ceiling; below the ceiling a reading frees nothing."""
    own = terms()
    book = leases.ack(send(book_of(own), own, 10.0, 0.0), own, ONE, 1, 1, np.array([10.0]), 0.1)
    assert worst(book, own, 1.0, drawn=20.0) == 21.0
    assert worst(book, own, 1.0, drawn=3.0) == 10.0


@given(st.floats(6.0, 32.0), st.floats(0.0, 32.0), st.floats(0.0, 1.04))
def test_a_lowering_never_raises_w(high: float, low: float, share: float) -> None:
    """A reading that the ceiling before allowed counts as that ceiling while it may be followed, not as an excess."""
    own, drawn = terms(), high * share
    book = leases.ack(send(book_of(own), own, high, 0.0), own, ONE, 1, 1, np.array([high]), 0.5)
    before = worst(book, own, 1.0, drawn=drawn)
    book = send(book, own, min(low, high), 1.0)
    assert worst(book, own, 1.0, drawn=drawn) == before
    book = leases.ack(book, own, ONE, 1, 2, np.array([min(low, high)]), 1.5)
    assert worst(book, own, 1.5, drawn=drawn) == before


@given(st.floats(0.0, 9.0))
def test_a_lowering_from_the_fallback_never_raises_w(drawn: float) -> None:
    """After its lease a car does what its post may do by itself: told less, that is no excess beyond the reserve."""
    own, then_s = terms(fallback=8.0), LIFE + 0.1
    book = leases.ack(send(book_of(own), own, 32.0, 0.0), own, ONE, 1, 1, np.array([32.0]), 0.5)
    book = leases.stamp(leases.lapse(book, own, then_s), ONE, 1, 99.0, then_s)
    before = worst(book, own, then_s, drawn=drawn)
    assert before == 8.0
    book = send(book, own, 0.0, then_s)
    assert worst(book, own, then_s, drawn=drawn) == before


def test_the_next_car_has_its_reaction_time_but_not_beyond_the_end_of_the_lease() -> None:
    """After a swap the ceiling of the car before counts until the earlier of report + reaction and its own E."""
    own = terms(fallback=6.0, boot=8.0)
    for at_s in (1.0, LIFE - 1.0):
        book = leases.ack(send(book_of(own), own, 32.0, 0.0), own, ONE, 1, 1, np.array([32.0]), 0.5)
        book = leases.void(leases.linger(book, own, ONE, at_s), own, ONE)
        end_s = min(at_s + REACTION, LIFE)
        assert worst(book, own, end_s - 0.01) == 32.0
        assert worst(book, own, end_s + 0.01) == 8.0


def test_a_latched_stop_does_not_end_by_itself() -> None:
    """Trace 10: a stopped post does not go to its fallback when the lease is over."""
    own = terms(fallback=6.0)
    book = leases.send(book_of(own), own, ONE, np.array([0.0]), np.array([True]), 0.0)
    book = leases.lapse(book, own, 1e6)
    assert leases.in_force(book, own, np.array([True]), 1e6)[0] == 0.0


def test_lapse_forgets_what_a_renewal_must_not_revive() -> None:
    """Trace 8: what W no longer counts must be named again before it can be renewed."""
    own = terms()
    book = send(book_of(own), own, 20.0, 0.0)
    assert not np.isnan(leases.lapse(book, own, LIFE - 0.1).sent_ceiling[0])
    assert np.isnan(leases.lapse(book, own, LIFE + 0.1).sent_ceiling[0])


def test_an_ack_leaves_later_grants_standing() -> None:
    """An ack of (1, 1) says nothing of (1, 2), which may be applied any moment."""
    own = terms()
    book = send(send(book_of(own), own, 6.0, 0.0), own, 32.0, 0.1)
    assert worst(leases.ack(book, own, ONE, 1, 1, np.array([6.0]), 0.2), own, 10.0) == 32.0


def test_an_old_ack_does_not_bring_an_old_ceiling_back() -> None:
    """Acks may overtake each other; the newest applied grant stays the one that counts."""
    own = terms()
    book = send(send(book_of(own), own, 6.0, 0.0), own, 16.0, 0.1)
    book = leases.ack(book, own, ONE, 1, 2, np.array([16.0]), 0.2)
    assert worst(leases.ack(book, own, ONE, 1, 1, np.array([6.0]), 0.3), own, 10.0) == 16.0


def test_more_unacked_grants_than_slots_are_merged_not_forgotten() -> None:
    """The largest of many unacked grants counts until its own expiry, however many smaller ones follow."""
    own = terms()
    book = send(book_of(own), own, 32.0, 0.0)
    for k in range(3 * SLOTS):
        book = send(book, own, 1.0 + k % 7, 0.1 * (k + 1))
    assert worst(book, own, LIFE - 0.1) == 32.0
    assert worst(book, own, 2 * LIFE) == 0.0


def test_more_lowerings_than_holds_are_merged_not_forgotten() -> None:
    """A fast staircase of acked lowerings holds its first value for the whole reaction time."""
    own = terms()
    book = leases.ack(send(book_of(own), own, 32.0, 0.0), own, ONE, 1, 1, np.array([32.0]), 0.0)
    for k in range(2 * HOLDS):
        book = send(book, own, 30.0 - k, 0.1)
        book = leases.ack(book, own, ONE, 1, k + 2, np.array([30.0 - k]), 0.1 + 0.01 * k)
    assert worst(book, own, 0.1 + REACTION - 0.01) == 32.0


def test_what_a_longer_and_larger_hold_covers_takes_no_place() -> None:
    """A hold moves the end of a larger one only where there is no room: that end may be the bound of an overshoot."""
    own = terms()
    book = book_of(own)
    for ceiling, until_s in ((32.0, 7.0), (20.0, 9.0), (32.0, 8.0), (20.0, 8.5), (0.0, 11.0), (5.0, 12.0), (4.0, 12.0)):
        book = insert_hold(book, ONE, np.array([ceiling]), np.array([until_s]), np.array([0.0]))
    assert worst(book, own, 7.99) == 32.0
    assert worst(book, own, 8.01) == worst(book, own, 8.99) == 20.0
    assert worst(book, own, 9.01) == worst(book, own, 11.99) == 5.0
    assert worst(book, own, 12.01) == 0.0


@given(entries=st.lists(st.tuples(st.floats(0.0, 32.0), st.floats(1.0, 20.0)), max_size=3 * HOLDS))
def test_holds_cover_all_that_was_held(entries: list[tuple[float, float]]) -> None:
    """Whatever is merged or left out: at any instant W is no less than the largest entry that has not ended."""
    own = terms()
    book = book_of(own)
    for ceiling, until_s in entries:
        book = insert_hold(book, ONE, np.array([ceiling]), np.array([until_s]), np.array([0.0]))
    for now_s in (0.5, *(until_s - 1e-6 for _, until_s in entries)):
        most = max((ceiling for ceiling, until_s in entries if until_s > now_s), default=0.0)
        assert worst(book, own, now_s) >= most


def test_terms_spread_from_controllers_to_their_evses() -> None:
    """E - sent = ttl (1 + drift) + watchdog + reaction of the owner; infinite without watchdog."""
    posts = Posts(
        ids=("a", "b"),
        is_dc=np.array([False, False]),
        min_ceiling=np.array([6.0, 6.0]),
        max_ceiling=np.array([32.0, 16.0]),
        pilot_steps=(np.zeros(0), np.zeros(0)),
        fallback=np.array([6.0, 0.0]),
        fallback_idle=np.array([0.0, 0.0]),
        boot_current=np.array([0.0, 0.0]),
        phase_count=np.array([3, 3]),
        kw_per_unit=np.array([0.69, 0.69]),
        controller=np.array([1, 0]),
    )
    controllers = Controllers(
        ids=("x", "y"),
        ttl_s=np.array([15.0, 60.0]),
        reaction_s=np.array([5.0, 10.0]),
        watchdog_s=np.array([np.nan, 3.0]),
        drift=np.array([1e-3, 1e-2]),
    )
    own = LeaseTerms.of(posts, controllers)
    assert own.life_s.tolist() == [60.0 * 1.01 + 3.0 + 10.0, np.inf]
    assert own.has_watchdog.tolist() == [True, False]


@dataclass
class Post:
    """A controller and its EVSE as docs/leases.md describes them, on a clock of its own."""

    drift: float
    offset: float
    incarnation: int = 7
    epoch_seq: tuple[int, int] = (0, 0)
    ceiling: float = 0.0
    until: float = -1e9
    was: list[tuple[float, float]] = field(default_factory=list)
    """(drawn until, value): a car needs up to REACTION to follow."""

    def clock(self, now_s: float) -> float:
        """Its own boottime."""
        return self.offset + now_s * (1 + self.drift)

    def accept(self, echo: tuple[int, float], seq: int, ceiling: float, now_s: float) -> bool:
        """The controller's rules for one grant of epoch 1."""
        age = self.clock(now_s) - echo[1]
        if echo[0] != self.incarnation or not 0 <= age <= TTL or (1, seq) <= self.epoch_seq:
            return False
        self.was.append((now_s + REACTION, self.drawn(now_s)))
        self.epoch_seq, self.ceiling, self.until = (1, seq), ceiling, echo[1] + TTL
        return True

    def drawn(self, now_s: float) -> float:
        """The most the car may be drawing now."""
        live = self.clock(now_s) <= self.until
        lagging = [value for end, value in self.was if end > now_s]
        if not live and self.ceiling:
            # The EVSE's own watchdog and then the car take their time.
            over_for = (self.clock(now_s) - self.until) / (1 + self.drift)
            if over_for < WATCHDOG + REACTION:
                lagging.append(self.ceiling)
        return max([self.ceiling if live else 0.0, *lagging])


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["send", "renew", "deliver", "deliver_late", "drop", "ack", "stamp", "wait", "wait", "restart"]
        ),
        st.sampled_from([0.0, 6.0, 10.0, 16.0, 32.0]),
        st.floats(0.1, 9.0),
        st.integers(0, 5),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(STEPS, st.sampled_from([-DRIFT / 2, 0.0, DRIFT / 2]))
def test_w_covers_the_car_whatever_is_lost_late_or_reordered(
    steps: list[tuple[str, float, float, int]], drift: float
) -> None:
    """I2: with any order of grants, renewals, losses, late and reordered messages and acks, W >= what the car draws."""
    own = terms()
    post = Post(drift=drift, offset=1000.0)
    book = open_book(own, epoch=1, unknown_until_s=-np.inf)
    book = leases.stamp(book, ONE, post.incarnation, post.clock(0.0), 0.0)
    now, flying, acks = 0.0, [], []
    for what, ceiling, span, pick in steps:
        book = leases.lapse(book, own, now)
        echo = (int(book.echo_incarnation[0]), float(book.echo_boottime_s[0]))
        if what == "send":
            book = send(book, own, ceiling, now)
            flying.append((echo, book.seq, ceiling))
        elif what == "renew" and not np.isnan(book.sent_ceiling[0]):
            book = leases.renew(book, own, ONE, now)
            flying.append((echo, book.seq, float(book.sent_ceiling[0])))
        elif what in ("deliver", "deliver_late") and flying:
            message = flying.pop(0 if what == "deliver" else pick % len(flying))
            if post.accept(*message, now):
                acks.append((message[1], message[2]))
        elif what == "drop" and flying:
            flying.pop(pick % len(flying))
        elif what == "ack" and acks:
            seq, applied = acks.pop(pick % len(acks))
            book = leases.ack(book, own, ONE, 1, seq, np.array([applied]), now)
        elif what == "stamp":
            book = leases.stamp(book, ONE, post.incarnation, post.clock(now), now)
        elif what == "wait":
            now += span
        elif what == "restart":
            post.incarnation += 1
            book = leases.stamp(book, ONE, post.incarnation, post.clock(now), now)
        assert worst(book, own, now) >= post.drawn(now)


@given(more=st.integers(-500, 3000), part=st.floats(0.0, 1.0), ceiling=st.sampled_from([0.0, 6.0, 16.0]))
def test_of_a_silent_post_without_a_watchdog_what_its_meter_showed_is_covered(
    more: int, part: float, ceiling: float
) -> None:
    """Also the part of a mA that the door takes off: no margin stands for it. Within a mA of its ceiling it obeys."""
    own = terms(watchdog=np.nan)
    book = send(book_of(own), own, ceiling, 0.0)
    book = leases.ack(book, own, ONE, 1, 1, np.array([ceiling]), 0.5)
    shown = max(0.0, ceiling + (more + part) * STEP)
    drawn = float(rounded_down(np.array([shown]))[0])
    told = worst(book, own, 2 * TTL, drawn=drawn)
    assert told >= (shown if drawn > ceiling else ceiling)
    assert told <= max(ceiling, shown + STEP + (1.0 + 0.05 * shown))
