"""Import limits of grid operators in the tick: obeyed at once, never released by silence, proved, durable."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.control import events as ev
from powerd.control.decision import Decision
from powerd.server.explain import reason
from powerd.state import envelopes
from powerd.state.impaired import Trigger
from powerd.state.snapshot import reopen_snapshot
from powerd.units import Now
from tests.control.garage import LIFE, REACTION, TTL, Player, compiled, instant, site_text
from tests.control.substation import Substation

START = datetime(2026, 1, 1, tzinfo=UTC)
"""The player's instant 0."""
GRID = "grid_connection: {import_limit_kw: 200, min_envelope_kw: 30, failsafe_limit_kw: 35, source: contract}"
"""There is room for all in the wires: what limits is the grid connection."""


@pytest.fixture
def full(tmp_path: Path) -> Player:
    """All four at 32 A, F = 6 A."""
    player = Player.open(tmp_path, f"{site_text(4, 400.0, fallback_a=6.0)}{GRID}\n")
    for k in range(4):
        player.plug(k)
    for c in range(2):
        player.hello(c)
    for _ in range(3):
        decision = player.tick()
    assert decision.ceiling == pytest.approx(32.0)
    return player


def said(
    kw: float,
    *,
    name: str = "night",
    start_s: float | None = None,
    end_s: float | None = None,
    heartbeat_s: float = np.inf,
    request_id: str = "",
) -> ev.EnvelopeSet:
    """An envelope of the test's operator; times on the player's clock."""
    start, end = (None if s is None else START + timedelta(seconds=s) for s in (start_s, end_s))
    return ev.EnvelopeSet(
        request_id=request_id,
        envelope_id=name,
        source="dso",
        reason="told",
        import_limit_kw=kw,
        start_time=start,
        end_time=end,
        heartbeat_s=heartbeat_s,
    )


def test_below_the_fallbacks_the_cars_take_turns_within_the_envelope(full: Player) -> None:
    """10 kW, and the fallbacks alone make 18: two cars at a time, at no more than their reserve.

    W does not grow by that, and what is granted fits: the garage is not dark until somebody takes the envelope back.
    """
    decision = full.tick(said(10.0))
    served, dark, longest, most = set(), 0, 0, decision.worst
    for k in range(540):
        decision = full.tick(full.draw(dict(enumerate(decision.ceiling.tolist()))), seconds=5.0)
        limits = decision.site.limits
        dark = 0 if decision.ceiling.any() else dark + 1
        longest = max(longest, dark)
        served |= set(np.flatnonzero(decision.ceiling > 0.0).tolist())
        if k > 3:
            assert np.all(limits.limit_flow(decision.ceiling) <= limits.capacity + 1e-6)
            assert np.all(decision.worst <= most + 1e-6)
        most = decision.worst
    assert served == {0, 1, 2, 3}
    assert longest <= 3


def test_after_an_envelope_of_nothing_what_fits_is_granted_again(full: Player) -> None:
    """0 kW for five minutes, then 15: three of the four at what they hold as their fallback, soon."""
    full.tick(said(0.0))
    for _ in range(60):
        assert not full.tick(seconds=5.0).ceiling.any()
    full.tick(said(15.0))
    for _ in range(3):
        decision = full.tick()
    assert np.sort(decision.ceiling) == pytest.approx([0.0, 6.0, 6.0, 6.0])


def test_below_the_fallbacks_a_newcomer_waits_and_takes_from_nobody(full: Player) -> None:
    """Its own fallback would open: of whatever class it is, it is told what it waits for, and others keep theirs."""
    full.tick(said(10.0))
    for _ in range(20):
        full.tick()
    full.plug(0, plugged=False)
    full.tick()
    full.plug(0)
    first = ev.SessionStarted(request_id="", evse=0, session_id="first", demand=ev.Demand(priority=9))
    full.tick(first)
    for _ in range(60):
        decision = full.tick(seconds=5.0)
    assert decision.ceiling[0] == 0.0
    assert np.count_nonzero(decision.ceiling) == 2
    told = reason(SimpleNamespace(electrical=full.site.electrical, limits=decision.site.limits), decision, 0)
    assert "does not hold the fallbacks that others have already" in told


