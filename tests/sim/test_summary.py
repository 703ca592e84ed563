"""The summary's figures are those of its definitions, and its JSON keeps the contract."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from powerd.sim.grid import Compliance, Tripped
from powerd.sim.plant import Series, Truth, Violation
from powerd.sim.run import Record, Served
from powerd.sim.summary import (
    Summary,
    Wire,
    as_table,
    delivered_fraction,
    jain,
    summarise,
    violations_text,
    worst_decile,
)
from powerd.sim.verify import AcVerdict
from tests.sim.scenes import START, session

CONTRACT = {
    "sessions",
    "energy_requested_kwh",
    "energy_needed_kwh",
    "energy_delivered_kwh",
    "energy_delivered_percent",
    "steps_binding",
    "sessions_full_percent",
    "worst_decile_fraction",
    "jain_index",
    "peak_kw",
    "worst_margin_a",
    "limit_violations",
    "breaker_trips",
    "overload_allowed_s",
    "forbidden_movements",
    "compliance",
    "tick_ms_p50",
    "tick_ms_p99",
    "rpcs",
    "policy",
    "violations",
}
BROKEN = Violation(
    name="phase L1 of transformer T1, low side",
    element="T1",
    unit="A",
    limit=100.0,
    worst=120.0,
    steps=3,
    seconds=90,
    first_s=7200,
)


def _truth(*violations: Violation) -> Truth:
    series = Series(
        start_s=np.array([0, 10]),
        seconds=np.array([10, 20]),
        site_kw=np.array([5.0, 7.0]),
        loading_percent=np.array([[50.0], [70.0]], dtype=np.float32),
        plugged=np.array([1, 2]),
        charging=np.array([1, 1]),
    )
    return Truth(
        steps=2,
        steps_binding=1,
        steps_transformer_binding=1,
        peak_kw=7.0,
        worst_margin_a=-20.0 if violations else 30.0,
        limit_violations=sum(v.steps for v in violations),
        breaker_trips=0,
        trips=(),
        forbidden_movements=(),
        movements=(),
        compliance=(),
        violations=violations,
        series=series,
    )


def _summary(*violations: Violation, verdict: AcVerdict | None = None, ticks: tuple[float, ...] = ()) -> Summary:
    served = (
        Served(session=session("a", 0, 60, 9.0, said_kwh=12.0), needed_kwh=8.0, delivered_kwh=8.0),
        Served(session=session("b", 0, 60, 2.0), needed_kwh=2.0, delivered_kwh=1.0),
    )
    return summarise(
        site="garage",
        policy="powerd",
        cap_kw=None,
        battery="ideal",
        seed=1,
        record=Record(start=START, served=served, settled=(), step_ms=np.array(ticks)),
        truth=_truth(*violations),
        wire=Wire(rpcs=7, stream_messages=20),
        verdict=verdict,
        wall_s=1.0,
    )


def _verdict(failed: int) -> AcVerdict:
    return AcVerdict(
        loads_checked=5, loads_failed=failed, worst_percent=101.0, worst_name="x", worst_s=0, lowest_voltage_pu=0.98
    )


def test_the_json_keeps_the_contract_and_is_plain() -> None:
    """Every promised key is there, and the whole is JSON."""
    found: dict[str, Any] = json.loads(json.dumps(_summary(BROKEN, verdict=_verdict(1)).as_json()))
    assert set(found) >= CONTRACT
    assert found["violations"][0]["name"] == BROKEN.name
    assert found["verify_ac"]["passed"] is False


def test_the_figures_follow_their_definitions() -> None:
    """Two cars: one got all of 8 kWh, one got half of 2 kWh."""
    s = _summary(ticks=(1.0, 2.0, 3.0))
    assert s.energy_needed_kwh == 10.0
    assert s.energy_delivered_percent == pytest.approx(90.0)
    assert s.energy_requested_kwh == 12.0  # the second driver said nothing
    assert s.sessions_full_percent == 50.0
    assert s.worst_decile_fraction == 0.5
    assert s.jain_index == pytest.approx(1.5**2 / (2 * 1.25))
    assert s.simulated_s == 30
    assert (s.tick_ms_p50, s.rpcs) == (2.0, 7)
    assert _summary().tick_ms_p50 is None


def test_a_promise_is_broken_by_the_plant_or_by_the_power_flow() -> None:
    """Either is enough; neither is fine."""
    assert _summary().promise_kept
    assert _summary(verdict=_verdict(0)).promise_kept
    assert not _summary(BROKEN).promise_kept
    assert not _summary(verdict=_verdict(1)).promise_kept


@pytest.mark.parametrize(("at_s", "kept"), [(7200, True), (7201, False)])
def test_a_loss_excuses_nothing_that_was_broken_before_it(at_s: int, kept: bool) -> None:
    """What it brings may last for ack + reaction; a rating that was exceeded when it came was exceeded without it."""
    loss = Compliance(event="T1 lost", at_s=at_s, seconds=5.0, name=BROKEN.name, share=1.2, tolerated_s=60.0, used=0.1)
    found = replace(_summary(BROKEN), compliance=(loss,), overload_allowed_s=7.0)
    assert found.promise_kept is kept
    assert ("over in 5 s (7 s allowed)" in violations_text(found)) is kept
    assert violations_text(found).startswith(f"{found.limit_violations} limit violation")


def test_the_table_tells_people_what_broke() -> None:
    """The human summary names the rating and how far it was exceeded."""
    paper = io.StringIO()
    Console(width=140, file=paper).print(as_table(_summary(BROKEN, verdict=_verdict(2), ticks=(1.0,))))
    text = paper.getvalue()
    for words in (BROKEN.name, "120.0 A", "90.00 %", "FAILED in 2", "-20.0 A"):
        assert words in text


def test_the_table_has_one_line_for_a_device_and_no_more_than_fit() -> None:
    """However often devices tripped: a line each with its count, and how many lines were left out."""
    trips = [Tripped(element=f"mcb{k}", times=900, first_s=60.0, most_a=96.0, opened=False) for k in range(12)]
    paper = io.StringIO()
    Console(width=140, file=paper).print(as_table(replace(_summary(BROKEN), breaker_trips=10800, trips=tuple(trips))))
    text = " ".join(paper.getvalue().split())
    assert "3 limit violations of 1 rating, 10800 trips" in text
    assert text.count("mcb") == text.count(" 96 A") == 10
    assert "and 2 more" in text
    assert "open only with --trip" in text


@given(st.lists(st.tuples(st.floats(0.0, 50.0), st.floats(0.0, 60.0)), min_size=1, max_size=40))
def test_fractions_and_fairness_stay_in_their_ranges(pairs: list[tuple[float, float]]) -> None:
    """Fractions within 0 to 1, the worst tenth at most the mean, Jain's index between 1/n and 1."""
    needed, got = (np.array(column) for column in zip(*pairs, strict=True))
    fraction = delivered_fraction(needed, got)
    assert ((fraction >= 0) & (fraction <= 1)).all()
    assert worst_decile(fraction) <= fraction.mean() + 1e-12
    assert 1 / len(pairs) - 1e-9 <= jain(fraction) <= 1 + 1e-9


def test_jain_is_one_only_for_equals() -> None:
    """All alike: 1. One of four gets everything: 1/4."""
    assert jain(np.full(5, 0.3)) == pytest.approx(1.0)
    assert jain(np.array([1.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)
