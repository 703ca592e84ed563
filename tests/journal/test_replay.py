"""The record replayed: what was decided is decided again, bit by bit, and nothing in the file can be altered unseen."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest

from powerd.codec import decode, encode
from powerd.control import events as ev
from powerd.control.compiled import CompiledSite
from powerd.control.decision import Decision
from powerd.control.step import Stepper
from powerd.journal import machine, record, store
from powerd.journal import replay as replaying
from powerd.journal.drawing import fingerprint_of
from powerd.journal.record import CLASSES, DECIDED, NOT_DECIDED, ROOT, Kind, Record, TickContent
from powerd.journal.replay import TOLERANCE, ReplayRefused, _alike, replay
from powerd.journal.store import Entry, Journal
from powerd.network.load import load_site
from powerd.reports.replay import ReplayOptions, run_replay
from powerd.state.snapshot import Snapshot, Stop, reopen_snapshot
from powerd.units import Now
from tests.control.garage import Player, instant, site_text

SITE = site_text(6, 37.0, fallback_a=6.0)


def write_story(folder: Path, *, ticks: int = 150, restarts: int = 1, seed: int = 3) -> Player:
    """A journal ``j`` of a garage's busy hours, with a restart in the middle; returns the player at its end."""
    rng = np.random.default_rng(seed)
    player = Player.open(folder, SITE)
    boot = 1000.0 * rng.random()
    for _ in range(restarts + 1):
        journal = Journal(folder / "j", evse_ids=player.site.electrical.posts.ids)
        found = journal.recover(player.snapshot)
        if found is not None:
            player.snapshot = reopen_snapshot(found, player.site.terms, instant(boot))
            player.now_s, player.decision = boot, None
        now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=player.now_s)
        journal.start(player.snapshot, Now(utc=now, boottime_s=player.now_s))
        player.hello(0, highest_epoch=player.snapshot.leases.epoch - 1)
        player.hello(1, highest_epoch=player.snapshot.leases.epoch - 1)
        for _ in range(ticks):
            _commit(journal, player, rng)
            journal.tidy()
        journal.close()
        boot = player.now_s + 3.0
    return player


@pytest.mark.parametrize("known", ["before", "after"])
def test_each_part_of_a_record_is_replayed_with_the_drawing_that_it_was_written_for(tmp_path: Path, known: str) -> None:
    """A site drawn anew, and back: whichever file is given, its ticks are owed, of the others the chain."""
    texts = {"before": SITE, "after": site_text(6, 42.0, fallback_a=6.0)}
    rng, snapshot = np.random.default_rng(5), None
    for times, name in enumerate(("before", "after", "after", "before")):
        player = Player.open(tmp_path, texts[name])
        electrical = player.site.electrical
        journal = Journal(tmp_path / "j", evse_ids=electrical.posts.ids, drawing=fingerprint_of(electrical))
        boot = 100.0 * times
        if snapshot is not None:
            player.snapshot, player.now_s = reopen_snapshot(snapshot, player.site.terms, instant(boot)), boot
        now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=boot)
        journal.start(player.snapshot, Now(utc=now, boottime_s=boot))
        for _ in range(20):
            _commit(journal, player, rng)
        snapshot = player.snapshot
        journal.close()
    found = replay(tmp_path / "j", Player.open(tmp_path, texts[known]).site, verify=True)
    assert (found.fault, found.ticks, found.exact, found.starts) == (None, 40, 40, 2)
    assert found.redrawn == 42
    spoilt = apsw.Connection(str(tmp_path / "j"))
    spoilt.execute("UPDATE records SET utc_s = utc_s + 1 WHERE number = ?", (30 if known == "before" else 10,))
    spoilt.close()
    assert "altered" in str(replay(tmp_path / "j", Player.open(tmp_path, texts[known]).site, verify=True).fault)


def _under_terms(folder: Path, amps: float | None) -> Player:
    """The garage with a user's file that allows so much in sum; None = without one."""
    (folder / "mine.py").write_text(f"import cvxpy\ndef terms(site):\n    yield cvxpy.sum(site.ceiling) <= {amps}\n")
    (folder / "site.yaml").write_text(SITE + ("" if amps is None else "terms: [mine.py]\n"), encoding="utf-8")
    return Player.of(CompiledSite.of(load_site(folder / "site.yaml").must()))