def test_what_silent_posts_may_still_draw_counts_under_an_envelope_below_the_reserves(full: Player) -> None:
    """Two of four go silent at 32 A, then 55 kW come: less than they and the others' fallbacks are together.

    The others obey it beside the silent ones at once, not as if these drew nothing; when theirs are over, as before.
    """
    full.alive.discard(1)
    while full.tick().snapshot.leases.echo_at_s.min() >= full.now_s - TTL:
        pass
    decision = full.tick(said(55.0))
    silent = np.isin(np.arange(4), full.members(1))
    assert decision.worst[silent] == pytest.approx(32.0)
    held = np.where(silent, decision.worst, decision.ceiling)
    assert import_kw(replace(decision, ceiling=held)) <= 55.0 + 1e-6
    assert 0.0 < decision.ceiling[~silent].sum() < 12.0
    decision = settle(full, int(LIFE) + 212)
    assert decision.worst[silent] == pytest.approx(6.0)
    assert decision.ceiling[~silent].min() >= 25.0


def test_silent_posts_that_fill_an_envelope_leave_nothing(full: Player) -> None:
    """40 kW are less than two silent posts at 32 A may draw: the others are off until those leases are over."""
    full.alive.discard(1)
    while full.tick().snapshot.leases.echo_at_s.min() >= full.now_s - TTL:
        pass
    decision = full.tick(said(40.0))
    assert decision.ceiling[full.members(0)].max() == 0.0
    assert "held at 0 A by import of the site (envelope night of dso, 40 kW)" in reason(
        SimpleNamespace(electrical=full.site.electrical, limits=decision.site.limits), decision, 0
    )
    assert settle(full, int(LIFE) + 212).ceiling[full.members(0)].min() >= 6.0


def import_kw(decision: Decision) -> float:
    """Most that the cars may import by their ceilings: at 110 % of the nominal voltage, as limits count."""
    return float(decision.ceiling.sum() * 1.1 * 400 * np.sqrt(3) / 1000)


def settle(player: Player, seconds: int) -> Decision:
    """The decision after so many ticks of a second."""
    for _ in range(seconds):
        decision = player.tick()
    return decision


def test_an_envelope_is_obeyed_in_its_tick_and_explained(full: Player) -> None:
    """Every ceiling is below it at once, and the limit that binds tells whose word it is."""
    decision = full.tick(said(40.0))
    assert decision.outcomes[-1] == ev.Done("night")
    assert 35.0 < import_kw(decision) <= 40.0
    decision = settle(full, 2)
    binding = {decision.site.limits.source[int(l)] for l in decision.binding_limit}
    assert binding == {"envelope night of dso, 40 kW"}


def test_when_it_was_kept_is_told_and_not_before_the_leases_allow(full: Player) -> None:
    """The proof: W is within it once the lowering is acked and the reaction time is over; a declared overshoot till
    then.
    """
    decision = full.tick(said(40.0))
    began_s = full.now_s
    (one,) = decision.snapshot.envelopes
    assert one.in_force_utc_s == (START + timedelta(seconds=began_s)).timestamp()
    assert one.kept_utc_s is None
    assert [o.lasts for o in decision.overshoots] == [True]
    while decision.snapshot.envelopes[0].kept_utc_s is None:
        decision = full.tick()
    assert REACTION <= full.now_s - began_s <= REACTION + 2
    assert not any(o.lasts for o in decision.overshoots)
    flow = decision.site.limits.limit_flow(decision.worst)
    assert decision.site.imported_kw(flow) <= 40.0 + 1e-6


