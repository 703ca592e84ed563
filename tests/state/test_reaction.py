"""Slow cars are waited for, cars that disobey count at their rating; and who is which."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from powerd.state import leases
from powerd.state.hello import Said, reconcile
from powerd.state.lease_book import LeaseBook, open_book
from powerd.state.reaction import REACTION_MAX_S, watch
from tests.state.test_leases import ONE, REACTION, terms

PLUGGED = np.array([True])


@dataclass
class Car:
    """One car at one post, sampled once a second; every grant is acked at once."""

    book: LeaseBook = field(default_factory=lambda: open_book(terms(), epoch=1, unknown_until_s=-np.inf))
    now_s: float = 0.0
    drawn: float = 0.0

    def grant(self, ceiling: float) -> None:
        """Sent, applied and acked now."""
        own = terms()
        self.book = leases.send(self.book, own, ONE, np.array([ceiling]), np.array([False]), self.now_s)
        self.book = leases.ack(self.book, own, ONE, 1, self.book.seq, np.array([ceiling]), self.now_s)

    def draw(self, amps: float, seconds: int = 1) -> None:
        """Draws this for so long; its lease is renewed all the while."""
        self.drawn = amps
        for _ in range(seconds):
            self.now_s += 1.0
            self.book = leases.stamp(self.book, ONE, 7, self.now_s, self.now_s)
            if leases.renewal_due(self.book, terms(), self.now_s)[0]:
                self.book = leases.renew(self.book, terms(), ONE, self.now_s)
                self.book = leases.ack_renewal(self.book, terms(), ONE, 1, self.book.seq, self.now_s)
            self.book = watch(self.book, terms(), PLUGGED, np.array([amps]), PLUGGED, self.now_s)

    def worst(self) -> float:
        """W."""
        return float(leases.worst(self.book, terms(), PLUGGED, np.array([self.drawn]), self.now_s)[0])


def test_a_slow_car_is_given_the_longest_lag_seen() -> None:
    """After a lag of 12 s the reaction is 12 s: the next lowering frees current only then."""
    car = Car()
    car.grant(32.0)
    car.draw(32.0, 3)
    car.grant(10.0)
    car.draw(32.0, 12)
    car.draw(10.0)
    assert car.book.reaction_s[0] == 12.0
    car.grant(20.0)
    car.draw(20.0, 20)
    car.grant(6.0)
    car.draw(6.0, 11)
    assert car.worst() == 20.0
    car.draw(6.0)
    assert car.worst() == 6.0


def test_a_car_that_follows_in_time_keeps_the_class_value() -> None:
    """Within the class's reaction time nothing grows."""
    car = Car()
    car.grant(32.0)
    car.draw(32.0, 3)
    car.grant(10.0)
    car.draw(32.0, int(REACTION) - 1)
    car.draw(10.0, 100)
    assert car.book.reaction_s[0] == REACTION


def test_a_car_that_lags_at_every_lowering_is_never_non_compliant() -> None:
    """Trace 14: 12 s late, every 20 s, for ten minutes."""
    car = Car()
    ceiling = 32.0
    for _ in range(30):
        car.grant(ceiling)
        before, ceiling = ceiling, 38.0 - ceiling
        car.draw(max(before, 38.0 - before), 12)
        car.draw(before, 8)
        assert not car.book.defiant[0]


def test_a_reading_that_was_lawful_ends_with_the_lease_when_its_controller_falls_silent() -> None:
    """R7: a silent controller keeps its W, then its reserve; its last reading says nothing of later."""
    car = Car()
    car.grant(20.0)
    car.draw(20.0, 3)
    car.now_s = car.book.sent_until_s[0] - 0.01
    assert car.worst() == 20.0
    car.now_s += 0.02
    assert car.worst() == 0.0


def test_a_reading_within_the_reaction_time_ends_with_it() -> None:
    """A car that was last seen on its way down is believed to have gone on, as one without a meter is."""
    car = Car()
    car.grant(32.0)
    car.draw(32.0, 3)
    car.grant(10.0)
    car.draw(32.0, 2)
    car.now_s += REACTION - 2.01
    assert car.worst() == 32.0
    car.now_s += 0.02
    assert car.worst() == 10.0


def test_a_reading_above_all_that_was_rightful_counts_as_long_as_nothing_newer_is_heard() -> None:
    """Who was seen to disobey may go on: silence frees nothing of that."""
    car = Car()
    car.grant(32.0)
    car.draw(32.0, 3)
    car.grant(10.0)
    car.draw(32.0, int(REACTION) + 1)
    car.now_s += 1000.0
    assert car.worst() >= 32.0


def test_a_car_that_disobeys_counts_at_its_rating_until_it_has_obeyed_for_a_minute() -> None:
    """Not before a minute after the ack, within two and three samples; back after a minute of obedience, not sooner."""
    car = Car()
    car.grant(20.0)
    car.draw(20.0, 5)
    car.grant(6.0)
    car.draw(20.0, 60)
    assert not car.book.defiant[0]
    assert car.worst() == 21.0
    car.draw(20.0, 63)
    assert car.book.defiant[0]
    assert car.worst() == 32.0
    car.draw(6.0, 60)
    assert car.worst() == 32.0
    car.draw(6.0, 2)
    assert not car.book.defiant[0]


def test_two_wrong_readings_convict_nobody() -> None:
    """A meter that lies twice is forgiven; W covers the reading meanwhile."""
    car = Car()
    car.grant(6.0)
    car.draw(6.0, 130)
    for _ in range(20):
        car.draw(25.0, 2)
        assert car.worst() == 26.25
        car.draw(6.0)
    assert not car.book.defiant[0]


def test_no_car_is_waited_for_longer_than_a_minute() -> None:
    """The reaction is bounded, however long a car ignores its ceiling."""
    car = Car()
    car.grant(32.0)
    car.grant(6.0)
    car.draw(32.0, 200)
    assert car.book.reaction_s[0] == REACTION_MAX_S


def test_the_next_car_starts_from_the_class_value() -> None:
    """Lag and disobedience belong to a plug-in."""
    car = Car()
    car.grant(6.0)
    car.draw(32.0, 200)
    book = leases.void(car.book, terms(), ONE)
    assert not book.defiant[0]
    assert book.reaction_s[0] == REACTION


def test_a_slower_watchdog_moves_every_end() -> None:
    """A controller that spoke of a watchdog 4 s slower than the site file keeps its leases 4 s longer, or for ever."""
    own = terms()
    book = leases.send(open_book(own, epoch=1, unknown_until_s=-np.inf), own, ONE, np.array([20.0]), ~PLUGGED, 0.0)
    book = leases.stamp(book, ONE, 7, 0.0, 0.0)
    until = float(own.life_s[0])
    nan = np.full(1, np.nan)
    for late, end in ((0.0, until), (4.0, until + 4.0), (np.inf, 1e9)):
        said = Said(fallback=nan, fallback_idle=nan, boot_current=nan, watchdog_s=own.watchdog_s + late)
        late_book = reconcile(book, own, ONE, said)
        assert leases.worst(late_book, own, PLUGGED, np.zeros(1), end - 0.1)[0] == 20.0
        if np.isfinite(late):
            assert leases.worst(late_book, own, PLUGGED, np.zeros(1), end + 0.1)[0] == 0.0
