"""The journal file: what was committed is found again, and what cannot be used is refused with a mend."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import fields
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import given, settings

from powerd.control import events as ev
from powerd.journal.columns import remainder_of, snapshot_of
from powerd.journal.store import VERSION, Journal, JournalBroken
from powerd.journal.writer import JournalWriter
from powerd.state.snapshot import Snapshot, columns_of
from tests.control.garage import Player, site_text
from tests.control.test_step import ACTIONS, play


def same(one: Snapshot, other: Snapshot) -> bool:
    """Bit-equal in every column, equal in the rest."""
    mine, theirs = columns_of(one), columns_of(other)
    columns = mine.keys() == theirs.keys() and all(
        np.array_equal(mine[path], theirs[path], equal_nan=mine[path].dtype.kind == "f") for path in mine
    )
    return columns and remainder_of(one) == remainder_of(other)


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
    again = snapshot_of(empty, columns_of(player.snapshot), remainder_of(player.snapshot))
    assert same(again, player.snapshot)


def test_every_field_of_a_snapshot_is_recorded(player: Player) -> None:
    """A field added to the snapshot and forgotten here would be lost in a restart."""
    recorded = {path.split("/")[0] for path in columns_of(player.snapshot)}
    rest = {"stops", "overshoots", "answered", "boottime_s", "tick"}
    forgotten = {"warm_stage", "warm_price"}  # where a solve starts is no part of what is going on
    assert {own.name for own in fields(Snapshot)} == recorded | rest | forgotten


def test_what_was_committed_is_found_again(tmp_path: Path, player: Player) -> None:
    """A file closed without ceremony (a copy of it with its WAL) gives the newest committed state."""
    journal = journal_at(tmp_path / "j", player)
    empty = player.snapshot
    journal.commit(player.snapshot)
    player.tick()
    journal.commit(player.snapshot)
    for suffix in ("", "-wal"):
        (tmp_path / f"copy{suffix}").write_bytes((tmp_path / f"j{suffix}").read_bytes())
    found = journal_at(tmp_path / "copy", player).recover(empty)
    assert found is not None
    assert same(found, player.snapshot)


def test_only_columns_that_changed_are_written(tmp_path: Path, player: Player) -> None:
    """A tick in which nothing happened writes next to nothing; a new journal writes all."""
    journal = journal_at(tmp_path / "j", player)
    assert journal.commit(player.snapshot) == len(columns_of(player.snapshot))
    assert journal.commit(player.snapshot) == 0
    player.news = [ev.Measured(evse=np.array([0]), drawn=np.array([[5.0, 5.0, 5.0]]))]
    player.tick()
    changed = journal.commit(player.snapshot)
    assert 0 < changed < len(columns_of(player.snapshot))


def test_a_full_disk_loses_nothing_that_was_committed(tmp_path: Path, player: Player) -> None:
    """The commit fails with the file's name, the state before stands, and a later commit writes everything."""
    journal = journal_at(tmp_path / "j", player)
    empty = player.snapshot
    journal.commit(player.snapshot)
    before = player.snapshot
    pages = journal._db.pragma("page_count")
    journal._db.pragma("max_page_count", pages)
    player.snapshot = snapshot_of(
        empty, columns_of(before), remainder_of(before).replace("smoke", "smoke " + 100_000 * "x")
    )
    with pytest.raises(JournalBroken, match="no ceiling is raised until it can be written"):
        journal.commit(player.snapshot)
    found = journal.recover(empty)
    assert found is not None
    assert same(found, before)
    journal._db.pragma("max_page_count", pages + 1000)
    journal.commit(player.snapshot)
    later = journal.recover(empty)
    assert later is not None
    assert same(later, player.snapshot)


def test_a_damaged_file_is_refused_with_its_mend(tmp_path: Path, player: Player) -> None:
    """Bytes overwritten anywhere in the pages: either refused as damaged, or not even a database."""
    journal = journal_at(tmp_path / "j", player)
    journal.commit(player.snapshot)
    journal.close()
    data = bytearray((tmp_path / "j").read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 512] = b"\xff" * 512
    (tmp_path / "j").write_bytes(bytes(data))
    with pytest.raises(JournalBroken, match="move"):
        journal_at(tmp_path / "j", player).recover(player.snapshot)
    (tmp_path / "text").write_text("not a database, not at all " * 100)
    with pytest.raises(JournalBroken, match="move the file away"):
        journal_at(tmp_path / "text", player)


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


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, player: Player) -> None:
    """The error names the file."""
    with pytest.raises(JournalBroken, match="nowhere"):
        journal_at(tmp_path / "nowhere" / "j", player)


def test_the_writer_merges_what_waits_and_tells_everybody(tmp_path: Path, player: Player) -> None:
    """While one commit runs newer states replace each other; each caller hears when his or a newer one is durable."""
    journal = journal_at(tmp_path / "j", player)
    gate, written = threading.Event(), []
    commit = journal.commit

    def slow(snapshot: Snapshot) -> int:
        gate.wait(10)
        written.append(snapshot.tick)
        return commit(snapshot)

    journal.commit = slow  # type: ignore[method-assign]
    writer = JournalWriter(journal)

    async def hand_over() -> None:
        futures = [writer.commit(player.tick().snapshot) for _ in range(5)]
        gate.set()
        await asyncio.gather(*futures)

    asyncio.run(hand_over())
    assert written[-1] == player.snapshot.tick
    assert len(written) <= 2
    writer.close()