def test_what_loads_may_import_while_no_post_has_a_voltage_is_told(tmp_path: Path) -> None:
    """A shop of 60 kW beside posts behind an open breaker: 40 kW are not kept, 65 kW are."""
    feeder = "  - {id: F1, from_bus: main, to_bus: panel,"
    switch = "switches: [{id: ev, kind: breaker, from_bus: main, to_bus: mid, rated_current_a: 400, reported: true}]"
    text = site_text(2, 200.0).replace(feeder, feeder.replace("from_bus: main", "from_bus: mid"))
    text = text.replace("{id: main, voltage_v: 400}", "{id: main, voltage_v: 400}, {id: mid, voltage_v: 400}")
    load = "loads: [{id: shop, bus: main, typical_kw: 40, worst_kw: 60, power_factor: 1.0}]"
    station = Substation.open(compiled(tmp_path, f"{text}{GRID}\n{switch}\n{load}\n"))
    station.run(5)
    station.moves("ev", closed=False)
    station.run(int(LIFE) + 5)
    station.tick(said(40.0, name="low"), said(65.0, name="high"))
    decision = station.run(int(LIFE) + 5)
    assert not decision.site.import_limit.shape[0]
    assert [one.kept_utc_s is not None for one in decision.snapshot.envelopes] == [False, True]


def test_a_window_begins_and_ends_by_the_clock(full: Player) -> None:
    """Before it and after it the connection agreement alone counts, and nothing of it is left."""
    decision = full.tick(said(40.0, start_s=20.0, end_s=60.0))
    assert decision.ceiling == pytest.approx(32.0)
    while full.now_s < 19:
        assert full.tick().ceiling == pytest.approx(32.0)
    assert import_kw(full.tick()) <= 40.0
    while full.now_s < 59:
        assert import_kw(full.tick()) <= 40.0
    decision = settle(full, 2)
    assert decision.snapshot.envelopes == ()
    assert decision.ceiling == pytest.approx(32.0)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_stepped_wall_clock_ends_no_window(full: Player, hours: int) -> None:
    """NTP moves the wall clock by an hour in the middle of a window of a minute: it holds until both clocks say it is
    over, and it was not late to begin.
    """
    full.tick(said(40.0, start_s=20.0, end_s=60.0))
    while full.now_s < 30:
        full.tick()
    utc = START + timedelta(hours=hours)
    for second in range(31, 60):
        now = Now(utc=utc + timedelta(seconds=second), boottime_s=float(second))
        decision = full.stepper.step(full.snapshot, [], now)
        full.snapshot = decision.snapshot
        assert import_kw(decision) <= 40.0
    (one,) = full.snapshot.envelopes
    over = Now(utc=utc + timedelta(seconds=60), boottime_s=60.0)
    assert envelopes.is_over(one, over) == (hours > 0)
    assert envelopes.is_over(one, Now(utc=START + timedelta(seconds=60), boottime_s=3660.0))


@pytest.mark.parametrize("ahead_s", [30.0, -3600.0])
def test_a_heartbeat_after_a_step_of_the_wall_clock_lifts_no_window(full: Player, ahead_s: float) -> None:
    """The very words again are the envelope that stands: by the boottime clock it has begun, and is not over."""
    words = said(40.0, start_s=20.0, end_s=90.0)
    full.tick(words)
    while full.now_s < 30:
        full.tick()
    full.wall_ahead_s = ahead_s
    while full.now_s < 88:
        assert import_kw(full.tick(*[words] * (full.now_s % 5 == 0))) <= 40.0
    (one,) = full.snapshot.envelopes
    assert one.in_force_utc_s is not None


def test_the_lowest_of_several_counts(full: Player) -> None:
    """Whoever set it; withdrawing one leaves the other."""
    full.tick(said(50.0, name="a"), said(40.0, name="b"), said(60.0, name="c"))
    assert 35.0 < import_kw(settle(full, 1)) <= 40.0
    decision = full.tick(ev.EnvelopeWithdrawn(request_id="", envelope_id="b", reason=""))
    assert decision.outcomes[-1] == ev.Done("b")
    assert 45.0 < import_kw(settle(full, 15)) <= 50.0
    assert full.tick(ev.EnvelopeWithdrawn(request_id="", envelope_id="b", reason="")).outcomes[-1] == ev.NotFound(
        "envelope 'b'"
    )


