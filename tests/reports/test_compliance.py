"""``powerd replay --envelopes``: what an operator shows afterwards, from the record alone."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powerd.control import events as ev
from powerd.journal.store import Entry, Journal
from powerd.reports.replay import ReplayOptions, run_replay
from powerd.state.snapshot import reopen_snapshot
from tests.control.garage import LIFE, REACTION, Player, instant, site_text
from tests.control.test_envelopes import GRID, said

OBEYING = 14.0
"""What a car draws that follows its ceiling under 40 kW [A]."""


def record(
    folder: Path,
    *told: tuple[int, ev.EnvelopeSet | ev.EnvelopeWithdrawn],
    ticks: int = 80,
    stepped: tuple[int, float] = (0, 0.0),
    drawn: float | None = None,
    obeys_at: int | None = None,
    restarts_at: int | None = None,
    code: int = 0,
) -> list[dict[str, object]]:
    """A full garage's journal, in which so much is told at these seconds, and the wall clock stepped at one by so
    many; the envelopes as its replay, which ends with ``code``, tells them. All cars draw ``drawn`` [A], if it is said,
    until this second. The daemon restarts before that one, and its controllers say nothing more.
    """
    text = f"{site_text(4, 400.0, fallback_a=6.0)}{GRID}\n"
    (folder / "site.yaml").write_text(text, encoding="utf-8")
    player = Player.open(folder, text)
    journal = Journal(folder / "j", evse_ids=player.site.electrical.posts.ids)
    for k in range(4):
        player.plug(k)
    for c in range(2):
        player.hello(c)
    decision = player.tick()
    journal.start(decision.snapshot, decision.now)
    for second in range(ticks):
        player.wall_ahead_s = stepped[1] if second >= stepped[0] else 0.0
        if second == restarts_at:
            journal = restarted(journal, folder, player)
        amps = OBEYING if obeys_at is not None and second >= obeys_at else drawn
        reading = [] if amps is None else [player.draw(dict.fromkeys(range(4), amps))]
        decision = player.tick(*[envelope for at_s, envelope in told if at_s == second], *reading)
        journal.commit([Entry(now=decision.now, events=player.absorbed, decision=decision)])
    journal.close()
    out = StringIO()
    options = ReplayOptions(journal=folder / "j", site=folder, verify=True, envelopes=True)
    assert run_replay(options, as_json=True, out=out) == code
    found: list[dict[str, object]] = json.loads(out.getvalue())["envelopes"]
    return found


def restarted(journal: Journal, folder: Path, player: Player) -> Journal:
    """The next daemon, a second later, with what the one before has left."""
    journal.close()
    journal = Journal(folder / "j", evse_ids=player.site.electrical.posts.ids)
    found = journal.recover(player.snapshot)
    assert found is not None
    player.now_s += 1
    player.snapshot, player.decision = reopen_snapshot(found, player.site.terms, instant(player.now_s)), None
    player.alive.clear()
    journal.start(player.snapshot, instant(player.now_s))
    return journal


def number(row: dict[str, object], key: str) -> float:
    """A figure of a row."""
    value = row[key]
    assert isinstance(value, float)
    return value


def test_an_envelope_that_was_kept_says_since_when_and_how_well(tmp_path: Path) -> None:
    """From ack and reaction on never more than its 40 kW could have been imported; one that never came to hold is
    not told.
    """
    (row,) = record(tmp_path, (10, said(40.0, end_s=60.0)), (10, said(50.0, name="later", start_s=1000.0)))
    assert (row["envelope_id"], row["source"], row["import_limit_kw"]) == ("night", "dso", 40.0)
    assert REACTION <= number(row, "complied_s") <= REACTION + 2
    assert 35.0 < number(row, "worst_import_kw") <= 40.0
    assert (row["lapsed_s"], row["silent"]) == (0.0, False)
    assert row["in_force_since"] == "2026-01-01T00:00:12.000+00:00"
    assert row["in_force_until"] == "2026-01-01T00:00:59.000+00:00"


def test_one_that_is_replaced_is_another_course(tmp_path: Path) -> None:
    """Each limit has its own: in force, kept, and what could be imported meanwhile."""
    first, second = record(tmp_path, (10, said(60.0)), (40, said(40.0)))
    assert (first["import_limit_kw"], second["import_limit_kw"]) == (60.0, 40.0)
    assert 40.0 < number(first, "worst_import_kw") <= 60.0
    assert number(second, "worst_import_kw") <= 40.0
    assert str(first["in_force_until"]) < str(second["in_force_since"])


@pytest.mark.parametrize(
    "between", [said(150.0, start_s=12.0), ev.EnvelopeWithdrawn(request_id="", envelope_id="night", reason="")]
)
def test_one_that_is_set_again_is_another_course(
    tmp_path: Path, between: ev.EnvelopeSet | ev.EnvelopeWithdrawn
) -> None:
    """The same words, with the same start, after another limit or a withdrawal: what could be imported meanwhile is
    not told of either, nor is the time between told as one in which it was in force.
    """
    again = said(40.0, start_s=12.0)
    rows = record(tmp_path, (10, again), (30, between), (50, again))
    first, second = (row for row in rows if row["import_limit_kw"] == 40.0)
    assert max(number(first, "worst_import_kw"), number(second, "worst_import_kw")) <= 40.0
    assert (first["in_force_until"], first["lapsed_s"]) == ("2026-01-01T00:00:31.000+00:00", 0.0)
    assert (second["in_force_since"], second["lapsed_s"]) == ("2026-01-01T00:00:52.000+00:00", 0.0)


@pytest.mark.parametrize("ahead_s", [-3600.0, 7200.0])
@pytest.mark.parametrize("heartbeat_s", [np.inf, 20.0])
def test_a_stepped_wall_clock_changes_no_duration(tmp_path: Path, ahead_s: float, heartbeat_s: float) -> None:
    """Stepped between force and compliance, or while it is not kept: as long as on the clock that nobody sets."""
    told = 10, said(60.0, heartbeat_s=heartbeat_s)
    silent_s = 10 + int(heartbeat_s) if np.isfinite(heartbeat_s) else 10
    for k, step in enumerate([(0, 0.0), (silent_s + 3, ahead_s)]):
        (tmp_path / str(k)).mkdir()
        (row,) = record(tmp_path / str(k), told, stepped=step)
        found = number(row, "complied_s"), number(row, "lapsed_s")
        assert REACTION <= found[0] <= REACTION + 2
        assert found[1] == (0.0 if heartbeat_s == np.inf else pytest.approx(REACTION + 1, abs=1.0))


def test_a_source_that_fell_silent_is_told(tmp_path: Path) -> None:
    """60 kW, then silence: the failsafe limit holds, and until the cars have followed it is not kept."""
    (row,) = record(tmp_path, (10, said(60.0, heartbeat_s=20.0)))
    assert row["silent"] is True
    assert REACTION <= number(row, "lapsed_s") <= REACTION + 2


@pytest.mark.parametrize(("kw", "ticks", "code"), [(40.0, 100, 1), (40.0, 80, 0), (20.0, 100, 0)])
def test_one_that_is_guaranteed_and_never_kept_is_no_success(tmp_path: Path, kw: float, ticks: int, code: int) -> None:
    """Cars that do not obey: exit 1, unless leases may live still, for a minute more where cars lag, or the site file
    promises no such limit (30 kW).
    """
    (row,) = record(tmp_path, (10, said(kw)), ticks=ticks, drawn=30.0, code=code)
    assert (row["complied_s"], row["guaranteed"], row["broken"]) == (None, kw >= 30.0, code == 1)
    out = StringIO()
    run_replay(ReplayOptions(journal=tmp_path / "j", site=tmp_path, envelopes=True), as_json=False, out=out)
    assert "never kept in" in out.getvalue()
    assert ("BROKEN" in out.getvalue()) == (code == 1)


@pytest.mark.parametrize("slow", [{"drawn": 30.0, "obeys_at": 40}, {"restarts_at": 12}], ids=["lag", "restart"])
def test_what_ends_before_leases_had_to_end_is_not_broken(tmp_path: Path, slow: dict[str, Any]) -> None:
    """A car that lags by 30 s is waited for as long as it was seen to; after a restart a whole lease counts anew."""
    (row,) = record(tmp_path, (10, said(40.0, end_s=35.0)), **slow)
    assert (row["complied_s"], row["guaranteed"], row["broken"]) == (None, True, False)
    out = StringIO()
    run_replay(ReplayOptions(journal=tmp_path / "j", site=tmp_path, envelopes=True), as_json=False, out=out)
    held, allowed = map(float, re.findall(r"([0-9.]+) s", out.getvalue().rpartition("never kept in")[2]))
    assert LIFE + 1.0 < held < allowed < LIFE + 30.0


def test_people_read_it_in_a_sentence(tmp_path: Path) -> None:
    """The same without ``--json``; without ``--envelopes`` nothing of it."""
    record(tmp_path, (10, said(40.0)))
    for envelopes in (True, False):
        out = StringIO()
        run_replay(ReplayOptions(journal=tmp_path / "j", site=tmp_path, envelopes=envelopes), as_json=False, out=out)
        assert ("night of dso: 40 kW in force 2026-01-01T00:00:12.000+00:00 to" in out.getvalue()) == envelopes
        assert (" s, from then on at most 40 kW could be imported" in out.getvalue()) == envelopes


@pytest.mark.parametrize("ticks", [0, 5])
def test_where_nothing_was_told_nothing_is(tmp_path: Path, ticks: int) -> None:
    """An empty list, also in a record that ends at once."""
    assert record(tmp_path, ticks=ticks) == []
