"""Random sequences on the depot: nothing forbidden, nothing tripped, nothing over for too long, whatever the order."""

from __future__ import annotations

from pathlib import Path

import pytest

from powerd.network.load import load_site
from powerd.studies.outages import Study
from powerd.studies.sequences import What, drawn, play_sequence

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="module")
def depot() -> Study:
    """A full depot, steady."""
    return Study(load_site(MODELS / "two_feeder_depot"))


def test_a_few_sequences_keep_every_promise(depot: Study) -> None:
    """Six happenings each, five seeds; the story of a broken one is what fails."""
    for seed in range(5):
        played = play_sequence(depot, seed)
        assert not played.broken, (played.story, played.broken)


def test_a_sequence_is_its_seed(depot: Study) -> None:
    """The same seed tells the same story."""
    assert play_sequence(depot, 7) == play_sequence(depot, 7)


def test_people_break_no_promise_either(depot: Study) -> None:
    """Tags, earths, orders by hand, words of service and restarts among the rest: all of them in these seeds."""
    seen = set[str]()
    for seed in (12, 30, 45):
        seen |= {one.what for one in drawn(depot, seed, people=True).happenings}
        played = play_sequence(depot, seed, people=True)
        assert not played.broken, (played.story, played.broken)
    assert seen == set(What)


def test_a_transformer_comes_back_while_no_side_of_the_transfer_switch_is_certain(depot: Study) -> None:
    """Seed 66: in the dark everything was raised to its rating, for no limit held what neither side fed."""
    played = play_sequence(depot, 66)
    assert not played.broken, (played.story, played.broken)


def test_one_wrong_report_does_not_bring_two_supplies_together(depot: Study) -> None:
    """Seed 78: main-a had not moved for long, so a wrong word of another device was believed and the tie closed."""
    played = play_sequence(depot, 78)
    assert not played.broken, (played.story, played.broken)


@pytest.mark.slow
def test_ten_thousand_sequences_keep_every_promise(depot: Study) -> None:
    """The long form: hours."""
    for seed in range(10_000):
        played = play_sequence(depot, seed)
        assert not played.broken, (played.seed, played.story, played.broken)