def test_a_silent_operator_never_means_unlimited(full: Player) -> None:
    """Ask 16 (evcc#29705: a failsafe was released wrongly; #32132): silent for longer than promised, the failsafe limit
    holds, past the end of the window too, until he speaks again.
    """
    full.tick(said(60.0, end_s=100.0, heartbeat_s=30.0))
    while full.now_s < 33:
        assert import_kw(full.tick()) > 55.0
    decision = settle(full, 3)
    assert import_kw(decision) <= 35.0
    assert any("not heard within 30 s, 35 kW holds" in alarm for alarm in decision.alarms)
    assert decision.modes == (Trigger.OPERATOR_SILENT,)
    while full.now_s < 300:
        assert import_kw(full.tick()) <= 35.0
    full.tick(said(60.0, end_s=1000.0, heartbeat_s=30.0))
    assert import_kw(settle(full, 20)) > 55.0


@pytest.mark.parametrize("kw", [40.0, 50.0])
def test_said_again_without_a_start_it_is_the_one_that_has_begun(full: Player, kw: float) -> None:
    """The usual heartbeat says no start; only other words are another envelope, from now on."""
    begun = full.tick(said(40.0, heartbeat_s=60.0)).snapshot.envelopes[0]
    settle(full, 20)
    (before,) = full.snapshot.envelopes
    full.tick(said(kw, heartbeat_s=60.0))
    (after,) = full.snapshot.envelopes
    assert before.kept_utc_s is not None
    assert after.heard_s == full.now_s
    if kw == 40.0:
        assert (after.start_utc_s, after.in_force_utc_s) == (before.start_utc_s, begun.in_force_utc_s)
        assert after.kept_utc_s == before.kept_utc_s
    else:
        assert after.start_utc_s == after.in_force_utc_s == (START + timedelta(seconds=full.now_s)).timestamp()


def test_said_again_in_time_it_goes_on(full: Player) -> None:
    """A heartbeat is the same envelope once more: neither its proof nor its window begins anew."""
    full.tick(said(60.0, heartbeat_s=10.0, start_s=1.0))
    settle(full, 8)
    (before,) = full.snapshot.envelopes
    for _ in range(6):
        decision = full.tick(said(60.0, heartbeat_s=10.0, start_s=1.0))
        decision = settle(full, 8)
        assert import_kw(decision) > 55.0
    (one,) = decision.snapshot.envelopes
    assert before.kept_utc_s is not None
    assert (one.in_force_utc_s, one.kept_utc_s) == (before.in_force_utc_s, before.kept_utc_s)


def test_below_what_is_guaranteed_it_is_obeyed_and_declared(full: Player) -> None:
    """Ask 17 and R5: below min_envelope_kw ceilings fall all the same, and it is told for as long as it lasts."""
    decision = full.tick(said(20.0))
    assert import_kw(decision) <= 20.0
    assert any(alarm.startswith("below_fallback: envelope night of dso: 20 kW") for alarm in decision.alarms)
    assert not any(alarm.startswith("below_fallback") for alarm in full.tick(said(40.0)).alarms)


@pytest.mark.parametrize(("failsafe", "least_kw"), [("", 200.0), (", failsafe_limit_kw: 35", 35.0)])
def test_without_a_lowest_envelope_the_other_limits_are_what_is_guaranteed(
    tmp_path: Path, failsafe: str, least_kw: float
) -> None:
    """``powerd check`` proved R5 at these: below them it is declared, from them on it is not."""
    grid = f"grid_connection: {{import_limit_kw: 200{failsafe}}}\n"
    player = Player.open(tmp_path, f"{site_text(4, 400.0, fallback_a=6.0)}{grid}")
    for kw, below in ((5000.0, False), (least_kw, False), (least_kw - 1.0, True)):
        alarms = player.tick(said(kw)).alarms
        assert any(alarm.startswith("below_fallback") for alarm in alarms) is below


