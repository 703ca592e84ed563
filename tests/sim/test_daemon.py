"""The real daemon in a child process, one busy morning of the garage at 40 kW: promises kept, runs equal."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from powerd.errors import PowerdError
from powerd.sim.command import Options, run
from powerd.sim.daemon import Child, Daemon, Launch
from powerd.sim.policies import Policy
from powerd.sim.scene import set_scene
from powerd.sim.summary import TIMINGS, Summary
from tests.sim.scenes import GARAGE, WEEK, busy_morning

CAP_KW = 40.0


def _equal_but_for_timings(one: Summary, other: Summary) -> bool:
    a, b = ({k: v for k, v in asdict(s).items() if k not in TIMINGS} for s in (one, other))
    return a == b


@pytest.fixture(scope="module", name="morning")
def _morning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busy_morning(tmp_path_factory.mktemp("sessions"), since="08:20", until="09:20")


@pytest.fixture(scope="module", name="ours")
def _ours(morning: Path) -> Summary:
    return run(Options(site=GARAGE, sessions=morning, cap_kw=CAP_KW, verify_ac=True))


def _baseline(morning: Path, policy: Policy) -> Summary:
    return run(Options(site=GARAGE, sessions=morning, cap_kw=CAP_KW, policy=policy))


def test_no_limit_is_ever_broken(ours: Summary) -> None:
    """By the plant's own books and by the unbalanced power flow, while the transformer binds."""
    assert ours.steps_transformer_binding >= 100
    assert ours.limit_violations == 0
    assert ours.worst_margin_a is not None
    assert ours.worst_margin_a >= -1e-6 * 180.0
    assert ours.verify_ac is not None
    assert ours.verify_ac.passed
    assert ours.verify_ac.loads_checked > 10


def test_more_energy_than_an_equal_share_and_uncontrolled_breaks_limits(ours: Summary, morning: Path) -> None:
    """The same cars under both baselines."""
    assert ours.energy_delivered_percent >= _baseline(morning, Policy.EQUAL_SHARE).energy_delivered_percent
    uncontrolled = _baseline(morning, Policy.UNCONTROLLED)
    assert uncontrolled.limit_violations > 0
    assert not uncontrolled.promise_kept


def test_two_runs_are_equal_but_for_timings(ours: Summary, morning: Path) -> None:
    """Same seed, same steps, same grants, same figures."""
    again = run(Options(site=GARAGE, sessions=morning, cap_kw=CAP_KW))
    assert _equal_but_for_timings(replace(ours, verify_ac=None), again)


def test_every_grant_went_over_grpc(ours: Summary) -> None:
    """Calls are counted: one a step, one a statement, one a stream."""
    controllers, stated = 5, ours.rpcs - ours.steps - 5
    assert 0 < stated <= ours.sessions
    assert ours.stream_messages > controllers * ours.steps
    assert ours.tick_ms_p50 is not None


def test_a_daemon_that_does_not_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    """The child's stderr reaches the user."""
    child = Child(Launch(site=tmp_path / "nowhere").command)
    try:
        with pytest.raises(PowerdError, match="nowhere"):
            child.wait_ready()
    finally:
        child.close()


def test_steps_follow_from_the_leases() -> None:
    """A quarter of the shortest ttl, as often as a stamp is due; quiet = the longest reaction and three ticks."""
    scene = set_scene(site=GARAGE, sessions=WEEK, first=None, days=1, cap_kw=None, seed=1)
    pace = Daemon(Launch(site=GARAGE), scene.electrical, seed=1).pace
    assert (pace.longest_s, pace.quiet_s) == (15, 8)


@pytest.mark.slow
@pytest.mark.parametrize("cap_kw", [None, 50.0, 40.0])
def test_the_week(cap_kw: float | None) -> None:
    """Caltech, 6 to 10 May 2019: 99.5 % at 150 kVA; at 50 and 40 kW binding, safe, and better than an equal share."""
    options = Options(site=GARAGE, sessions=WEEK, cap_kw=cap_kw, verify_ac=True)
    ours = run(options)
    assert ours.promise_kept
    assert ours.sessions == 203
    if cap_kw is None:
        assert ours.energy_delivered_percent >= 99.5
    else:
        assert ours.steps_transformer_binding >= 100
        equal = run(Options(site=GARAGE, sessions=WEEK, cap_kw=cap_kw, policy=Policy.EQUAL_SHARE))
        assert ours.energy_delivered_percent >= equal.energy_delivered_percent
    uncontrolled = run(Options(site=GARAGE, sessions=WEEK, cap_kw=cap_kw, policy=Policy.UNCONTROLLED, verify_ac=True))
    assert uncontrolled.limit_violations > 0
    assert uncontrolled.verify_ac is not None
    assert not uncontrolled.verify_ac.passed
