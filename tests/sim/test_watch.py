"""What a person watches: the run at the speed asked for, and every post with a car."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from powerd.sim.cars import Battery
from powerd.sim.policies import Uncontrolled
from powerd.sim.run import LEAD_S, Loop
from powerd.sim.scene import Scene, set_scene
from powerd.sim.watch import Pacer, picture, watch
from tests.sim.scenes import GARAGE, WEEK, session


@pytest.fixture(scope="module", name="garage")
def _garage() -> Scene:
    return set_scene(site=GARAGE, sessions=WEEK, first=None, days=1, cap_kw=50.0, seed=1)


def _loop(scene: Scene) -> Loop:
    stays = (session("CA-314", 0, 900, 100.0, said_kwh=20.0), session("CA-303", 5, 900, 100.0))
    return Loop(posts=scene.electrical.posts, sessions=stays, plant=scene.plant(), battery=Battery.IDEAL, seed=1)


def test_the_pacer_holds_the_run_back_and_forgets_lost_time() -> None:
    """100 s at 1 000 a second take a tenth of a second; after a stall the rest is not hurried."""
    pacer = Pacer(1000.0)
    began = time.monotonic()
    pacer.hold(100)
    assert time.monotonic() - began >= 0.099
    time.sleep(0.1)
    pacer.hold(110)
    resumed = time.monotonic()
    pacer.hold(160)
    assert time.monotonic() - resumed >= 0.049


def test_the_picture_shows_power_ratings_posts_and_what_drivers_said(garage: Scene) -> None:
    """Two cars at 32 A: 13.3 kW, the tightest rating, both posts, one silent driver."""
    loop, paper = _loop(garage), io.StringIO()

    def look(reached_s: int) -> None:
        if reached_s > LEAD_S + 60 and not paper.getvalue():
            Console(width=120, file=paper).print(picture(garage, loop, reached_s, "127.0.0.1:7433"))

    with Uncontrolled(garage.electrical.posts) as policy:
        loop.run(policy, look)
    text = paper.getvalue()
    for words in (
        "13.3 kW of 50 kVA",
        "2 cars plugged in, 2 charging",
        "transformer T1",
        "CA-314",
        "32.0 A",
        "20.0 kWh",
    ):
        assert words in text
    assert "nothing said" in text
    assert "06 May" in text


def test_without_a_terminal_an_hour_is_a_line(garage: Scene) -> None:
    """Logs stay short: one line for each simulated hour, the first at the start."""
    paper = io.StringIO()
    with Uncontrolled(garage.electrical.posts) as policy:
        watch(garage, _loop(garage), policy, speed=1e6, console=Console(file=paper), address="x")
    lines = paper.getvalue().splitlines()
    assert len(lines) == 1
    assert "kW of 50 kVA" in lines[0]


def test_on_a_terminal_the_table_lives(garage: Scene) -> None:
    """A terminal gets the picture itself."""
    paper = io.StringIO()
    with Uncontrolled(garage.electrical.posts) as policy:
        console = Console(file=paper, force_terminal=True, width=120, height=50)
        watch(garage, _loop(garage), policy, speed=1e6, console=console, address="127.0.0.1:7433")
    assert "listening on 127.0.0.1:7433" in paper.getvalue()
