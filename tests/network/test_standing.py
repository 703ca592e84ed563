"""R6 and R9 before the site is built: the worst that a moving switch brings, against what elements stand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.network.load import LoadedSite, load_site
from powerd.network.moves import silent_s
from powerd.network.rows import build_rows
from powerd.network.standing import Standing, patience, standings
from powerd.network.tolerance import tolerated_s

ROOT = Path(__file__).parents[2]
DEPOT = ROOT / "models" / "two_feeder_depot"


@pytest.fixture(scope="module")
def depot() -> LoadedSite:
    """The depot with its automatic transfer switch."""
    return load_site(DEPOT)


@pytest.fixture(scope="module")
def table(depot: LoadedSite) -> list[Standing]:
    """R9's table of the depot."""
    assert depot.electrical is not None
    return list(standings(depot.electrical))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_nothing_that_the_limits_admit_flows_beyond_the_worst(
    seed: int, depot: LoadedSite, table: list[Standing]
) -> None:
    """Random ceilings within the normal limits, after the transfer: no limit carries more than the table says."""
    electrical = depot.electrical
    assert electrical is not None
    rng = np.random.default_rng(seed)
    normal = electrical.branches.normally_closed
    before = build_rows(electrical, normal)
    metered = np.array([name == "workshop" for name in electrical.loads.ids])
    beside = np.where(metered & (rng.random() < 0.5), 0.0, electrical.loads.worst_kw)  # its meter may show nothing
    room = before.limits.capacity - before.load_share @ beside
    ceilings = electrical.posts.max_ceiling * rng.random(electrical.evse_count) ** rng.choice([0.1, 1.0])
    if rng.random() < 0.5:
        ceilings[rng.permutation(electrical.evse_count)[: electrical.evse_count // 3]] = 0.0
    flow = before.limits.limit_flow(ceilings)
    ceilings *= float(np.min(np.divide(room, flow, out=np.ones_like(flow), where=flow > room), initial=1.0))
    moved = normal.copy()
    ids = electrical.branches.ids
    moved[[ids.index("ats/preferred"), ids.index("ats/alternate")]] = False, True
    after = build_rows(electrical, moved)
    actual = after.limits.limit_flow(ceilings) + after.load_share @ electrical.loads.worst_kw
    worst = {(one.name, one.unit): one.worst for one in table}
    for l, name in enumerate(after.limits.name):
        assert actual[l] <= worst[name, after.limits.unit[l]] + 1e-6


def test_the_worst_is_reached_by_both_feeders_at_their_limits(depot: LoadedSite, table: list[Standing]) -> None:
    """Critical half at utility A's contract, the workshop's meter at nothing, the rest at T2: main-b at 173 %."""
    main = max(one.worst / one.capacity for one in table if one.element == "main-b")
    assert main == pytest.approx(1.727, abs=0.005)
    # no more than what both contracts and the transfer switch let through, and the pick-up of what goes over
    electrical = depot.electrical
    assert electrical is not None
    over = electrical.loads.ids.index("depot-it")
    pickup_kw = 0.5 * electrical.loads.worst_kw[over] / electrical.loads.power_factor[over]
    assert main * 2500 <= 2000 + 2309.5 + pickup_kw * 1000 / (3**0.5 * 400 * 0.9) + 1e-6


def test_the_settings_of_the_depot_leave_time_for_leases_to_end(table: list[Standing]) -> None:
    """Every element stands the worst for the longest E of the EVSEs above it, also with silent controllers."""
    assert all(one.fits for one in table)
    over = [one for one in table if one.worst > one.capacity and one.unit == "A"]
    assert {one.element for one in over} == {"T2", "main-b", "ats/alternate"}
    assert all(one.answering_s < one.bound_s <= one.tolerated_s < math.inf for one in over)


def test_what_is_admitted_is_stood_for_the_bound(depot: LoadedSite, table: list[Standing]) -> None:
    """``admitted`` is the restriction that makes R9 hold: stood for the bound, and nothing above it is."""
    electrical = depot.electrical
    assert electrical is not None
    for one in table:
        if one.element == "main-b":
            overload = electrical.overload[electrical.branches.ids.index("main-b")]
            assert tolerated_s(overload, one.admitted * (1 - 1e-9)) >= one.bound_s
            assert tolerated_s(overload, one.admitted * 1.0001) < one.bound_s


def test_a_class_without_watchdog_asks_for_infinite_patience(depot: LoadedSite) -> None:
    """Nobody knows when a silent EVSE without watchdog stops: only what is stood for ever would do."""
    electrical = depot.electrical
    assert electrical is not None
    never = replace(electrical.controllers, watchdog_s=np.full(3, np.nan))
    assert np.isinf(silent_s(never)).all()
    found = list(patience(replace(electrical, controllers=never)))
    assert all(one.stands_percent <= 100.0 + 1e-9 for one in found)


def test_patience_is_ttl_watchdog_and_reaction(depot: LoadedSite) -> None:
    """ctl-critical: 15 (1 + 0.001) + 5 + 2 s silent, 1 + 2 s where it answers."""
    assert depot.electrical is not None
    one = next(p for p in patience(depot.electrical) if p.controller == "ctl-critical")
    assert one.silent_s == pytest.approx(22.015)
    assert one.answering_s == 3.0
    assert one.element == "trunk-1"
    assert 110 < one.stands_percent < 140