def test_a_site_without_an_import_limit_takes_no_envelope(tmp_path: Path) -> None:
    """There is no limit that it could lower; the answer says what to write."""
    player = Player.open(tmp_path, site_text(4, 400.0))
    refusal = player.tick(said(40.0)).outcomes[-1]
    assert isinstance(refusal, ev.Refused)
    assert "grid_connection.import_limit_kw" in refusal.expected
    assert player.snapshot.envelopes == ()


def test_a_window_that_is_over_is_refused(full: Player) -> None:
    """An operator whose clock is wrong is told so, instead of being ignored."""
    refusal = full.tick(said(40.0, end_s=1.0)).outcomes[-1]
    assert refusal == ev.Refused("end_time", "after start_time and after now")


def test_a_retry_changes_nothing(full: Player) -> None:
    """The same request id is answered as before and is no heartbeat."""
    full.tick(said(40.0, request_id="r1"))
    (before,) = full.snapshot.envelopes
    full.tick()
    decision = full.tick(said(40.0, request_id="r1"))
    assert decision.outcomes[-1] == ev.Done("night")
    assert decision.snapshot.envelopes[0].heard_s == before.heard_s


def test_a_restart_keeps_it(full: Player) -> None:
    """Acknowledged is durable: the envelope holds from the first tick on, its window went on meanwhile."""
    full.tick(said(40.0, end_s=500.0))
    settle(full, 2)
    full.snapshot = reopen_snapshot(full.snapshot, full.site.terms, instant(200.0))
    full.now_s, full.decision = 200.0, None
    for c in range(2):
        full.hello(c, highest_epoch=1, ceiling=10.0, remaining_s=5.0)
    assert import_kw(full.tick()) <= 40.0
    assert import_kw(settle(full, int(LIFE) + 3)) <= 40.0
    while full.now_s < 500:
        full.tick()
    assert settle(full, int(LIFE)).ceiling == pytest.approx(32.0)


@pytest.mark.parametrize("end_s", [None, 20.0])
def test_a_restart_is_no_word_of_a_silent_operator(full: Player, end_s: float | None) -> None:
    """35 kW, the failsafe limit, held before the restart; it holds after it, also where the window has ended."""
    full.tick(said(40.0, heartbeat_s=10.0, end_s=end_s))
    assert import_kw(settle(full, 40)) <= 35.0
    reopen(full, 200.0)
    for _ in range(60):
        assert import_kw(full.tick()) <= 35.0
    assert Trigger.OPERATOR_SILENT in full.tick().modes


def test_a_window_that_ends_unheard_while_the_daemon_is_down_holds_until_its_operator_is_silent(full: Player) -> None:
    """A word was still owed before the window's end: after the restart 40 kW hold for a heartbeat, then the failsafe
    limit, until it is withdrawn.
    """
    full.tick(said(40.0, heartbeat_s=10.0, end_s=50.0))
    reopen(full, 200.0)
    assert import_kw(full.tick()) <= 40.0
    assert Trigger.OPERATOR_SILENT not in full.tick().modes
    assert import_kw(settle(full, int(LIFE) + 12)) <= 35.0
    assert Trigger.OPERATOR_SILENT in full.tick().modes
    full.tick(ev.EnvelopeWithdrawn(request_id="", envelope_id="night", reason="over"))
    assert settle(full, int(LIFE)).ceiling == pytest.approx(32.0)


def test_another_restart_releases_no_window_that_ended_unheard(full: Player) -> None:
    """What the first restart holds, the second holds as well, though a heartbeat from the first reaches past the
    window's end: 40 kW, and the failsafe limit once the operator is silent.
    """
    full.tick(said(40.0, heartbeat_s=60.0, end_s=300.0))
    settle(full, 2)
    for restart_s in (400.0, 415.0):
        reopen(full, restart_s)
        assert import_kw(settle(full, 10)) <= 40.0
    assert import_kw(settle(full, 60)) <= 35.0
    assert Trigger.OPERATOR_SILENT in full.tick().modes


