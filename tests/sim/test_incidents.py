"""What ``--trip`` and ``--return`` mean, and the run they make."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from powerd.errors import UnreadableInput
from powerd.network.load import load_site
from powerd.sim.incidents import full_house, incidents_of, parse_incident
from powerd.sim.outage import Cause
from powerd.sim.run import Agenda

DEPOT = Path(__file__).resolve().parents[2] / "models" / "two_feeder_depot"


def test_an_incident_is_an_element_at_a_time() -> None:
    """Minutes or seconds, and why it is lost."""
    plain = parse_incident("T1@08:15", lost=True)
    assert (plain.element, plain.at, plain.cause, plain.lost) == ("T1", time(8, 15), Cause.UPSTREAM, True)
    fault = parse_incident("ats/preferred@8:15:30:protection", lost=True)
    assert (fault.element, fault.at, fault.cause) == ("ats/preferred", time(8, 15, 30), Cause.PROTECTION)


@pytest.mark.parametrize("text", ["T1", "T1@25:00", "T1@08:15:lightning", "@08:15", "T1@8"])
def test_what_is_no_incident_is_told(text: str) -> None:
    """With an example of one."""
    with pytest.raises(UnreadableInput, match="T1@08:15"):
        parse_incident(text, lost=True)


def test_a_full_house_stands_around_its_incidents() -> None:
    """Every post has a car minutes before the first one and long after the last one; unknown elements are named."""
    electrical, zone = load_site(DEPOT).must(), ZoneInfo("Europe/Berlin")
    clocked = [parse_incident("T1@08:15", lost=True), parse_incident("T1@08:30", lost=False)]
    cars = full_house(electrical, clocked, zone, seed=1)
    assert {car.evse_id for car in cars} == set(electrical.posts.ids)
    start = Agenda(cars, {name: k for k, name in enumerate(electrical.posts.ids)}).start
    lost, back = incidents_of(clocked, electrical, start, zone)
    assert back.at_s - lost.at_s == 900
    assert all((car.arrival - start).total_seconds() < lost.at_s - 400 for car in cars)
    assert all((car.departure - start).total_seconds() > back.at_s + 1000 for car in cars)
    with pytest.raises(UnreadableInput, match="has no T9"):
        incidents_of([parse_incident("T9@08:15", lost=True)], electrical, start, zone)
    with pytest.raises(UnreadableInput, match="T1 is not lost before"):
        incidents_of(clocked[1:], electrical, start, zone)


@pytest.mark.parametrize("day", [(2026, 3, 28), (2026, 3, 29), (2026, 10, 25)], ids=["usual", "23 hours", "25 hours"])
def test_an_incident_happens_when_the_clock_on_the_wall_says_so(day: tuple[int, int, int]) -> None:
    """Also on the days on which that clock is changed, between the run's start and the incident."""
    electrical, zone = load_site(DEPOT).must(), ZoneInfo("Europe/Berlin")
    start = datetime(*day, 0, 30, tzinfo=zone).astimezone(UTC)
    (lost,) = incidents_of([parse_incident("T1@08:15", lost=True)], electrical, start, zone)
    assert (start + timedelta(seconds=lost.at_s)).astimezone(zone).time() == time(8, 15)


@pytest.mark.slow
def test_the_depot_survives_the_loss_of_a_transformer_before_a_real_daemon(tmp_path: Path) -> None:
    """Trip, shed, transfer, recovery: over for at most ack + reaction + 1 s, nothing trips, the picture is drawn."""
    plot = tmp_path / "trip.png"
    command = [sys.executable, "-m", "powerd", "simulate", str(DEPOT), "--trip", "T1@08:15", "--json"]
    done = subprocess.run([*command, "--plot", str(plot)], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["breaker_trips"], summary["forbidden_movements"]) == (0, [])
    (event,) = summary["compliance"]
    assert event["event"] == "T1 lost"
    assert 0 < event["seconds"] <= summary["overload_allowed_s"] == 7.0
    assert event["seconds"] < event["tolerated_s"]
    assert plot.stat().st_size > 20_000
