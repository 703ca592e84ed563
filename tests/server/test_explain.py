"""The sentence for a ceiling, after ticks of the real step: it must be true."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from powerd.control import events as ev
from powerd.limits import Limits
from powerd.network.electrical import Electrical
from powerd.server.explain import reason
from powerd.state.impaired import Trigger
from tests.control.garage import Player, site_text
from tests.control.metered import metered_text


@dataclass(frozen=True)
class Drawing:
    """A drawing with its limits."""

    electrical: Electrical
    limits: Limits


def why(player: Player, evse: int = 0) -> str:
    """What is said after the last tick."""
    assert player.decision is not None
    return reason(Drawing(player.site.electrical, player.decision.site.limits), player.decision, evse)


def opened(folder: Path, text: str, *cars: int) -> Player:
    """These cars have come, and the first ticks are over."""
    player = Player.open(folder, text)
    for evse in cars:
        player.plug(evse)
    for controller in range(len(player.site.electrical.controllers.ids)):
        player.hello(controller)
    for _ in range(4):
        player.tick()
    return player


def test_a_pause_is_told_with_its_end(tmp_path: Path) -> None:
    """A stop is released, and the car stays off for a while: not because it has all that it can take."""
    player = opened(tmp_path, site_text(2, 64.0), 0)
    player.tick(ev.StopOrdered(request_id="", stop_id="s", element="P0", evse=np.array([0]), reason="smoke"))
    for _ in range(12):
        player.tick()
    player.tick(ev.StopReleased(request_id="", stop_id="s", reason="checked"))
    assert why(player) == "held at 0 A: it was switched off, and stays off for 198 s more"


FEEDER = "phase L1 of feeder F1 (test ({} A conductor))"


def test_nobody_else_is_named_where_nobody_else_is(tmp_path: Path) -> None:
    """Alone under its limit, or at what its car can take while another has the rest."""
    assert why(opened(tmp_path, site_text(1, 20.0, controllers=1), 0)) == f"held at 20 A by {FEEDER.format(20)}"
    player = opened(tmp_path, site_text(2, 32.0), 0, 1)
    session_id = player.snapshot.sessions.session_id[0]
    player.tick(ev.SessionUpdated(request_id="", session_id=session_id, demand=ev.Demand(max_ceiling=12.0)))
    for _ in range(12):
        player.tick()
    assert why(player) == "granted 12 A, all that the car and the post can take"
    assert why(player, 1) == f"held at 20 A by {FEEDER.format(32)}"


def test_a_raise_names_whose_current_it_waits_for(tmp_path: Path) -> None:
    """The car before, which has its reaction time; after a restart what the post itself was granted."""
    player = opened(tmp_path, site_text(3, 32.0), 0)
    player.plug(1)
    player.tick()
    there = f"; there it is held by {FEEDER.format(32)}, together with 1 other"
    assert why(player, 1) == f"at 0 A, to rise to 16 A when what P0 may still be drawing leaves room{there}"
    alone = Player.open(tmp_path, site_text(1, 20.0, controllers=1), unknown_until_s=20.0)
    alone.plug(0)
    alone.hello(0)
    alone.tick()
    assert why(alone).startswith(
        "at 0 A, to rise to 20 A when what its own post was granted before is over: it counts at 32 A; "
    )


def test_a_car_without_room_for_its_least_is_told_so(tmp_path: Path) -> None:
    """16 A for three cars of at least 6 A: two charge, and they take turns; under 5 A nobody ever has one."""
    player = opened(tmp_path, site_text(3, 16.0), 0, 1, 2)
    least = "less than the 6 A that it needs at least is left"
    assert why(player, 2) == f"held at 0 A by {FEEDER.format(16)}, together with 2 others: {least}; cars take turns"
    player = opened(tmp_path, site_text(1, 5.0, controllers=1), 0)
    assert why(player) == f"held at 0 A by {FEEDER.format(5)}: {least}"
    player = opened(tmp_path, site_text(2, 5.0), 0, 1)
    assert why(player) == f"held at 0 A by {FEEDER.format(5)}, together with 1 other: {least}"


def test_a_controller_that_claims_what_cannot_be_is_told(tmp_path: Path) -> None:
    """Its car counts at what it may be drawing."""
    player = opened(tmp_path, site_text(2, 64.0), 0)
    player.hello(0, highest_epoch=2**62)
    player.tick()
    assert why(player).startswith(
        "at 32 A, for its controller claims an epoch that cannot be now and gets no grants: it counts at"
    )


def test_a_raise_that_the_disk_holds_is_told_as_such(tmp_path: Path) -> None:
    """No lease of others is waited for: there is none."""
    player = opened(tmp_path, site_text(2, 32.0), 0, 1)
    player.plug(1, plugged=False)
    for _ in range(3):
        player.tick(ev.TroubleBegan(trigger=Trigger.DISK_SLOW, cap=np.full(2, 32.0)))
    assert why(player) == "at 16 A, to rise to 32 A when this is over: disk slow"


def test_a_raise_that_a_ramp_holds_is_told_as_such(tmp_path: Path) -> None:
    """It takes its time."""
    text = site_text(2, 64.0).replace("max_current_a: 32,", "max_current_a: 32, ramp_a_per_s: 0.05,")
    player = opened(tmp_path, text, 0)
    assert why(player).endswith("to rise to 32 A as fast as the post's ramp lets it")


def test_bounds_between_two_steps_are_told(tmp_path: Path) -> None:
    """A car that takes 9 to 15 A never charges at a post that can be told 8 or 16 A."""
    text = site_text(2, 64.0).replace("max_current_a: 32,", "max_current_a: 32, pilot_steps_a: [0, 8, 16, 24, 32],")
    player = opened(tmp_path, text, 0)
    session_id = player.snapshot.sessions.session_id[0]
    between = ev.Demand(min_ceiling=9.0, max_ceiling=15.0)
    player.tick(ev.SessionUpdated(request_id="", session_id=session_id, demand=between))
    assert why(player) == "granted 0 A, for the post has no step that its car can take, 9 to 15 A"


def test_a_tick_of_the_guard_alone_claims_no_reason(tmp_path: Path) -> None:
    """What holds whom is worked out by a solve; there was none."""
    player = opened(tmp_path, site_text(8, 80.0), *range(7))
    for _ in range(12):
        player.tick()
    assert "F1" in why(player)
    player.tick(ev.SolveSkipped())
    assert why(player) == "at 11.43 A, decided at once, by the guard alone: the next tick works out what holds it"
    player.tick()
    assert "F1" in why(player)


@pytest.mark.parametrize("evse", [0, 1])
def test_a_post_that_has_not_taken_its_order_is_told(tmp_path: Path, evse: int) -> None:
    """Nothing is decided for it meanwhile."""
    player = opened(tmp_path, site_text(2, 64.0), 0, 1)
    player.snapshot.leases.unsettled.setflags(write=True)
    player.snapshot.leases.unsettled[evse] = True
    player.tick()
    assert "has not taken its controller's first order yet" in why(player, evse)


def test_what_other_loads_have_of_the_limit_is_told(tmp_path: Path) -> None:
    """Two cars at 14 A below 60 A would look like a mistake: a shop of 20 kW counts at 90 % of its voltage."""
    player = opened(tmp_path, metered_text(2, 60.0), 0, 1)
    feeder = "phase L1 of feeder F1 (test (60 A conductor))"
    assert why(player) == f"held at 13.96 A by {feeder}, where other loads count for 32.08 A, together with 1 other"


WING = "import cvxpy as cp\ndef terms(site):\n    yield cp.sum(site.ceiling[[0, 1]]) <= {}\n"


def with_terms(folder: Path, text: str, **files: str) -> Player:
    """A site with terms of users, a car at each post."""
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content, encoding="utf-8")
    names = ", ".join(f"{name}.py" for name in files)
    return opened(folder, f"{text}terms: [{names}]\n", *range(text.count("evses:")))


def test_terms_that_hold_a_car_are_named(tmp_path: Path) -> None:
    """30 A for two posts below a feeder of 200 A: not because the car and the post can take no more."""
    player = with_terms(tmp_path, site_text(2, 200.0), wing=WING.format(30))
    assert why(player) == "held at 15 A by the terms of wing.py"


def test_beside_terms_a_limit_is_named_where_it_holds(tmp_path: Path) -> None:
    """Two posts are held to 20 A together, two by the feeder that is full then: each is told his own reason."""
    player = with_terms(tmp_path, site_text(4, 60.0), wing=WING.format(20))
    assert why(player, 0) == why(player, 1) == "held at 10 A by the terms of wing.py"
    assert why(player, 2).startswith(
        "held at 20 A by phase L1 of feeder F1 (test (60 A conductor)), together with 1 other"
    )
    assert player.decision is not None
    limit = int(player.decision.binding_limit[2])
    assert player.decision.shadow_price[limit] == pytest.approx(1 / 20, rel=1e-3)


@pytest.mark.parametrize("steps", ["", " pilot_steps_a: [0, 6, 7, 8, 9, 10, 16, 32],"])
def test_terms_that_hold_nobody_are_not_named(tmp_path: Path, steps: str) -> None:
    """A term of 10 000 A below a feeder of 13.5 A: the feeder holds both, also where pilot steps leave some of it."""
    text = site_text(2, 13.5).replace("max_current_a: 32,", f"max_current_a: 32,{steps}")
    player = with_terms(tmp_path, text, wide=WING.format(10_000))
    for evse in (0, 1):
        assert "by phase L1 of feeder F1 (test" in why(player, evse)
    player = with_terms(tmp_path, site_text(2, 64.0), wide=WING.format(10_000))
    assert why(player) == "granted 32 A, all that the car and the post can take"


def test_a_car_that_terms_switch_off_is_told(tmp_path: Path) -> None:
    """10 A for two cars that need 6 A each: one is off, and the feeder is not why."""
    player = with_terms(tmp_path, site_text(2, 200.0), narrow=WING.format(10))
    assert sorted(why(player, evse) for evse in (0, 1)) == [
        "held at 0 A by the terms of narrow.py",
        "held at 10 A by the terms of narrow.py",
    ]


def test_all_files_of_terms_are_named(tmp_path: Path) -> None:
    """Which of two files holds a car the solver does not tell."""
    bonus = "def terms(site):\n    yield 0.01 * site.ceiling[0]\n"
    player = with_terms(tmp_path, site_text(2, 200.0), wing=WING.format(30), bonus=bonus)
    assert why(player, 1).endswith("A by the terms of wing.py and bonus.py")