def test_a_window_that_was_promised_to_its_end_ends_while_the_daemon_is_down(full: Player) -> None:
    """No word was owed any more: nothing is left of it after the restart."""
    full.tick(said(40.0, heartbeat_s=100.0, end_s=50.0))
    reopen(full, 200.0)
    full.tick()
    assert full.snapshot.envelopes == ()


@pytest.mark.parametrize("restarts", [1, 2])
@pytest.mark.parametrize("behind_s", [120.0, 3e8])
def test_a_restart_whose_wall_clock_is_behind_ends_no_envelope(full: Player, behind_s: float, restarts: int) -> None:
    """A machine without a clock of its own starts long before the window by its wall clock: 40 kW hold all the same,
    and end when the clock has been set and says so.
    """
    settle(full, 100)
    full.tick(said(40.0, end_s=500.0))
    settle(full, 2)
    for k in range(restarts):
        reopen(full, 20.0 + k, wall_ahead_s=-behind_s)
        assert import_kw(settle(full, 1)) <= 40.0
        assert import_kw(settle(full, int(LIFE) + 3)) <= 40.0
    full.wall_ahead_s = 500.0
    assert settle(full, int(LIFE) + 3).ceiling == pytest.approx(32.0)
    assert full.snapshot.envelopes == ()


def test_a_restart_whose_wall_clock_is_behind_puts_no_window_off(full: Player) -> None:
    """60 s before its start the daemon is killed; by the clock that it finds the window is years away, and it begins
    after 60 s.
    """
    full.tick(said(40.0, start_s=full.now_s + 61.0))
    reopen(full, 20.0, wall_ahead_s=-1e8)
    while full.now_s < 79.0:
        decision = full.tick()
    assert decision.ceiling == pytest.approx(32.0)
    assert import_kw(full.tick()) <= 40.0


@pytest.mark.parametrize("reboots", [False, True])
def test_after_a_restart_the_wall_clock_alone_ends_no_window(full: Player, reboots: bool) -> None:
    """A window ends when both clocks say so, after a restart too: wall clocks that show the time of after its end for a
    moment release nothing, and at its end it ends.
    """
    full.snapshot = replace(full.snapshot, boot="first")
    full.tick(said(40.0, end_s=200.0))
    settle(full, 2)
    if reboots:
        off_s = 60.0
        reopen(full, 10.0, wall_ahead_s=full.now_s + off_s - 10.0, boot="second")
    else:
        reopen(full, full.now_s + 2.0, boot="first")
    ahead_s = full.wall_ahead_s
    assert import_kw(settle(full, 2)) <= 40.0
    full.wall_ahead_s = ahead_s + 7200.0
    assert import_kw(full.tick()) <= 40.0
    full.wall_ahead_s = ahead_s
    while full.now_s + ahead_s < 199.0:
        assert import_kw(full.tick()) <= 40.0
    assert full.snapshot.envelopes != ()
    full.tick()
    assert full.snapshot.envelopes == ()


def test_a_restart_whose_wall_clock_is_ahead_ends_no_window_on_the_same_boot(full: Player) -> None:
    """Stepped while the daemon was down: the boottime clock went on, and it says that the window lasts."""
    full.snapshot = replace(full.snapshot, boot="first")
    full.tick(said(40.0, end_s=200.0))
    settle(full, 2)
    reopen(full, full.now_s + 2.0, wall_ahead_s=7200.0, boot="first")
    while full.now_s < 199.0:
        assert import_kw(full.tick()) <= 40.0
    full.tick()
    assert full.snapshot.envelopes == ()


