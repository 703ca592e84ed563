"""The fault simulation: nothing breaks, every scenario that once did stays mended, and each broken rule is found."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from powerd.sim.faults import command
from powerd.sim.faults.command import CHUNK, main, run_seeds
from powerd.sim.faults.kinds import FAULTS, Kind, Rule
from powerd.sim.faults.mutants import MUTANTS, mutated
from powerd.sim.faults.scenario import PAIRS, Scenario, couple, couple_of, drawn, read
from powerd.sim.faults.shrink import failure_of, shrunk
from powerd.sim.faults.sites import SWITCHING
from powerd.sim.faults.tally import Tally, pair_of
from powerd.sim.faults.world import World

SCENARIOS = Path(__file__).parents[2] / "scenarios"
KEPT = sorted((SCENARIOS / "faults").glob("*.txt"))
OF_MUTANTS = sorted((SCENARIOS / "mutants").glob("*.txt"))
SEEDS_OF_A_MUTANT = 50
"""A broken rule must be found within so many."""


@pytest.mark.parametrize("path", [*KEPT, *OF_MUTANTS], ids=lambda path: path.stem)
def test_what_once_broke_holds(path: Path) -> None:
    """Every kept scenario keeps every invariant, also those that are there to find a broken rule."""
    assert failure_of(read(path.read_text(encoding="utf-8"))) is None


def test_the_first_seeds_hold() -> None:
    """No invariant breaks; limits bind in most steps; every kind of fault occurs."""
    tally, broken = run_seeds(0, 30)
    assert broken == {}
    assert tally.binding > 0.3 * tally.steps


def test_posts_switch_where_they_can() -> None:
    """In two scenarios of each site with such posts contactors move, slow ones too, cars charge on L1, all holds."""
    seeds = [seed for site in SWITCHING for seed in [one for one in range(200) if drawn(one).site == site][:2]]
    worlds = [World(drawn(seed)) for seed in seeds]
    for world in worlds:
        world.run()
    posts = [post for world in worlds for post in world.posts]
    assert {post.switch_s for post in posts if post.moves > 1} == {1.0, 9.0}
    assert any(post.one and post.ceiling > 0.0 for post in posts)


def test_a_seed_gives_the_same_run_again() -> None:
    """Nothing is drawn but the scenario: two runs count the same."""
    one, other = World(drawn(7)), World(drawn(7))
    assert one.run() == other.run()


def test_a_scenario_is_read_as_written() -> None:
    """A file gives the very scenario back."""
    scenario = drawn(3)
    assert str(read(f"# said by a person\n{scenario}")) == str(scenario)


def test_shrinking_keeps_what_matters() -> None:
    """Of many happenings only those stay without which it does not fail."""
    scenario = drawn(5)
    wanted = {str(scenario.happenings[3]), str(scenario.happenings[-2])}

    def fails(smaller: object) -> str | None:
        return "I1: it does" if wanted <= set(str(smaller).splitlines()) else None

    assert {str(one) for one in shrunk(scenario, fails).happenings} == wanted


def test_tallies_add_up() -> None:
    """What two runs covered is the sum, also through a file."""
    one, two = World(drawn(1)).run(), World(drawn(2)).run()
    total = Tally.of_json(one.to_json()) + Tally.of_json(two.to_json())
    assert total.steps == one.steps + two.steps
    assert total.faults.total() == one.faults.total() + two.faults.total()
    assert "2 seeds" in total.table()


def test_a_file_of_results_goes_on_where_it_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds is not played again, half a line is; what other sources played does not count; nothing twice."""
    results, played = tmp_path / "results", list[int]()

    def run(first: int, last: int) -> tuple[Tally, dict[int, str]]:
        played.append(first)
        return Tally(seeds=last - first), {}

    monkeypatch.setattr(command, "run_seeds", run)

    def goes_on(seeds: str) -> list[int]:
        played.clear()
        assert main(["--seeds", seeds, "--results", str(results), "--jobs", "1"]) == 0
        return list(played)

    assert goes_on(f"0:{2 * CHUNK}") == [0, CHUNK]
    assert goes_on(f"0:{3 * CHUNK}") == [2 * CHUNK]
    results.write_text(results.read_text(encoding="utf-8")[:-5], encoding="utf-8")
    assert goes_on(f"0:{3 * CHUNK}") == [2 * CHUNK]
    assert results.read_text(encoding="utf-8").count("\n") == 3
    monkeypatch.setattr(command, "digest_of_sources", lambda: "others")
    assert goes_on(f"0:{CHUNK}") == [0]
    with pytest.raises(SystemExit):
        main(["--seeds", "0:30", "--results", str(results)])