def _played_under_terms(folder: Path, *amps: float | None) -> None:
    """A journal ``j``: the daemon starts with each of these files in turn, and ticks three times."""
    rng, snapshot = np.random.default_rng(5), None
    for times, most in enumerate(amps):
        player = _under_terms(folder, most)
        if snapshot is not None:
            player.now_s = 100.0 * times
            player.snapshot = reopen_snapshot(snapshot, player.site.terms, instant(player.now_s))
        player.plug(0)
        player.hello(0, highest_epoch=times)
        with closing(Journal(folder / "j", evse_ids=player.site.electrical.posts.ids)) as journal:
            journal.start(player.snapshot, instant(player.now_s), player.stepper.terms)
            for _ in range(3):
                _commit(journal, player, rng)
        snapshot = player.snapshot


def test_each_part_of_a_record_is_replayed_with_the_terms_that_bound_it(tmp_path: Path) -> None:
    """A user's file that was edited, or taken out, makes no record a forged one: it is told whose, and which, it is."""
    _played_under_terms(tmp_path, 14.0, 9.0, None)
    for amps in (14.0, 9.0, None):
        site = _under_terms(tmp_path, amps).site
        found = replay(tmp_path / "j", site, verify=True)
        assert (found.fault, found.ticks, found.exact, found.other_terms) == (None, 3, 3, 8)
        assert len(found.terms) == 2
        assert ("" in found.terms) == (amps is not None)
    out = io.StringIO()
    options = ReplayOptions(journal=tmp_path / "j", site=tmp_path, verify=True)
    assert run_replay(options, as_json=False, out=out) == 0
    told = r"8 records, their chain checked, are of other terms of users \(mine.py \w{16}; mine.py \w{16}\)"
    assert re.search(told, out.getvalue())


def test_a_record_all_of_other_terms_is_refused_with_their_names(tmp_path: Path) -> None:
    """Whether it is compared or not, and until whenever: no later instant would help."""
    _played_under_terms(tmp_path, 14.0)
    site = _under_terms(tmp_path, None).site
    told = r"none of its 3 ticks .* 4 of other terms of users \(mine.py \w{16}, where the site now has no terms\)"
    for verify in (True, False):
        for until in (None, instant(1.0).utc, instant(900.0).utc):
            with pytest.raises(ReplayRefused, match=told):
                replay(tmp_path / "j", site, verify=verify, until=until)


def test_an_end_before_ones_own_terms_begin_is_refused_with_where_they_do(tmp_path: Path) -> None:
    """The next record is of other terms, and to name its instant would help nobody."""
    _played_under_terms(tmp_path, 14.0, 9.0)
    site = _under_terms(tmp_path, 9.0).site
    begins = instant(100.0).utc
    for until in (instant(1.0).utc, instant(50.0).utc):
        with pytest.raises(ReplayRefused, match=f"begins at {re.escape(begins.isoformat())}: name that or a later"):
            replay(tmp_path / "j", site, verify=True, until=until)
    assert replay(tmp_path / "j", site, verify=True, until=begins).starts == 1


@pytest.mark.parametrize("hidden", [False, True])
def test_what_was_not_stepped_through_is_not_said_to_be_proved(tmp_path: Path, hidden: bool) -> None:
    """An event that was altered behind other terms named at its start is not found: so it is said how many records
    were not stepped through, and that of them the chain alone is proved.
    """
    _played_under_terms(tmp_path, *[None] * (2 if hidden else 1))

    def of_others(own: Record) -> Record:
        return replace(own, content=encode(replace(decode(own.content, CLASSES), terms="mine.py 0123456789abcdef")))

    def later(own: Record) -> Record:
        content = decode(own.content, CLASSES)
        return replace(own, content=encode(replace(content, events=tuple(map(_later, content.events)))))

    if hidden:
        _forge(tmp_path / "j", 5, of_others)  # the second start
        _forge(tmp_path / "j", 7, later)
    out = io.StringIO()
    options = ReplayOptions(journal=tmp_path / "j", site=tmp_path, verify=True)
    assert run_replay(options, as_json=False, out=out) == 0
    assert ("every decision is the one recorded" in out.getvalue()) != hidden
    assert ("of the 4 records beside them the chain alone is proved" in out.getvalue()) == hidden
    docs = (Path(__file__).parents[2] / "docs/journal.md").read_text("utf-8")
    assert "names other terms at a start" in " ".join(docs.split())


