"""The power flow passes what fits and fails what does not, on the side where the rating is defined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from powerd.network.load import load_site
from powerd.sim.run import SettledLoad
from powerd.sim.verify import TOLERANCE, AcVerdict, verify_ac
from powerd.sim.wires import as_drawn
from tests.sim.scenes import GARAGE, MODELS


def _verdict(**amps: float) -> AcVerdict:
    """The garage with some posts at some current."""
    electrical = load_site(GARAGE).must()
    drawn = np.zeros(electrical.evse_count)
    for evse, value in amps.items():
        drawn[electrical.posts.ids.index(evse.replace("_", "-"))] = value
    state = as_drawn(electrical)
    loads = [SettledLoad(drawn=amps, state=state, first_s=s) for s, amps in ((60, drawn), (90, 0 * drawn))]
    return verify_ac(electrical, loads)


def test_a_pod_within_its_rating_passes_and_above_it_fails() -> None:
    """80 A of 80 A passes; 96 A fails, and the verdict names the breaker, the load and the time."""
    kept = _verdict(CA_324=32.0, CA_325=32.0, CA_326=16.0)
    assert kept.passed
    assert kept.worst_percent == pytest.approx(100.0, abs=0.1)
    broken = _verdict(CA_324=32.0, CA_325=32.0, CA_326=32.0)
    assert not broken.passed
    assert (broken.loads_checked, broken.loads_failed, broken.worst_s) == (2, 1, 60)
    assert "av-breaker" in broken.worst_name
    assert broken.worst_percent == pytest.approx(120.0, abs=0.2)
    assert 0.9 < broken.lowest_voltage_pu < 1.0


def test_the_high_side_is_checked_against_its_own_rating() -> None:
    """Two pairs in opposition load the high side of a delta-star transformer twice as much as the low side's share."""
    electrical = load_site(GARAGE).must()
    one_pair = np.isfinite(electrical.evse_phasor_deg[:, 0]) & np.isfinite(electrical.evse_phasor_deg[:, 1])
    drawn = np.where(one_pair, 10.0, 0.0)
    low, high = 10.0 * one_pair.sum(), 10.0 * one_pair.sum() * 2 / 4
    branches = electrical.branches
    for side, amps in (("low", low), ("high", high)):
        tight = np.where(branches.kind == 1, amps / 1.02, np.inf)
        loose = np.full_like(tight, np.inf)
        from_a, to_a = (loose, tight) if side == "low" else (tight, loose)
        rated = replace(electrical, branches=replace(branches, capacity_from_a=from_a, capacity_to_a=to_a))
        verdict = verify_ac(rated, [SettledLoad(drawn=drawn, state=as_drawn(rated), first_s=0)])
        assert not verdict.passed
        assert verdict.worst_name.endswith(f"{side} side")
        assert verdict.worst_percent == pytest.approx(102.0, abs=0.3)


def test_a_load_is_solved_on_the_wires_as_they_stood() -> None:
    """What two supplies carry is too much for one: after a loss the tie feeds all, and the lost one gives nothing."""
    electrical = load_site(MODELS / "two_feeder_depot").must()
    ids = electrical.branches.ids
    normal = as_drawn(electrical)
    closed = normal.closed.copy()
    closed[[ids.index("main-a"), ids.index("tie")]] = False, True
    alive = np.array([False, True])
    drawn = 0.35 * electrical.posts.max_ceiling
    before = verify_ac(electrical, [SettledLoad(drawn=drawn, state=normal, first_s=0)])
    after = [SettledLoad(drawn=drawn, state=normal, first_s=0)]
    after.append(SettledLoad(drawn=drawn, state=replace(normal, closed=closed, alive=alive), first_s=9))
    verdict = verify_ac(electrical, after)
    assert before.passed
    assert not verdict.passed
    assert (verdict.loads_failed, verdict.worst_s) == (1, 9)


def test_the_tolerance_is_half_a_per_cent() -> None:
    """0.4 % above a rating passes, 0.6 % does not."""
    assert TOLERANCE == 0.005
    within = 80.0 * 1.004 / 3
    assert _verdict(CA_324=within, CA_325=within, CA_326=within).passed
    above = 80.0 * 1.006 / 3
    assert not _verdict(CA_324=above, CA_325=above, CA_326=above).passed


def test_nothing_to_check_passes() -> None:
    """A run without a settled load has nothing that could fail."""
    assert verify_ac(load_site(GARAGE).must(), []).passed