def _full(share: float) -> Tally:
    """A tally that just reaches every floor of that share of the proof."""
    tally = Tally(steps=int(share * 5_000_000), binding=int(share * 1_500_000))
    tally.faults.update({str(kind): int(share * 8_000) for kind in FAULTS})
    tally.pairs.update({pair_of(a, b): int(share * 100) for a in FAULTS for b in FAULTS if a <= b})
    tally.rules.update({f"{rule}|{kind}": 1 for rule in Rule for kind in FAULTS})
    return tally


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_a_missed_floor_is_told_with_its_figure(share: float) -> None:
    """Nothing is missed on the floors; one step, fault, kind, pair, rule or binding step less is told."""
    assert _full(share).missed(share) == []
    less = _full(share)
    less.steps, less.binding = less.steps - 1, less.binding - 1
    less.faults["cut"] = int(share * 5_000) - 1
    less.pairs["cut+trip"] -= 1
    less.rules["R2 lower|stall"] = 0
    told = [line.partition(":")[0] for line in less.missed(share)]
    assert told == ["steps", "cut", "cut+trip", "R2 lower after stall", "percent of the steps with a binding limit"]
    assert _full(share).missed(2 * share)[0] == f"steps: {share * 5e6:g} of at least {share * 1e7:g}"


def test_what_meets_nobody_is_no_fault() -> None:
    """A crash of a daemon that is down, a slow car where there is none: they happen and are not counted."""
    scenario = read("site 1\nsteps 12\n3 crash-idle 0 8\n6 crash-idle 0 1\n6 lagging 0 5\n6 partition 0 2\n")
    assert World(scenario).run().faults == {"crash-idle": 1, "partition": 1}


def test_every_pair_has_its_turn() -> None:
    """Of as many seeds as there are ordered pairs each plays another one, a kind with itself twice."""
    played = [couple_of(seed) for seed in range(7, 7 + 2 * len(PAIRS))]
    assert sorted(played) == sorted([(a, b) for a in FAULTS for b in FAULTS] + [(a, a) for a in FAULTS])


@pytest.mark.parametrize("kind", [Kind.CRASH_IDLE, Kind.REBOOT, Kind.JOURNAL_LOST, Kind.OWNER_REBOOT, Kind.LAGGING])
def test_both_of_a_couple_strike(kind: Kind) -> None:
    """Within one ttl, also where the first takes down whoever the second is meant for."""
    for site in range(3):
        happenings = sorted(couple(random.Random(site), site, kind, kind), key=lambda one: one.step)
        steps = happenings[-1].step + 1
        world = World(Scenario(site=site, steps=steps, happenings=tuple(happenings)))
        for _ in range(steps):
            world.step()
        assert world.tally.pairs[pair_of(kind, kind)] == 1


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_broken_rule_is_found(mutant: str) -> None:
    """In one of the first seeds, or in a scenario of its own where chance would take hours."""
    own = SCENARIOS / "mutants" / f"{mutant}.txt"
    scenarios = [read(own.read_text(encoding="utf-8"))] if own.exists() else map(drawn, range(SEEDS_OF_A_MUTANT))
    with mutated(mutant):
        assert any(failure_of(scenario) is not None for scenario in scenarios)


def test_a_car_that_comes_is_news() -> None:
    """Were it none, the bound of an overshoot that lasts would pass while its reserve still counts."""
    (path,) = (one for one in KEPT if one.stem == "car-comes-as-a-hold-ends")
    with mutated("no-news-in-an-overshoot"):
        found = failure_of(read(path.read_text(encoding="utf-8")))
    assert found is not None
    assert found.startswith("declared overshoot")