def test_other_terms_begin_only_where_a_daemon_started(copy: Path, story: tuple[Path, Player]) -> None:
    """Else a checkpoint that says so would hide what follows from the step."""
    db = apsw.Connection(str(copy))
    ((number,),) = db.execute("SELECT min(number) FROM records WHERE kind = 'checkpoint'")
    db.close()
    _forge(copy, number, lambda own: replace(own, content=encode(replace(decode(own.content, CLASSES), terms="mine"))))
    assert "no daemon started" in str(replay(copy, story[1].site, verify=True).fault)


def _commit(journal: Journal, player: Player, rng: np.random.Generator) -> None:
    """One tick: now and then a car, readings always, rarely a stop."""
    evse = int(rng.integers(6))
    if rng.random() < 0.2:
        player.plug(evse, plugged=evse not in player.plugged)
    events: list[ev.Event] = []
    if player.plugged:
        events.append(player.draw({i: float(rng.random() * 32) for i in player.plugged}))
    if rng.random() < 0.1:
        stop_id, one = f"s{player.snapshot.tick}", np.array([evse])
        events.append(ev.StopOrdered(request_id="", stop_id=stop_id, element=f"P{evse}", evse=one, reason="test"))
    if rng.random() < 0.2 and player.snapshot.stops:
        events.append(ev.StopReleased(request_id="", stop_id=player.snapshot.stops[0].stop_id, reason="over"))
    decision = player.tick(*events)
    journal.commit([Entry(now=decision.now, events=player.absorbed, decision=decision)])


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Player]:
    """One journal for all: 300 ticks, a restart, a few checkpoints."""
    folder = tmp_path_factory.mktemp("story")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "SEGMENT_BYTES", 20_000)
        return folder / "j", write_story(folder)


