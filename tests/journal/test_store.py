"""The journal file: what was committed is found again, and what cannot be used is refused with a mend."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.codec import encode
from powerd.control import events as ev
from powerd.control.compiled import CompiledSite
from powerd.daemon import _open_journal
from powerd.journal import cells as cells_module
from powerd.journal import store
from powerd.journal import writer as writer_module
from powerd.journal.cells import (
    ENERGY,
    FORGOTTEN,
    READINGS,
    Packed,
    cell_of,
    cells_of,
    kept_of,
    pack,
    pack_kept,
    snapshot_of,
)
from powerd.journal.drawing import fingerprint_of
from powerd.journal.layout import VERSION
from powerd.journal.log import lay_out
from powerd.journal.replay import replay
from powerd.journal.store import BOUND_BYTES, Entry, Journal, JournalBroken
from powerd.journal.trouble import told
from powerd.journal.writer import JournalWriter, _Job
from powerd.network.load import load_site
from powerd.state.snapshot import ANSWERS_A_PAGE, Snapshot, largest_phase, reopen_snapshot
from powerd.state.switchgear import Position
from powerd.units import Now
from tests.control.garage import Player, instant, site_text
from tests.control.metered import metered_text, open_plant
from tests.control.test_step import ACTIONS, play
from tests.journal.disks import disk


def same(one: Snapshot, other: Snapshot) -> bool:
    """Bit-equal in all that is kept of every cell."""
    mine, theirs = ({path: kept_of(path, cell) for path, cell in cells_of(own).items()} for own in (one, other))
    return mine.keys() == theirs.keys() and all(encode(mine[path]) == encode(theirs[path]) for path in mine)


def entry(player: Player, *events: ev.Event) -> Entry:
    """The player's next tick, as the daemon hands it over."""
    decision = player.tick(*events)
    return Entry(now=decision.now, events=player.absorbed, decision=decision)


def at(player: Player) -> Now:
    """The player's instant."""
    return Now(utc=datetime.fromtimestamp(player.now_s, UTC), boottime_s=player.now_s)


@pytest.fixture
def player(tmp_path: Path) -> Player:
    """A garage with two cars and a stop."""
    player = Player.open(tmp_path, site_text(2, 32.0))
    player.plug(0)
    player.hello(0)
    player.hello(1)
    player.tick(ev.SessionStarted(request_id="r1", evse=0, session_id="ä car", demand=ev.Demand(weight=2.0)))
    player.tick(ev.StopOrdered(request_id="r2", stop_id="s", element="P1", evse=np.array([1]), reason="smoke"))
    return player


def journal_at(path: Path, player: Player) -> Journal:
    """Opens a journal for the player's site."""
    return Journal(path, evse_ids=player.site.electrical.posts.ids)


@settings(max_examples=25, deadline=None)
@given(actions=ACTIONS)
def test_a_snapshot_survives_its_record(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, float]]
) -> None:
    """Every column and every id comes back bit-equal, after any story."""
    path = tmp_path_factory.mktemp("j")
    player = Player.open(path, site_text(6, 37.0))
    empty = player.snapshot
    player.hello(0)
    play(player, actions)
    rows = [pack(cell).row(name, 1) for name, cell in cells_of(player.snapshot).items()]
    assert same(snapshot_of(empty, dict(map(cell_of, rows))), player.snapshot)


@given(others=st.lists(st.tuples(st.integers(0, 9999), st.floats()), max_size=20), seed=st.integers(0, 9))
def test_a_large_column_survives_whatever_repeats(others: list[tuple[int, float]], seed: int) -> None:
    """Bit by bit; where little differs from the row above it takes little, in whichever column of it."""
    fill = [[0.0], [-0.0, 0.0, 1.0, 2.0, np.nan], [np.inf], [np.nan], [7.5]][seed % 5]
    column = np.full((2000, 5), fill)
    for place, value in others:
        column.reshape(-1)[place] = value
    packed = pack(column)
    name, again = cell_of(packed.row("x", 1))
    assert (name, again.dtype, again.shape, again.tobytes()) == ("x", column.dtype, column.shape, column.tobytes())
    assert len(packed.data) <= 40 + 20 * 2 * 12
    dense = np.random.default_rng(seed).random(5000)
    assert cell_of(pack(dense).row("x", 1))[1].tobytes() == dense.tobytes()


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_column_is_written_as_what_differs_as_long_as_that_is_shorter(width: int, more: int) -> None:
    """Eight bytes a word and four for its place, against eight bytes for each: to the last entry."""
    place = np.arange(3000)
    most = (8 * 3000 - 8 * width - 1) // 12
    others = (place >= width) & (place < width + most + more)
    column = np.cumsum(others.reshape(-1, width), axis=0).astype(np.float64)
    packed = pack(column)
    assert packed.dtype.startswith("runs") == (more <= 0)
    assert cell_of(packed.row("x", 1))[1].tobytes() == column.tobytes()


