"""Journals of other versions: older ones are brought forward, newer ones refused."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path

import apsw
import numpy as np
import pytest

from powerd.control import events as ev
from powerd.journal import layout
from powerd.journal.cells import Packed, cell_of, cells_of
from powerd.journal.replay import replay
from powerd.journal.store import Entry, Journal, JournalBroken
from powerd.state import leases
from powerd.state.snapshot import ANSWER_PAGES, reopen_snapshot
from tests.control.garage import LIFE, TTL, Player, instant, site_text

DATA = Path(__file__).parent / "data"


def of_version(version: int, path: Path) -> None:
    """A journal as that version of powerd wrote it: the garage of two posts, a car and a stop."""
    with sqlite3.connect(path) as db:
        db.executescript((DATA / f"version_{version}.sql").read_text(encoding="utf-8"))
    db.close()


@pytest.mark.parametrize("version", range(1, layout.VERSION))
def test_a_journal_of_an_older_version_is_brought_forward(tmp_path: Path, version: int) -> None:
    """Sessions, stops, answers, readings and leases are all there, the daemon goes on, and the file is ours now.

    A replay checks the chain of the records of before, and steps through those of ours.
    """
    player = Player.open(tmp_path, site_text(2, 32.0))
    of_version(version, tmp_path / "j")
    journal = Journal(tmp_path / "j", evse_ids=player.site.electrical.posts.ids)
    found = journal.recover(player.snapshot)
    assert found is not None
    assert found.sessions.session_id == ("ä car", "")
    assert found.sessions.requested_kwh[0] == 9.0
    assert (found.sessions.min_ceiling[1], found.sessions.max_ceiling[1]) == (0.0, np.inf)  # nothing was said there
    assert found.drawn[0].tolist() == [5.5, 5.5, 5.5]
    assert [(s.stop_id, s.element, s.evse.tolist(), s.reason) for s in found.stops] == [("s", "P1", [1], "smoke")]
    newest, *empty = found.answered
    assert [(one.request_id, one.key, one.evse.tolist()) for one in newest] == [("r1", "ä car", [0]), ("r2", "s", [1])]
    assert empty == [()] * (ANSWER_PAGES - 1)
    assert found.tick == 3
    assert found.leases.sent_ceiling[0] == pytest.approx(32.0, abs=1e-5)
    assert np.isfinite(found.leases.echo_at_s).all()
    assert found.leases.life_s == pytest.approx(np.full(2, LIFE))
    player.snapshot = reopen_snapshot(found, player.site.terms, instant(50.0))
    player.now_s = 50.0
    retry = ev.SessionStarted(request_id="r1", evse=0, session_id="ä car", demand=ev.Demand(requested_energy_kwh=9.0))
    first = player.tick(retry)
    assert first.outcomes[-1] == ev.Done("ä car", (0,))
    journal.start(player.snapshot, first.now)
    second = player.tick()
    journal.commit([Entry(now=second.now, events=player.absorbed, decision=second)])
    journal.close()
    db = apsw.Connection(str(tmp_path / "j"))
    assert dict(db.execute("SELECT key, value FROM about"))["version"] == str(layout.VERSION)
    assert {path for (path,) in db.execute("SELECT path FROM cells")} == cells_of(player.snapshot).keys()
    db.close()
    again = replay(tmp_path / "j", player.site, verify=True)
    assert (again.fault, again.ticks, again.older) == (None, 1, {1: 0, 3: 1}.get(version, 4))


def test_a_journal_that_tells_no_terms_holds_leases_for_as_long_as_they_were_given(tmp_path: Path) -> None:
    """R3 over an upgrade and a site file with a shorter ttl at once: layout 5 tells an E by when it was sent."""
    player = Player.open(tmp_path, site_text(2, 32.0).replace(f"ttl_s: {TTL}", "ttl_s: 6"))
    of_version(5, tmp_path / "j")
    found = Journal(tmp_path / "j", evse_ids=player.site.electrical.posts.ids).recover(player.snapshot)
    assert found is not None
    book = reopen_snapshot(found, player.site.terms, instant(50.0)).leases
    plugged, drawn = found.sessions.plugged, np.zeros(2)
    assert leases.worst(book, player.site.terms, plugged, drawn, 50.0 + LIFE - 0.01)[0] == pytest.approx(32.0)
    assert leases.worst(book, player.site.terms, plugged, drawn, 50.0 + LIFE + 0.01)[0] == 0.0


def test_a_journal_of_two_devices_an_element_tells_who_spoke_of_losses_and_where_switches_stood(tmp_path: Path) -> None:
    """A word that was late before the upgrade is late after it, and a switch that is where it was has not moved."""
    player = Player.open(tmp_path, site_text(2, 32.0))
    of_version(6, tmp_path / "j")
    found = Journal(tmp_path / "j", evse_ids=player.site.electrical.posts.ids).recover(player.snapshot)
    assert found is not None
    supply = found.gear.position.shape[0]
    assert found.gear.told_by[supply].tolist() == [9, 0, 0, 0]
    assert found.gear.told_clock_s[supply].tolist() == [90.0, 0.0, 0.0, 0.0]
    assert found.gear.known_position.tolist() == found.gear.position.tolist()
    assert found.gear.operated == ()


def test_a_column_that_an_older_powerd_wrote_sparsely_is_read() -> None:
    """Of large sites, layouts up to 7: the last word, a bit for each that differs from it, and those."""
    column = np.full((2000, 3), -np.inf)
    column[[0, 7, 1999], [1, 0, 1]] = 1.5, np.nan, -0.0
    words = column.reshape(-1).view(np.int64)
    other = words != words[-1]
    data = words[-1:].tobytes() + np.packbits(other).tobytes() + words[other].tobytes()
    packed = Packed(dtype="sparse <f8", shape="2000,3", data=data, crc=zlib.crc32(data))
    path, again = cell_of(packed.row("leases/hold_until_s", 9))
    assert path == "leases/hold_until_s"
    assert (again.dtype, again.shape, again.tobytes()) == (column.dtype, column.shape, column.tobytes())


def test_a_damaged_journal_of_before_is_refused_when_it_is_brought_forward(tmp_path: Path) -> None:
    """As a damaged one of ours is, with what to do."""
    of_version(5, tmp_path / "j")
    with sqlite3.connect(tmp_path / "j") as db:
        db.execute("UPDATE cells SET crc = crc + 1 WHERE path = 'leases/sent_until_s'")
    db.close()
    with pytest.raises(JournalBroken, match=r"damaged \(leases/sent_until_s .*move the file away"):
        Journal(tmp_path / "j", evse_ids=("P0", "P1"))


def test_every_older_version_has_its_sample() -> None:
    """Whoever raises the version adds a file that the version before wrote, and the way from there."""
    samples = {int(path.stem.removeprefix("version_")) for path in DATA.glob("version_*.sql")}
    assert samples == set(range(1, layout.VERSION)) == set(layout.MIGRATIONS)


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All or nothing: the old powerd can still use the file."""
    of_version(1, tmp_path / "j")

    def full(db: apsw.Connection) -> None:
        db.execute("ALTER TABLE columns RENAME TO cells")
        raise apsw.FullError("database or disk is full")

    monkeypatch.setitem(layout.MIGRATIONS, 1, full)
    with pytest.raises(JournalBroken, match="disk is full"):
        Journal(tmp_path / "j", evse_ids=("P0", "P1"))
    monkeypatch.undo()
    Journal(tmp_path / "j", evse_ids=("P0", "P1")).close()


def test_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A layout from the future is named as such, with what to do."""
    Journal(tmp_path / "j", evse_ids=("P0",)).close()
    db = apsw.Connection(str(tmp_path / "j"))
    db.execute("UPDATE about SET value = ? WHERE key = 'version'", (str(layout.VERSION + 1),))
    db.close()
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(JournalBroken, match=r"newer powerd .*; run that one, or move the file away"):
        Journal(tmp_path / "j", evse_ids=("P0",))
    assert (tmp_path / "j").read_bytes() == before


def test_another_programs_database_is_no_journal(tmp_path: Path) -> None:
    """It is refused and not touched."""
    with sqlite3.connect(tmp_path / "j") as db:
        db.execute("CREATE TABLE theirs (a)")
    db.close()
    with pytest.raises(JournalBroken, match="no journal of powerd"):
        Journal(tmp_path / "j", evse_ids=("P0",))
