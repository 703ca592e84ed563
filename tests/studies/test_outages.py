"""The outage study on the depot: what is promised holds in every outage, and without shedding it would not."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from powerd.errors import UnreadableInput
from powerd.network.load import load_site
from powerd.sim.outage import Cause
from powerd.studies.command import Extent, as_table, outcomes, remark, report_json, total
from powerd.studies.outages import Outcome, Study, outages

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="module")
def depot() -> Study:
    """A full depot, steady."""
    return Study(load_site(MODELS / "two_feeder_depot"))


@pytest.fixture(scope="module")
def ring() -> Study:
    """The campus with a full house."""
    return Study(load_site(MODELS / "campus_ring"))


@pytest.fixture(scope="module")
def singles(depot: Study) -> list[Outcome]:
    """Every single outage."""
    return [depot.play(*one) for one in outages(depot.elements)]


def test_everything_that_could_have_a_voltage_has_one(singles: list[Outcome]) -> None:
    """All promises of every single outage, as many EVSEs fed as any permitted state would feed among them."""
    assert [remark(o) for o in singles if not o.kept] == []
    assert max(o.restored for o in singles) == 40
    assert all(o.live == o.owed for o in singles)


def test_pairs_are_all_or_a_sample_that_its_seed_names(depot: Study) -> None:
    """8 elements: 28 pairs; a sample has no pair twice and is the same again."""
    elements = depot.elements
    assert len(outages(elements)) == 14
    assert len(outages(elements, double=True)) == 14 + 2 * 28 - 1  # two supplies at once have no fault
    some = outages(elements, double=True, sample=10, seed=4)
    assert len({outage for outage, _ in some if len(outage) == 2}) == 10
    assert some == outages(elements, double=True, sample=10, seed=4)
    assert some != outages(elements, double=True, sample=10, seed=5)


def test_a_study_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    """What the file has is not played again; on two processes the same comes out as on one."""
    loaded, console = load_site(MODELS / "two_feeder_depot"), Console(quiet=True)
    results = tmp_path / "depot.jsonl"
    whole = outcomes(loaded, Extent(results=results, jobs=2), console)
    lines = results.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(whole)
    results.write_text("\n".join(lines[:9]) + "\n", encoding="utf-8")
    altered = json.loads(lines[3]) | {"remaining_kw": -1.0}
    results.write_text("\n".join([*lines[:3], json.dumps(altered), *lines[4:9]]) + "\n", encoding="utf-8")
    again = outcomes(loaded, Extent(results=results), console)
    assert again[2].remaining_kw == -1.0  # read, not played
    assert [one for k, one in enumerate(again) if k != 2] == [one for k, one in enumerate(whole) if k != 2]
    with pytest.raises(UnreadableInput, match="holds results of"):
        outcomes(loaded, Extent(results=results, seed=2), console)


def test_every_kind_of_element_is_lost(depot: Study) -> None:
    """Supplies, transformers, breakers, the tie, the transfer switch; cables are not."""
    names = {element.name for element in depot.elements}
    assert names == {"utility-a", "utility-b", "T1", "T2", "main-a", "main-b", "tie", "ats"}


def test_overloads_end_in_time_and_within_the_tolerance(singles: list[Outcome]) -> None:
    """Where controllers answer nothing is over for longer than ack + reaction + 1 s; no breaker trips."""
    assert max(o.overload_s for o in singles) > 0.0
    for o in singles:
        assert o.overload_s <= o.bound_s == 7.0
        assert o.worn < 0.5
        assert not o.trips


@pytest.mark.parametrize("other", ["S2", "breaker-2"])
def test_what_is_lost_is_put_apart_before_its_place_is_taken(ring: Study, other: str) -> None:
    """A car park's lost transformer counts in the ring until its breaker is open: then the rest has room for a tie.

    Without that the tie waited for room until it was given up; or all went dark for a breaker that is in local.
    """
    outcome = ring.play((ring.element("T3"), ring.element(other)), Cause.UPSTREAM)
    assert outcome.kept
    assert outcome.restored == 100


def test_no_switch_ever_closes_where_it_must_not(singles: list[Outcome]) -> None:
    """I9 at every instant of every outage."""
    assert not [o.broken for o in singles if o.broken]


def test_the_surviving_side_is_used(singles: list[Outcome]) -> None:
    """With one transformer gone the other one charges with more than a megawatt, the workshop fed beside it."""
    for o in singles:
        if o.outage in (("utility-a",), ("T1",), ("main-a",)):
            assert 1000 < o.remaining_kw < o.before_kw


def test_without_shedding_overloading_outages_trip_a_breaker(depot: Study, singles: list[Outcome]) -> None:
    """The control: of the outages that overload something, at least nine of ten then open a simulated breaker."""
    over = [o for o in singles if o.share > 1.05]
    tripped = 0
    for o in over:
        outage = tuple(depot.element(name) for name in o.outage)
        tripped += bool(depot.play(outage, Cause(o.cause), sheds=False, watch_s=120).trips)
    assert over
    assert tripped >= 0.9 * len(over)


def test_silent_controllers_end_by_their_leases(depot: Study) -> None:
    """All controllers dead in the second of the trip: over within the longest E, and still within the tolerance."""
    found = depot.play((depot.element("T1"),), Cause.UPSTREAM, silent=True)
    assert 7.0 < found.overload_s <= found.bound_s < 35.0
    assert found.worn < 1.0
    assert not found.trips


def test_a_site_in_the_dark_is_still_decided_for(depot: Study) -> None:
    """Both supplies lost: no limit and no EVSE is left, and the tick goes on."""
    both = (depot.element("utility-a"), depot.element("utility-b"))
    found = depot.play(both, Cause.UPSTREAM, watch_s=20)
    assert (found.lost, found.live, found.owed, found.remaining_kw) == (60, 0, 0, 0.0)
    assert found.kept


def test_the_same_seed_plays_the_same(depot: Study, singles: list[Outcome]) -> None:
    """A study is deterministic: an outage played again comes out the same."""
    assert depot.play((depot.element("utility-a"),), Cause.UPSTREAM) == singles[0]


def test_the_table_and_the_json_tell_the_same(singles: list[Outcome]) -> None:
    """One row an outage; the JSON has the totals that scripts look at."""
    report = json.loads(json.dumps(report_json("depot", singles)))
    assert report["outages"] == len(report["rows"]) == len(singles)
    assert report["breaker_trips"] == 0
    assert report["longest_overload_s"] == max(o.overload_s for o in singles)
    out = StringIO()
    Console(file=out, width=240).print(as_table(singles))
    assert "utility-a" in out.getvalue()
    assert total(singles).startswith(f"{len(singles)} of {len(singles)} outages kept every promise")
    assert remark(singles[0]) == ""