@pytest.fixture
def copy(story: tuple[Path, Player], tmp_path: Path) -> Path:
    """A journal to tamper with."""
    shutil.copy(story[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_everything_is_decided_again(story: tuple[Path, Player]) -> None:
    """300 ticks bit by bit, over a restart, each checkpoint equal; the state at the end is the one in the file."""
    path, player = story
    found = replay(path, player.site, verify=True)
    assert found.fault is None
    assert (found.ticks, found.exact, found.starts, found.gaps) == (300, 300, 2, 0)
    assert found.checkpoints >= 3
    assert found.decision is not None
    assert encode(found.decision.snapshot) == encode(player.snapshot)


def test_it_stops_where_it_is_told_and_explains(story: tuple[Path, Player], tmp_path: Path) -> None:
    """``--until`` ends before the first later tick, ``--explain`` says why; the JSON is one object."""
    path, _ = story
    (tmp_path / "site.yaml").write_text(SITE)
    until = datetime(2026, 1, 1, 0, 1, 40)  # noqa: DTZ001 - as a person types it; UTC is meant
    out = io.StringIO()
    options = ReplayOptions(journal=path, site=tmp_path, verify=True, until=until, explain="P2")
    assert run_replay(options, as_json=True, out=out) == 0
    told = json.loads(out.getvalue())
    assert (told["fault"], told["ticks"], told["bit_equal"]) == (None, 100, 100)
    assert told["explained"]["tick"] == 100
    assert told["explained"]["reason"]
    assert told["last"] == "2026-01-01T00:01:40+00:00"


@pytest.mark.parametrize("seed", range(10))
def test_a_single_byte_flipped_in_a_live_record_is_found(copy: Path, story: tuple[Path, Player], seed: int) -> None:
    """Any byte of any value of any live row; the place is named, a tick wherever it is in the record."""
    db = apsw.Connection(str(copy))
    rng = random.Random(seed)
    table, key = ("records", "number") if seed % 5 else ("cells", "path")
    kept = ("content", "decided", "before", "digest") if table == "records" else ("data",)
    held = "length(content) > 0" if table == "records" else "length(data) > 0"  # a site without meters has empty cells
    rows = list(db.execute(f"SELECT {key} FROM {table} WHERE {held}"))
    (row,), column = rng.choice(rows), rng.choice(kept)
    ((value,),) = db.execute(f"SELECT {column} FROM {table} WHERE {key} = ?", (row,))
    if not value:  # a snapshot has no digest of a decision
        column = "content"
        ((value,),) = db.execute(f"SELECT content FROM {table} WHERE {key} = ?", (row,))
    altered = bytearray(value)
    altered[rng.randrange(len(altered))] ^= 1 << rng.randrange(8)
    db.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (bytes(altered), row))
    db.close()
    fault = replay(copy, story[1].site, verify=True).fault
    assert fault is not None
    assert "tick" in fault


def _content(db: apsw.Connection, number: int) -> tuple[TickContent, Record]:
    ((kind, tick, utc_s, boottime_s, content, decided),) = db.execute(
        "SELECT kind, tick, utc_s, boottime_s, content, decided FROM records WHERE number = ?", (number,)
    )
    own = Record(kind=Kind(kind), tick=tick, utc_s=utc_s, boottime_s=boottime_s, content=content, decided=decided)
    return decode(content, CLASSES), own


def _forge(path: Path, number: int, change: Callable[[Record], Record]) -> None:
    """Alters a record as somebody would who knows the format, and seals it and all that follow anew."""
    db = apsw.Connection(str(path))
    before = ROOT
    for (own,) in list(db.execute("SELECT number FROM records ORDER BY number")):
        _, row = _content(db, own)
        row = change(row) if own == number else row
        digest = row.sealed(before, own)
        db.execute(
            "UPDATE records SET utc_s = ?, content = ?, before = ?, digest = ? WHERE number = ?",
            (row.utc_s, row.content, before, digest, own),
        )
        before = digest
    db.close()


@pytest.mark.parametrize("request_id", ["", "r"])
def test_a_reason_is_held_by_the_contents_of_its_request(tmp_path: Path, request_id: str) -> None:
    """What changes nothing is found where the call had an id: the state knows what was asked for. Else the chain alone
    holds it, as the docs say.
    """
    player = Player.open(tmp_path, SITE)
    with closing(Journal(tmp_path / "j", evse_ids=player.site.electrical.posts.ids)) as journal:
        journal.start(player.snapshot, instant(0.0))
        stop = ev.StopOrdered(request_id="", stop_id="s", element="P0", evse=np.array([0]), reason="smoke")
        for event in (stop, ev.StopReleased(request_id=request_id, stop_id="s", reason="a mistake")):
            decision = player.tick(event)
            journal.commit([Entry(now=decision.now, events=player.absorbed, decision=decision)])

    def other(own: Record) -> Record:
        content = decode(own.content, CLASSES)
        events = tuple(replace(e, reason="it is out") if isinstance(e, ev.StopReleased) else e for e in content.events)
        return replace(own, content=encode(replace(content, events=events)))

    _forge(tmp_path / "j", 3, other)
    found = replay(tmp_path / "j", player.site, verify=True)
    assert (found.fault is not None) == bool(request_id)
    assert "nothing follows from" in (Path(__file__).parents[2] / "docs/journal.md").read_text("utf-8")


@pytest.mark.parametrize("number", [20, 87, 140, 200, 290])
def test_an_altered_event_is_found_even_with_new_digests(copy: Path, story: tuple[Path, Player], number: int) -> None:
    """Who moves one stamp by a millisecond and seals the whole chain anew is found by the step itself, at that tick."""

    def more(own: Record) -> Record:
        content = decode(own.content, CLASSES)
        events = tuple(_later(event) for event in content.events)
        return replace(own, content=encode(replace(content, events=events)))

    db = apsw.Connection(str(copy))
    later = "SELECT number, tick FROM records WHERE kind = 'tick' AND number >= ? LIMIT 1"  # not a checkpoint
    ((number, tick),) = db.execute(later, (number,))
    db.close()
    _forge(copy, number, more)
    fault = replay(copy, story[1].site, verify=True).fault
    assert fault is not None
    assert fault.startswith(f"tick {tick} ")
    assert "otherwise" in fault


def _more_granted(own: Record, by: float) -> Record:
    """What is told of a tick says more than was granted; the digest of the decision stays."""
    content = decode(own.content, CLASSES)
    if not isinstance(content, TickContent):
        return own
    granted = replace(content.granted, raised_to=content.granted.raised_to + by)
    return replace(own, content=encode(replace(content, granted=granted)))


@pytest.mark.parametrize("by", [1e-9, np.nan])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_what_is_told_of_a_grant_is_what_was_granted(
    copy: Path, story: tuple[Path, Player], by: float, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what people read: bit by bit where the decision is the same bit by bit, and never no number."""
    if elsewhere:
        monkeypatch.setattr(replaying, "fingerprint", lambda: "another machine")
        monkeypatch.setattr(replaying, "digest_of", lambda *_: b"of other bits")
    _forge(copy, 2, lambda own: _more_granted(own, by))
    fault = replay(copy, story[1].site, verify=True).fault
    if elsewhere and by == 1e-9:
        assert fault is None
    else:
        assert str(fault).startswith("tick 1 ")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("older_records", "9999", "does not fit"),
        ("older_records", "100", "no daemon started"),
        ("older_records", "zz", "counts its records with 'zz'"),
        ("drawn_from_record_100", "x", "no daemon started"),
        ("drawn_from_record_9999", "x", "does not fit"),
        ("drawn_from_record_1", "x", "does not fit"),
        ("drawn_from_record_a", "x", "counts its records with 'a'"),
    ],
)
def test_what_a_file_says_of_other_versions_and_drawings_is_held_against_its_chain(
    copy: Path, story: tuple[Path, Player], key: str, value: str, said: str
) -> None:
    """It says that in no chain: a row put in there made a replay step through nothing and find all of it right."""
    _say(copy, {key: value, "drawn_from_record_0": ""})
    assert said in str(replay(copy, story[1].site, verify=True).fault)


def _say(path: Path, about: dict[str, str]) -> None:
    """Puts in what the file says of itself."""
    db = apsw.Connection(str(path))
    db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", about.items())
    db.close()


def test_a_replay_that_leaves_out_every_tick_is_no_proof(copy: Path, story: tuple[Path, Player]) -> None:
    """All are said to be of another drawing, and so is the state: refused, with what is said of them."""
    _say(copy, {"drawing": "x", "drawn_from_record_0": "", "drawn_from_record_1": "x"})
    with pytest.raises(ReplayRefused, match="none of its 300 ticks can be stepped through"):
        replay(copy, story[1].site, verify=True)


def test_the_command_says_in_one_object_what_does_not_hold(copy: Path, tmp_path: Path) -> None:
    """Exit 1, and the fault with its place."""
    (tmp_path / "site.yaml").write_text(SITE)
    db = apsw.Connection(str(copy))
    db.execute("UPDATE records SET utc_s = utc_s + 1 WHERE number = 30")
    db.close()
    command = [sys.executable, "-m", "powerd", "replay", str(copy), "--site", str(tmp_path), "--verify", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    told = json.loads(ended.stdout)
    assert "it was altered" in told["fault"]
    assert told["ticks"] == told["bit_equal"] > 0


@pytest.mark.parametrize("logged", [False, True])
def test_a_replay_leaves_the_evidence_as_it_is(tmp_path: Path, logged: bool) -> None:
    """Of a daemon that was killed the log is not folded in, no file is put beside, and it may be read-only."""
    (tmp_path / "live").mkdir()
    player = Player.open(tmp_path, SITE)
    with closing(Journal(tmp_path / "live" / "j", evse_ids=player.site.electrical.posts.ids)) as journal:
        journal.start(player.snapshot, Now(utc=instant(0.0).utc, boottime_s=player.now_s))
        for _ in range(5):
            decision = player.tick()
            journal.commit([Entry(now=decision.now, events=player.absorbed, decision=decision)])
        if logged:
            shutil.copytree(tmp_path / "live", tmp_path / "kept")
    if not logged:
        shutil.copytree(tmp_path / "live", tmp_path / "kept")
    before = {file.name: file.read_bytes() for file in (tmp_path / "kept").iterdir()}
    assert sorted(before) == (["j", "j-wal"] if logged else ["j"])
    for file in (tmp_path / "kept").iterdir():
        file.chmod(0o444)
    (tmp_path / "kept").chmod(0o555)
    found = replay(tmp_path / "kept" / "j", player.site, verify=True)
    (tmp_path / "kept").chmod(0o755)
    assert (found.fault, found.ticks) == (None, 5)
    assert {file.name: file.read_bytes() for file in (tmp_path / "kept").iterdir()} == before


def _renamed(own: Record, change: Callable[[Snapshot], Snapshot]) -> Record:
    """A snapshot altered, and said to be of another machine."""
    content = decode(own.content, CLASSES)
    return replace(own, content=encode(replace(content, machine="another", snapshot=change(content.snapshot))))


def _more_energy(snapshot: Snapshot) -> Snapshot:
    """More than a rounding to 10 Wh."""
    return replace(snapshot, sessions=replace(snapshot.sessions, energy_kwh=snapshot.sessions.energy_kwh + 0.02))


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("kind", ["start", "checkpoint"])
def test_an_altered_snapshot_is_found_even_with_new_digests(
    copy: Path, story: tuple[Path, Player], kind: str, renamed: bool
) -> None:
    """Of a start as of a checkpoint, also where it is said to be of another machine, which owes no same bits."""
    db = apsw.Connection(str(copy))
    ((number,),) = db.execute("SELECT max(number) FROM records WHERE kind = ?", (kind,))
    db.close()

    def change(own: Record) -> Record:
        there = decode(own.content, CLASSES).machine
        altered = _renamed(own, _more_energy)
        if renamed:
            return altered
        return replace(own, content=encode(replace(decode(altered.content, CLASSES), machine=there)))

    _forge(copy, number, change)
    fault = replay(copy, story[1].site, verify=True).fault
    assert fault is not None
    assert fault.startswith(f"{kind} ")
    assert "sessions/energy_kwh" in fault


def test_floats_of_another_machine_may_differ_and_nothing_else() -> None:
    """By 1e-6, at any depth; a flag, a name or a count may not, and nan and infinity are what they are."""
    column = np.array([1.0, np.nan, np.inf])
    assert _alike((column, 2.0, "a"), (column + 1e-7, 2.0 + 1e-7, "a"), TOLERANCE)
    for other in (
        (column + 1e-5, 2.0, "a"),
        (column, 2.0 + 1e-5, "a"),
        (column, 2.0, "b"),
        (column, 2.0),
        (column[:2], 2.0, "a"),
    ):
        assert not _alike((column, 2.0, "a"), other, TOLERANCE)
    assert not _alike(np.array([1]), np.array([2]), TOLERANCE)
    assert not _alike(np.array([True]), np.array([False]), TOLERANCE)
    book = Stop(stop_id="s", element="", evse=np.array([0]), reason="x")
    assert _alike(book, replace(book, evse=np.array([0])), TOLERANCE)
    assert not _alike(book, replace(book, evse=np.array([1])), TOLERANCE)


def test_a_replay_of_nothing_is_no_proof(story: tuple[Path, Player], tmp_path: Path) -> None:
    """An instant before all that is kept is refused with where it begins; what could not be explained is said."""
    path, player = story
    with pytest.raises(ReplayRefused, match=r"begins at 2026-01-01T00:00:00.*later instant"):
        replay(path, player.site, verify=True, until=datetime(2025, 12, 31, tzinfo=UTC))
    (tmp_path / "site.yaml").write_text(SITE)
    out = io.StringIO()
    start = datetime(2026, 1, 1)  # noqa: DTZ001 - as a person types it; UTC is meant
    options = ReplayOptions(journal=path, site=tmp_path, verify=True, until=start, explain="P2")
    assert run_replay(options, as_json=False, out=out) == 0
    assert "P2: no tick was stepped through" in out.getvalue()


def _later(event: ev.Event) -> ev.Event:
    """A stamp a bit later."""
    return replace(event, boottime_s=event.boottime_s + 1e-3) if isinstance(event, ev.StampSeen) else event


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM records WHERE number = 77",
        "DELETE FROM records WHERE number > 250",
        "DELETE FROM records WHERE number = 1",
        "UPDATE records SET number = 1000 WHERE number = 77",
        "UPDATE records SET boottime_s = boottime_s + 0.5 WHERE number = 77",
        "UPDATE records SET kind = 'mick' WHERE number = 77",
        "DELETE FROM cells WHERE path = 'leases/hold_ceiling'",
    ],
)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_records_cannot_be_dropped_or_moved(
    copy: Path, story: tuple[Path, Player], statement: str, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is noticed, also at the ends, and on another machine as well."""
    if elsewhere:
        monkeypatch.setattr(replaying, "fingerprint", lambda: "another machine")
    db = apsw.Connection(str(copy))
    db.execute(statement)
    db.close()
    assert replay(copy, story[1].site, verify=True).fault is not None


def test_a_step_that_decides_otherwise_is_found(story: tuple[Path, Player], monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine a single last bit is too much; on another 1e-6 is allowed and 1e-5 is not."""
    path, player = story
    step = Stepper.step

    def off(by: float) -> Callable[..., Decision]:
        def stepped(self: Stepper, snapshot: Any, events: Any, now: Any) -> Decision:
            decision = step(self, snapshot, events, now)
            raised = replace(decision.raised, ceiling=decision.raised.ceiling + by)
            return replace(decision, raised=raised, want=decision.want + by)

        return stepped

    monkeypatch.setattr(Stepper, "step", off(1e-14))
    fault = replay(path, player.site, verify=True).fault
    assert fault is not None
    assert "tick 1 " in fault
    monkeypatch.setattr(replaying, "fingerprint", lambda: "another machine")
    monkeypatch.setattr(Stepper, "step", off(1e-7))
    assert replay(path, player.site, verify=True).fault is None
    monkeypatch.setattr(Stepper, "step", off(1e-5))
    fault = replay(path, player.site, verify=True).fault
    assert fault is not None
    assert "the record says" in fault


def test_every_field_of_a_decision_is_judged_or_excused() -> None:
    """A field added to the decision is either in its digest or here with the reason why not."""
    named = [own.name for own in fields(Decision)]
    assert set(named) == set(DECIDED) | set(NOT_DECIDED)
    assert not set(DECIDED) & set(NOT_DECIDED)


def test_what_cannot_be_replayed_is_refused_with_a_mend(story: tuple[Path, Player], tmp_path: Path) -> None:
    """No file, no journal, another site, in use: exit 2, not a verdict."""
    path, player = story
    with pytest.raises(ReplayRefused, match="no such file"):
        replay(tmp_path / "nowhere", player.site, verify=True)
    (tmp_path / "text").write_text("not a database, not at all " * 100)
    with pytest.raises(ReplayRefused, match="text"):
        replay(tmp_path / "text", player.site, verify=True)
    other = Player.open(tmp_path, site_text(2, 32.0))
    with pytest.raises(ReplayRefused, match="other EVSEs"):
        replay(path, other.site, verify=True)
    running = Journal(tmp_path / "running", evse_ids=player.site.electrical.posts.ids)
    with pytest.raises(ReplayRefused, match=r"in use by a daemon: stop it, .* with its running-wal"):
        replay(tmp_path / "running", player.site, verify=True)
    running.close()


def test_the_machine_is_named_by_all_that_can_change_a_bit() -> None:
    """Processor, Python and the libraries that compute."""
    told = machine.fingerprint()
    assert all(name in told for name in machine.LIBRARIES)
    assert record.CLASSES["Measured"] is ev.Measured