@pytest.mark.parametrize("phase", range(3))
def test_a_phase_without_a_number_keeps_the_readings_whole(phase: int) -> None:
    """Whichever it is, and whatever the others say."""
    drawn = np.ones((1000, 3)) * [1.0, 2.0, 3.0]
    drawn[500, phase] = np.nan
    assert np.isnan(cell_of(pack_kept(READINGS, drawn).row(READINGS, 1))[1][500])


AMPS = st.floats(0.0, 1e6) | st.integers(0, 70_000).map(lambda milli: milli / 1000.0)


NO_NUMBER = st.sampled_from([-1.0, np.nan, np.inf, 1e9])


@given(some=st.lists(AMPS | st.just(-0.0), min_size=1, max_size=30), odd=st.none() | NO_NUMBER)
def test_readings_are_kept_by_the_next_milliampere_above_and_energy_to_ten_watthours(
    some: list[float], odd: float | None
) -> None:
    """And of what was kept before the same, in half its bytes. A column in which one has no such number is whole."""
    values = np.resize([*some] if odd is None else [*some, odd], 1000)
    for path, cell, step in ((READINGS, np.outer(values, [0.5, 1.0, 0.5]), 1000.0), (ENERGY, values, 100.0)):
        packed, kept, whole = pack_kept(path, cell), kept_of(path, cell), values
        assert cell_of(packed.row(path, 1))[1].tobytes() == kept.tobytes() == kept_of(path, kept).tobytes()
        if path == READINGS:
            whole = largest_phase(cell)
            assert not np.any(kept < whole)
        if odd is not None:
            assert kept.tobytes() == whole.tobytes()
            continue
        off = (kept - whole) * step
        assert np.all(np.abs(off) <= (1.0 if path == READINGS else 0.5) + 1e-6)
        assert len(packed.data) <= 4 * values.shape[0]


@settings(max_examples=10, deadline=None)
@given(actions=ACTIONS, amps=st.floats(0.0, 60.0), kwh=st.floats(0.0, 700.0))
def test_what_is_not_kept_makes_next_to_no_difference_to_a_restart(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, float]], amps: float, kwh: float
) -> None:
    """The largest of three phases alone, to the next mA above it, and nothing of how cars use what they get: the same
    state bit by bit, but energy to 5 Wh, and W is never smaller, and larger by no more than that mA and its margin.
    """
    player = Player.open(tmp_path_factory.mktemp("j"), site_text(6, 37.0))
    empty, terms = player.snapshot, player.site.terms
    player.hello(0)
    play(player, actions)
    usage = replace(
        player.snapshot.usage, slack_since_s=np.full(6, 1.0), dry_since_s=np.full(6, 2.0), usable=np.ones(6)
    )
    # Some are above every ceiling: W follows it.
    drawn = np.outer(np.linspace(0.5, 1.0, 6), [3.0, amps, 10.0])
    uneven = replace(
        player.snapshot,
        usage=usage,
        drawn=drawn,
        sessions=replace(player.snapshot.sessions, energy_kwh=np.linspace(0.0, kwh, 6)),
    )
    rows = [pack(kept_of(path, cell)).row(path, 1) for path, cell in cells_of(uneven).items()]
    kept = snapshot_of(empty, dict(map(cell_of, rows)))
    mine, theirs = (cells_of(reopen_snapshot(state, terms, instant(99.0))) for state in (kept, uneven))
    assert np.abs(mine.pop(ENERGY) - theirs.pop(ENERGY)).max() <= 0.005 + 1e-9
    more = mine.pop("leases/hold_ceiling") - theirs.pop("leases/hold_ceiling")
    assert 0.0 <= more.min() <= more.max() <= 0.001 * 1.2
    assert {path: encode(cell) for path, cell in mine.items()} == {path: encode(cell) for path, cell in theirs.items()}


def test_the_log_takes_its_place_on_the_disk_once(tmp_path: Path, player: Player) -> None:
    """Commits do not make it grow, what they wrote is found in a copy with its zeros, and a log that is there stays."""
    journal = journal_at(tmp_path / "j", player)
    empty = player.snapshot
    journal.start(player.snapshot, at(player))
    log = tmp_path / "j-wal"
    assert log.stat().st_size == store.WAL_BYTES
    for _ in range(5):
        journal.commit([entry(player)])
    assert log.stat().st_size == store.WAL_BYTES
    for suffix in ("", "-wal"):
        (tmp_path / f"copy{suffix}").write_bytes((tmp_path / f"j{suffix}").read_bytes())
    lay_out(tmp_path / "copy-wal", store.WAL_BYTES)
    assert (tmp_path / "copy-wal").read_bytes() == log.read_bytes()
    found = journal_at(tmp_path / "copy", player).recover(empty)
    assert found is not None
    assert same(found, player.snapshot)


