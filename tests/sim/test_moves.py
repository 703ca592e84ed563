"""R9 on simulated breakers: a transfer switch goes over while cars charge and every controller has just died."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powerd.control.compiled import CompiledSite
from powerd.control.step import Stepper
from powerd.network import states
from powerd.network.load import load_site
from powerd.sim.outage import Cause, Element
from powerd.sim.switches import transfers_of
from powerd.sim.wires import Survey
from powerd.sim.world import World
from tests.network.transfers import yard

PANELS = [("preferred", 63.0, 2, 0)]


def played(folder: Path, *, silent: bool) -> World:
    """Both services full, then the first one is lost; two minutes of it."""
    (folder / "site.yaml").write_text(yard((125.0, 63.0), PANELS, [0.5, 0.5, 0.5]), "utf-8")
    site = load_site(folder)
    electrical = site.must()
    survey = Survey(electrical, np.random.default_rng(1))
    world = World(Stepper(CompiledSite.of(electrical)), survey, transfers_of(site.site, electrical))
    world.run(60)
    assert world.power_kw > 40.0
    world.fleet.silent[:] = silent
    world.strike(Element(kind="supply", indices=(0,), name="a"), Cause.UPSTREAM)
    world.run(120)
    assert world.gear.closed[electrical.branches.ids.index("t0/alternate")]
    return world


def test_no_breaker_trips_though_nobody_lowers_anything_until_leases_end(tmp_path: Path) -> None:
    """The panel comes over onto a full main: what the cars keep drawing is stood until their leases are over."""
    world = played(tmp_path, silent=True)
    assert max(window.share for window in world.windows.all()) > 1.1
    assert world.breakers.trips == []
    assert world.breakers.worn.max() < 1.0


def test_without_the_restriction_the_main_trips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same minute with R9 off opens the surviving main."""
    monkeypatch.setattr(states, "held_ahead", lambda *_: ())
    world = played(tmp_path, silent=True)
    assert [world.electrical.branches.ids[trip.branch] for trip in world.breakers.trips] == ["main-b"]


def test_what_is_held_back_comes_free_once_nothing_can_move_any_more(tmp_path: Path) -> None:
    """With service a gone no transfer is left to fear: the panel and the hall share all of the other main."""
    world = played(tmp_path, silent=False)
    world.run(240)
    assert world.last is not None
    limits = world.last.site.limits
    assert not any(", with " in name for name in limits.name)
    main = [l for l, element in enumerate(limits.element) if element == "main-b"]
    flow = limits.limit_flow(world.last.ceiling)[main] + world.last.uncontrolled[main]
    assert flow.max() >= limits.capacity[main].max() - 4.0