def test_a_restart_on_the_same_boot_puts_no_window_off(full: Player) -> None:
    """The time that the daemon was down counts as well: by the boottime clock the window begins when it was said to."""
    full.snapshot = replace(full.snapshot, boot="first")
    start_s = full.now_s + 61.0
    full.tick(said(40.0, start_s=start_s))
    reopen(full, full.now_s + 30.0, wall_ahead_s=-1e8, boot="first")
    while full.now_s < start_s - 1.0:
        decision = full.tick()
    assert decision.ceiling == pytest.approx(32.0)
    assert import_kw(full.tick()) <= 40.0


def reopen(player: Player, now_s: float, *, wall_ahead_s: float = 0.0, boot: str = "") -> None:
    """The daemon starts again at ``now_s`` with what it had journalled; the controllers are back."""
    player.wall_ahead_s = wall_ahead_s
    player.snapshot = reopen_snapshot(player.snapshot, player.site.terms, instant(now_s, wall_ahead_s), boot)
    player.now_s, player.decision = now_s, None
    for c in range(2):
        player.hello(c, highest_epoch=1, ceiling=6.0, remaining_s=0.0)


def test_an_id_belongs_to_the_source_that_took_it(full: Player) -> None:
    """Another operator's 70 kW do not replace 40 kW by the same name: the lowest counts, whoever set it."""
    full.tick(said(40.0))
    refusal = full.tick(replace(said(70.0), source="market")).outcomes[-1]
    assert isinstance(refusal, ev.Refused)
    assert "dso" in refusal.expected
    assert full.snapshot.envelopes[0].import_limit_kw == 40.0


def test_too_many_are_refused(full: Player) -> None:
    """A bound on memory; those that are known can still be replaced."""
    many = [said(40.0, name=f"e{k}") for k in range(envelopes.ENVELOPES_MAX)]
    full.tick(*many)
    assert len(full.snapshot.envelopes) == envelopes.ENVELOPES_MAX
    refusal, replaced = full.tick(said(40.0, name="more"), said(41.0, name="e7")).outcomes[-2:]
    assert isinstance(refusal, ev.Refused)
    assert replaced == ev.Done("e7")


SECONDS = st.integers(0, 100).map(float)
WINDOWS = st.tuples(st.floats(0, 200), SECONDS, SECONDS | st.just(np.inf), st.sampled_from([5.0, 30.0, np.inf]))


@given(st.lists(WINDOWS, min_size=1, max_size=6), SECONDS, st.floats(0, 60) | st.just(np.nan))
@settings(max_examples=300, deadline=None)
def test_the_bound_is_the_lowest_that_holds(
    windows: list[tuple[float, float, float, float]], at_s: float, failsafe_kw: float
) -> None:
    """bound = min over the envelopes in their window or silent of min(limit, failsafe if silent); stated once more
    here, window by window; watching forgets none that holds or is still to come.
    """
    known: envelopes.Envelopes = ()
    for k, (kw, start_s, length_s, heartbeat_s) in enumerate(windows):
        one = envelopes.Envelope(
            envelope_id=str(k),
            source="s",
            reason="",
            import_limit_kw=kw,
            start_utc_s=start_s,
            end_utc_s=start_s + length_s,
            heartbeat_s=heartbeat_s,
            heard_s=0.0,
            starts_s=start_s,
            ends_s=start_s + length_s,
        )
        known = envelopes.put(known, one) or known
    now = Now(utc=datetime.fromtimestamp(at_s, UTC), boottime_s=at_s)
    at = now.utc.timestamp()
    expected = [
        min(kw, failsafe_kw) if at_s > heartbeat_s and not np.isnan(failsafe_kw) else kw
        for kw, start_s, length_s, heartbeat_s in windows
        if at_s > heartbeat_s or start_s <= at < start_s + length_s
    ]
    found = envelopes.bound(known, failsafe_kw, now)
    assert (None if found is None else found.import_limit_kw) == (min(expected) if expected else None)
    after = envelopes.watch(known, failsafe_kw, 0.0, now)
    assert envelopes.bound(after, failsafe_kw, now) == found
    future = {one.envelope_id for one in known if at < one.start_utc_s}
    assert future <= {one.envelope_id for one in after}