def test_without_room_for_the_whole_log_it_grows(
    tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is nearly full is no reason not to start: what is committed is found again."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    journal = journal_at(tmp_path / "j", player)
    empty = player.snapshot
    journal.start(player.snapshot, at(player))
    journal.commit([entry(player)])
    assert 0 < (tmp_path / "j-wal").stat().st_size < store.WAL_BYTES
    found = journal.recover(empty)
    assert found is not None
    assert same(found, player.snapshot)


def test_a_log_for_which_there_is_too_little_room_takes_none(
    tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up on the way gets back what was taken of it: the next commit has it, and other programs."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: write(file, data[:100_000], offset))
    journal = journal_at(tmp_path / "j", player)
    journal.start(player.snapshot, at(player))
    assert (tmp_path / "j-wal").stat().st_size < 100_000
    journal.commit([entry(player)])


def test_what_a_restart_forgets_is_listed() -> None:
    """A field added to the snapshot is kept unless it is said here that it need not be."""
    assert FORGOTTEN == ("warm_stage", "warm_price")  # where a solve starts is no part of what is going on


def test_what_was_committed_is_found_again(tmp_path: Path, player: Player) -> None:
    """A file closed without ceremony (a copy of it with its WAL) gives the newest committed state."""
    journal = journal_at(tmp_path / "j", player)
    empty = player.snapshot
    journal.start(player.snapshot, at(player))
    journal.commit([entry(player)])
    for suffix in ("", "-wal"):
        (tmp_path / f"copy{suffix}").write_bytes((tmp_path / f"j{suffix}").read_bytes())
    found = journal_at(tmp_path / "copy", player).recover(empty)
    assert found is not None
    assert same(found, player.snapshot)


def test_only_cells_that_changed_are_written(tmp_path: Path, player: Player) -> None:
    """A new journal writes all, a tick writes what it changed."""
    journal = journal_at(tmp_path / "j", player)
    journal.start(player.snapshot, at(player))
    changed = journal.commit([entry(player, player.draw({0: 5.0}))])
    assert 0 < changed < len(cells_of(player.snapshot)) / 2


def test_a_new_answer_among_thousands_packs_and_writes_one_page_of_them(
    tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packing all of them for each held the whole daemon up for longer than a tripped breaker may wait. The page that
    got full makes room on the next one; all are found again.
    """
    packed_bytes: list[int] = []

    def pack_and_count(cell: object) -> Packed:
        packed = pack(cell)
        packed_bytes.append(len(packed.data))
        return packed

    def start(number: int) -> ev.SessionStarted:
        return ev.SessionStarted(request_id=f"n{number}", evse=0, session_id=f"c{number}", demand=ev.Demand())

    player.tick(*(start(number) for number in range(5000)))
    journal = journal_at(tmp_path / "j", player)
    journal.start(player.snapshot, at(player))
    monkeypatch.setattr(cells_module, "pack", pack_and_count)
    for number in range(5000, 5000 + ANSWERS_A_PAGE):
        journal.commit([entry(player, start(number))])
        assert 0 < sum(packed_bytes) < 20_000
        packed_bytes.clear()
    found = journal.recover(player.snapshot)
    assert found is not None
    assert same(found, player.snapshot)


def test_a_full_disk_loses_nothing_that_was_committed(tmp_path: Path, player: Player) -> None:
    """The commit fails with the file's name, the state before stands, and a later commit writes everything."""
    journal = journal_at(tmp_path / "j", player)
    empty = player.snapshot
    journal.start(player.snapshot, at(player))
    before = player.snapshot
    pages = journal._db.pragma("page_count")
    journal._db.pragma("max_page_count", pages)
    stop = ev.StopOrdered(request_id="", stop_id="x", element="P1", evse=np.array([1]), reason=100_000 * "x")
    with pytest.raises(JournalBroken, match="no ceiling is raised until it can be written"):
        journal.commit([entry(player, stop)])
    found = journal.recover(empty)
    assert found is not None
    assert same(found, before)
    journal._db.pragma("max_page_count", pages + 1000)
    journal.commit([entry(player)])
    later = journal.recover(empty)
    assert later is not None
    assert same(later, player.snapshot)
    assert [row[0] for row in journal._db.execute("SELECT tick FROM records ORDER BY number")][-2:] == [
        player.snapshot.tick - 1,
        player.snapshot.tick,
    ]


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_a_full_disk_is_named_as_such(tmp_path: Path, player: Player, size: int) -> None:
    """However much one commit writes: free space; never to move the file, and with it stops and leases, away."""
    reason = size * "x"
    stop = ev.StopOrdered(request_id="", stop_id="x", element="P1", evse=np.array([1]), reason=reason)
    with disk("full") as own:
        journal = Journal(tmp_path / "j", evse_ids=player.site.electrical.posts.ids, vfs="full")
        journal.start(player.snapshot, at(player))
        own.full = True
        with pytest.raises(JournalBroken, match="is full; free space") as broken:
            journal.commit([entry(player, stop)])
        assert "move the file away" not in str(broken.value)
        own.full = False
        journal.commit([entry(player)])
        journal.close()


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path, player: Player) -> None:
    """Its log is made durable once a commit, which a kill of the process alone would not notice (R3, R4)."""
    with disk("synced") as own:
        journal = Journal(tmp_path / "j", evse_ids=player.site.electrical.posts.ids, vfs="synced")
        journal.start(player.snapshot, at(player))
        assert own.synced[-1] == "wal"
        for _ in range(3):
            own.synced.clear()
            journal.commit([entry(player)])
            assert own.synced == ["wal"]
        journal.close()


def test_a_place_that_cannot_be_used_is_named_with_its_mend(tmp_path: Path, player: Player) -> None:
    """No folder, a folder itself, a stranger's file: each has its own mend, and only a bad file is to be moved away."""
    with pytest.raises(JournalBroken, match=r"no folder .*none: make it"):
        journal_at(tmp_path / "none" / "j", player)
    with pytest.raises(JournalBroken, match="this is a folder: name a file in it"):
        journal_at(tmp_path, player)
    (tmp_path / "j").write_bytes(5000 * b"x")
    with pytest.raises(JournalBroken, match="not a database; move the file away"):
        journal_at(tmp_path / "j", player)


def test_a_read_only_disk_is_named_as_such(tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's refusal to write, and any of its errors where the file system says so: mount it, move nothing."""
    journal = journal_at(tmp_path / "j", player)
    journal.start(player.snapshot, at(player))
    journal._db.pragma("query_only", 1)
    mend = r"the file system of .* is read-only: mount it for writing, or .* copied there; no ceiling is raised"
    with pytest.raises(JournalBroken, match=mend):
        journal.commit([entry(player)])
    journal._db.pragma("query_only", 0)
    journal.commit([entry(player)])
    like = os.statvfs(tmp_path)
    read_only = os.statvfs_result([*like[:8], like.f_flag | os.ST_RDONLY, like.f_namemax])
    monkeypatch.setattr(os, "statvfs", lambda _folder: read_only)
    assert "is read-only: mount it" in told(tmp_path / "j", apsw.IOError("disk I/O error"))


def test_a_disk_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for the mend never fails by itself: the writer's thread would end."""

    def gone(_folder: object) -> os.statvfs_result:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "statvfs", gone)
    assert "does not answer (Input/output error): mend it" in told(tmp_path / "j", apsw.IOError("disk I/O error"))


def test_a_disk_that_is_away_for_long_leaves_a_gap(
    tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Record that memory cannot hold is given up; the state is not, and a replay goes on behind the gap."""
    journal = journal_at(tmp_path / "j", player)
    journal.start(player.snapshot, at(player))
    monkeypatch.setattr(store, "PENDING_BYTES", 50_000)
    pages = journal._db.pragma("page_count")
    journal._db.pragma("max_page_count", pages)
    stop = ev.StopOrdered(request_id="", stop_id="x", element="P1", evse=np.array([1]), reason=100_000 * "x")
    for events in ((stop,), (), ()):
        with pytest.raises(JournalBroken):
            journal.commit([entry(player, *events)])
    journal._db.pragma("max_page_count", pages + 1000)
    journal.commit([entry(player)])
    journal.commit([entry(player)])
    journal.close()
    found = replay(tmp_path / "j", player.site, verify=True)
    assert found.fault is None
    assert (found.gaps, found.ticks) == (1, 1)


@pytest.mark.parametrize("place", ["store.tick_record", "cells.pack_kept"])
def test_a_tick_that_cannot_be_taken_in_leaves_a_gap(
    tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Whatever the reason: no hole in the record that nobody sees, and the next tick writes all that has changed."""
    journal, empty = journal_at(tmp_path / "j", player), player.snapshot
    journal.start(player.snapshot, at(player))

    def failing(*_: object) -> object:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(f"powerd.journal.{place}", failing)
        with pytest.raises(MemoryError):
            journal.commit([entry(player, ev.Measured(evse=np.array([0]), drawn=np.full((1, 3), 7.5)))])
    for _ in range(2):
        journal.commit([entry(player)])
        found = journal.recover(empty)
        assert found is not None
        assert found.drawn.max() == 7.5
        assert same(found, player.snapshot)
    journal.close()
    replayed = replay(tmp_path / "j", player.site, verify=True)
    assert (replayed.fault, replayed.gaps, replayed.ticks) == (None, 1, 1)


def test_the_record_stays_within_its_bound(tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole segments go at the old end; what is left can be replayed, and the newest state is untouched."""
    monkeypatch.setattr(store, "SEGMENT_BYTES", 20_000)
    bound = 150_000
    journal = Journal(tmp_path / "j", evse_ids=player.site.electrical.posts.ids, bound_bytes=bound)
    empty = player.snapshot
    journal.start(player.snapshot, at(player))
    for _ in range(600):
        journal.commit([entry(player, player.draw({0: float(player.now_s % 7)}))])
        journal.tidy()
        ((held,),) = journal._db.execute("SELECT sum(length(content)) FROM records")
        assert held <= bound + 30_000
    ((first,),) = journal._db.execute("SELECT min(number) FROM records")
    assert first > 1
    journal.close()
    assert replay(tmp_path / "j", player.site, verify=True).fault is None
    lower = Journal(tmp_path / "j", evse_ids=player.site.electrical.posts.ids, bound_bytes=30_000)
    before = (tmp_path / "j").stat().st_size
    lower.compact()
    assert (tmp_path / "j").stat().st_size < before / 2
    found = lower.recover(empty)
    assert found is not None
    assert same(found, player.snapshot)


def test_a_damaged_file_is_refused_with_its_mend(tmp_path: Path, player: Player) -> None:
    """Bytes overwritten in the pages of the state: either refused as damaged, or not even a database."""
    journal = journal_at(tmp_path / "j", player)
    journal.start(player.snapshot, at(player))
    ((page,),) = journal._db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'cells'")
    journal.close()
    _spoil(tmp_path / "j", page)
    with pytest.raises(JournalBroken, match=r"(?s)is damaged .*move the file away"):
        journal_at(tmp_path / "j", player)
    (tmp_path / "text").write_text("not a database, not at all " * 100)
    with pytest.raises(JournalBroken, match="move the file away"):
        journal_at(tmp_path / "text", player)


def _spoil(path: Path, page: int) -> None:
    """Overwrites the begin of a page."""
    with path.open("r+b") as file:
        file.seek((page - 1) * store.SMALL_PAGE)
        file.write(b"\xff" * 512)


def test_a_damaged_page_of_the_record_is_no_reason_not_to_start(tmp_path: Path, player: Player) -> None:
    """Sessions, stops and leases are whole, and what comes now is recorded; a replay tells after which record."""
    journal, empty = journal_at(tmp_path / "j", player), player.snapshot
    journal.start(player.snapshot, at(player))
    for _ in range(30):
        journal.commit([entry(player)])
    ((digest,),) = journal._db.execute("SELECT digest FROM records WHERE number = 10")
    journal.close()
    _spoil(tmp_path / "j", (tmp_path / "j").read_bytes().index(digest) // store.SMALL_PAGE + 1)
    again = journal_at(tmp_path / "j", player)
    found = again.recover(empty)
    assert found is not None
    assert same(found, player.snapshot)
    again.start(player.snapshot, at(player))
    again.commit([entry(player)])
    again.close()
    fault = replay(tmp_path / "j", player.site, verify=True).fault
    assert fault is not None
    assert "after tick " in fault


def test_a_start_reads_as_little_of_a_long_record_as_of_a_short_one(tmp_path: Path, player: Player) -> None:
    """What is granted waits for it: on a busy disk half a gigabyte of record took longer than all the rest."""
    read_bytes = []
    with disk("counted") as own:
        for ticks in (20, 400):
            for _ in range(2):
                own.read_bytes = 0
                ids = player.site.electrical.posts.ids
                with closing(Journal(tmp_path / f"j{ticks}", evse_ids=ids, vfs="counted")) as journal:
                    journal.recover(player.snapshot)
                    journal.compact()
                    read_bytes.append(own.read_bytes)
                    if not journal._number:
                        journal.start(player.snapshot, at(player))
                        for _ in range(ticks):
                            journal.commit([entry(player, player.draw({0: float(player.now_s % 7)}))])
    _, short, _, long = read_bytes
    assert (tmp_path / "j400").stat().st_size > 2 * (tmp_path / "j20").stat().st_size
    assert long <= short + 10 * store.SMALL_PAGE


def test_a_journal_of_a_newer_powerd_is_refused(tmp_path: Path, player: Player) -> None:
    """A layout from the future is named as such."""
    journal_at(tmp_path / "j", player).close()
    db = apsw.Connection(str(tmp_path / "j"))
    db.execute("UPDATE about SET value = ? WHERE key = 'version'", (str(VERSION + 1),))
    db.close()
    with pytest.raises(JournalBroken, match="newer powerd"):
        journal_at(tmp_path / "j", player)


def test_a_journal_of_another_site_is_refused(tmp_path: Path, player: Player) -> None:
    """Leases of other EVSEs mean nothing here."""
    journal_at(tmp_path / "j", player).close()
    with pytest.raises(JournalBroken, match="other EVSEs"):
        Journal(tmp_path / "j", evse_ids=("X1",))


def test_a_site_whose_evses_were_put_in_another_order_is_told_so(tmp_path: Path, player: Player) -> None:
    """All is known of them: the mend is to put them back, never to start without state."""
    journal_at(tmp_path / "j", player).close()
    with pytest.raises(JournalBroken, match=r"another order \(P0, where the site file now has P1\)") as broken:
        Journal(tmp_path / "j", evse_ids=player.site.electrical.posts.ids[::-1])
    assert "move" not in str(broken.value)


def test_what_a_file_says_of_itself_is_refused_where_it_is_no_text(tmp_path: Path, player: Player) -> None:
    """By the daemon and by a replay: one flipped bit was a traceback."""
    journal_at(tmp_path / "j", player).close()
    db = apsw.Connection(str(tmp_path / "j"))
    db.execute("UPDATE about SET value = CAST(X'FF41' AS TEXT) WHERE key = 'drawing'")
    db.close()
    with pytest.raises(JournalBroken, match=r"is damaged .*move the file away"):
        journal_at(tmp_path / "j", player)
    assert "decode" in str(replay(tmp_path / "j", player.site, verify=True).fault)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE about SET value = CAST('8' AS BLOB) WHERE key = 'version'",
        "UPDATE about SET key = CAST('drawing' AS BLOB) WHERE key = 'drawing'",
        "UPDATE records SET digest = CAST('abc' AS TEXT)",
        "UPDATE cells SET data = CAST('abc' AS TEXT) WHERE path = 'drawn'",
        "UPDATE cells SET path = CAST(X'FF41' AS TEXT) WHERE path = 'drawn'",
        "UPDATE cells SET crc = 0.5 WHERE path = 'drawn'",
    ],
)
def test_a_value_that_became_one_of_another_type_is_damage(tmp_path: Path, player: Player, statement: str) -> None:
    """One flipped bit makes a text of bytes: the daemon says what to do, a replay that something does not hold."""
    journal = journal_at(tmp_path / "j", player)
    journal.start(player.snapshot, at(player))
    journal.close()
    db = apsw.Connection(str(tmp_path / "j"))
    db.execute(statement)
    db.close()
    with (
        pytest.raises(JournalBroken, match=r"(is damaged|cannot be read) \(.*move the file away"),
        closing(journal_at(tmp_path / "j", player)) as again,
    ):
        again.recover(player.snapshot)
    assert replay(tmp_path / "j", player.site, verify=True).fault is not None


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, player: Player) -> None:
    """The error names the file."""
    with pytest.raises(JournalBroken, match="nowhere"):
        journal_at(tmp_path / "nowhere" / "j", player)


def test_the_writer_merges_what_waits_and_tells_everybody(tmp_path: Path, player: Player) -> None:
    """While one commit runs newer ticks queue up; one commit makes all of them durable, and each caller hears of it."""
    journal = journal_at(tmp_path / "j", player)
    gate, written = threading.Event(), []
    journal.start(player.snapshot, at(player))
    commit = journal.commit

    def slow(entries: Sequence[Entry], *, lost: bool = False) -> int:
        gate.wait(10)
        written.append(len(entries))
        return commit(entries, lost=lost)

    journal.commit = slow  # type: ignore[method-assign]
    writer = JournalWriter(journal)

    async def hand_over() -> None:
        futures = [writer.commit(entry(player)) for _ in range(5)]
        gate.set()
        await asyncio.gather(*futures)

    asyncio.run(hand_over())
    assert sum(written) == 5
    assert len(written) <= 2
    writer.close()


def test_ticks_of_a_disk_that_hangs_are_given_up_before_they_fill_the_memory(
    tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a bound everybody is told, in order; the newest state alone waits on, and is durable with a gap before it
    once the disk answers.
    """
    kept = _Job(entries=[entry(player)] * 3).held_bytes
    monkeypatch.setattr(writer_module, "HELD_BYTES", kept)
    journal, empty = journal_at(tmp_path / "j", player), player.snapshot
    journal.start(player.snapshot, at(player))
    begun, answers, write = threading.Event(), threading.Event(), journal._write

    def hanging(snapshot: Snapshot) -> int:
        begun.set()
        answers.wait(20)
        return write(snapshot)

    monkeypatch.setattr(journal, "_write", hanging)
    told: list[asyncio.Future[None]] = []

    async def story() -> None:
        writer = JournalWriter(journal)
        waiting: list[asyncio.Future[None]] = []
        for _ in range(20):
            waiting.append(writer.commit(entry(player)))
            waiting[-1].add_done_callback(told.append)
            await asyncio.to_thread(begun.wait, 20)
        for one in waiting:
            with pytest.raises(JournalBroken, match="does not answer"):
                await asyncio.wait_for(one, 5)
        assert told == waiting
        assert len(writer._open.entries) == 1
        answers.set()
        await asyncio.to_thread(writer._thread.submit(int).result)
        await asyncio.wait_for(writer.commit(entry(player)), 5)
        found = journal.recover(empty)
        assert found is not None
        assert same(found, player.snapshot)
        writer.close()

    asyncio.run(story())
    replayed = replay(tmp_path / "j", player.site, verify=True)
    assert replayed.fault is None
    assert replayed.gaps == 1


def test_a_disk_without_room_to_tidy_is_told_when_it_begins(
    tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, not in each tick: the log may be on the disk that is full. After it was over it is told again."""
    journal = journal_at(tmp_path / "j", player)
    journal.start(player.snapshot, at(player))
    verdicts = iter((True, True, True, False, True, True))

    def tidy() -> None:
        if next(verdicts):
            raise JournalBroken("no room")

    monkeypatch.setattr(journal, "tidy", tidy)
    writer = JournalWriter(journal)

    async def story() -> None:
        for _ in range(6):
            await writer.commit(entry(player))
            await asyncio.to_thread(writer._thread.submit(int).result)

    asyncio.run(story())
    writer.close()
    assert [record.getMessage() for record in caplog.records] == ["no room"] * 2


def test_the_writer_outlives_every_error(tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not the disk's is told as trouble with the journal; the next tick is durable, and closing ends."""
    journal = journal_at(tmp_path / "j", player)
    journal.start(player.snapshot, at(player))

    def failing(*_: object, **__: object) -> int:
        raise MemoryError

    writer = JournalWriter(journal)

    async def story() -> None:
        for method in ("commit", "tidy"):
            with monkeypatch.context() as patch:
                patch.setattr(journal, method, failing)
                outcome = asyncio.wait_for(writer.commit(entry(player)), 5)
                if method == "commit":
                    with pytest.raises(JournalBroken, match="MemoryError"):
                        await outcome
                else:
                    await outcome
            await asyncio.wait_for(writer.commit(entry(player)), 5)

    asyncio.run(story())
    ending = threading.Thread(target=writer.close, daemon=True)
    ending.start()
    ending.join(5)
    assert not ending.is_alive()


def test_another_drawing_of_the_same_posts_is_noticed_until_a_daemon_has_begun_with_it(tmp_path: Path) -> None:
    """A lower limit under the same ids: told at each opening until its first state is durable; no tick is of before."""
    before, after = (Player.open(tmp_path, site_text(2, limit_a)) for limit_a in (32.0, 24.0))
    redrawn = []
    for begins, player in ((True, before), (False, before), (False, after), (True, after), (False, after)):
        drawing = fingerprint_of(player.site.electrical)
        journal = Journal(tmp_path / "j", evse_ids=player.site.electrical.posts.ids, drawing=drawing)
        redrawn.append(journal.redrawn)
        if begins:
            journal.start(player.snapshot, at(player))
            journal.commit([entry(player)])
        journal.close()
    assert redrawn == [False, False, True, True, False]
    replayed = [replay(tmp_path / "j", player.site, verify=True) for player in (before, after)]
    assert [(one.fault, one.ticks, one.redrawn) for one in replayed] == [(None, 1, 2), (None, 1, 2)]


YARD = """
site: yard
supplies: [{{id: grid, bus: main}}]
buses: [{{id: main, voltage_v: 400}}, {{id: panel, voltage_v: 400}}]
switches:
  - {{id: SA, kind: breaker, from_bus: main, to_bus: panel, closed: {a}, rated_current_a: 200}}
  - {{id: SB, kind: breaker, from_bus: main, to_bus: panel, closed: {b}, rated_current_a: 32, reported: {told}}}
controller_classes: [{{id: c, ttl_s: 15, reaction_s: 5, watchdog_s: 0}}]
controllers: [{{id: c0, class: c}}]
evse_types: [{{id: t, phases: '3', max_current_a: 32, fallback_a: 0}}]
stations: [{{id: S, bus: panel, controller: c0, evses: [{{id: P0, type: t}}]}}]
"""


@pytest.mark.parametrize("reported", [False, True])
def test_switches_that_nobody_told_of_stand_as_the_new_drawing_has_them(tmp_path: Path, reported: bool) -> None:
    """The panel hangs on the other switch now: its 32 A count, or both where one of the two was ever reported."""
    said = str(reported).lower()
    before = Player.open(tmp_path, YARD.format(a="true", b="false", told=said))
    after = Player.open(tmp_path, YARD.format(a="false", b="true", told=said))
    for player in (before, after):
        drawing, gear = fingerprint_of(player.site.electrical), player.snapshot.gear
        journal = Journal(tmp_path / "j", evse_ids=player.site.electrical.posts.ids, drawing=drawing)
        if player is before:
            stood = (
                replace(gear, reported_at_s=np.array([-np.inf, 1.0]), position=np.array([1, 0])) if reported else gear
            )
            journal.start(replace(player.snapshot, gear=stood), at(player))
        found = journal.recover(player.snapshot)
        journal.close()
    assert found is not None
    reopened = reopen_snapshot(found, after.site.terms, instant(50.0)).gear
    expected = [Position.OPEN, Position.UNKNOWN] if reported else [Position.OPEN, Position.CLOSED]
    assert reopened.position.tolist() == expected


def test_what_a_meter_showed_is_forgotten_where_the_site_is_drawn_anew(tmp_path: Path) -> None:
    """It may be at another element now, and there may be more of them; as long as it is the same it is kept."""
    metered = metered_text(2, 100.0)
    more = metered.replace("meters: [", "meters: [{id: N, at: F1}, ")
    plant = open_plant(tmp_path, metered, load=lambda _: 20.0)
    for _ in range(20):
        plant.second()
    player = plant.player
    with closing(opened(tmp_path, metered)) as journal:
        journal.start(player.snapshot, at(player))
    for text, newest in ((metered, player.snapshot.meters.newest), (more, np.full((2, 4), np.nan))):
        with closing(opened(tmp_path, text)) as journal:
            found = journal.recover(Player.of(CompiledSite.of(load_site(tmp_path / "site.yaml").must())).snapshot)
            assert found is not None
            np.testing.assert_array_equal(found.meters.newest, newest)
            np.testing.assert_array_equal(found.leases.sent_ceiling, player.snapshot.leases.sent_ceiling)


def test_a_disk_without_room_to_make_the_file_smaller_is_no_reason_not_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is mostly empty is rewritten at a start, which wants room for a second one."""
    opened(tmp_path, TWO_FEEDERS).close()

    def full(_journal: Journal) -> None:
        raise JournalBroken("no room")

    monkeypatch.setattr(Journal, "compact", full)
    opened(tmp_path, TWO_FEEDERS).close()
    assert "no room; the file stays as large as it is" in caplog.text


F1 = "  - {id: F1, from_bus: main, to_bus: panel, length_m: 20, r_ohm_per_km: 0.2, x_ohm_per_km: 0.08,\n"
F1 += "     ampacity_a: 60.0, source: test}\n"
F2 = F1.replace("F1", "F2").replace("panel", "panel2")
PANELS = "{id: panel, voltage_v: 400}", "{id: panel2, voltage_v: 400}"
TWO_FEEDERS = (
    site_text(2, 60.0)
    .replace(F1, F1 + F2)
    .replace(PANELS[0], ", ".join(PANELS))
    .replace("S1, bus: panel", "S1, bus: panel2")
)


def opened(folder: Path, text: str) -> Journal:
    """The journal as the daemon opens it for a site of this text."""
    (folder / "site.yaml").write_text(text)
    return _open_journal(folder / "j", load_site(folder / "site.yaml").must(), BOUND_BYTES)


@pytest.mark.parametrize(
    ("before", "after", "which"),
    [
        (F1 + F2, F2 + F1, "branch F1, where the site file now has branch F2"),
        ("F2", "F9", "branch F2, where the site file now has branch F9"),
        (", ".join(PANELS), ", ".join(reversed(PANELS)), "bus panel, where the site file now has bus panel2"),
        ("id: grid,", "id: utility,", "supply grid, where the site file now has supply utility"),
        (F2, F2 + F2.replace("F2", "F3"), "supply grid, where the site file now has branch F3"),
    ],
)
def test_what_is_known_of_an_element_is_never_held_against_another(
    tmp_path: Path, before: str, after: str, which: str
) -> None:
    """Faults, locks and what is out of service are kept by row: a site file with the rows of others is refused, with
    the first that differs and what to do, and the file is left as it was.
    """
    assert before in TWO_FEEDERS
    opened(tmp_path, TWO_FEEDERS).close()
    for _ in range(2):
        with pytest.raises(JournalBroken, match=rf"\({which}\).* draw them as they were, .* or move the file away"):
            opened(tmp_path, TWO_FEEDERS.replace(before, after))
    opened(tmp_path, TWO_FEEDERS.replace("ampacity_a: 60.0", "ampacity_a: 50.0")).close()


def test_a_file_that_does_not_name_its_elements_does_so_from_now_on(tmp_path: Path) -> None:
    """One that was migrated is of the site file that it is first opened with."""
    Journal(tmp_path / "j", evse_ids=("P0", "P1")).close()
    opened(tmp_path, TWO_FEEDERS).close()
    with pytest.raises(JournalBroken, match="in another order"):
        opened(tmp_path, TWO_FEEDERS.replace(F1 + F2, F2 + F1))
