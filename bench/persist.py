"""``python -m bench persist``: what it costs to make a tick durable, on the disk of ``--folder``.

``busy``: every EVSE reports a new current each tick and every controller its stamp and acks, a quarter of the leases is
renewed. ``calm``: stamps and acks alone. ``usual``: as powerd's own client does it, each controller reports once in a
quarter of its ttl: in each tick a quarter of them stamps, acks and reads. Readings are rounded as the server's door
rounds them. Each tick is stepped right before it is handed over, as the daemon does. Wall: from handing over until
durable; CPU: of the ticker's thread alone.

The rival is the disk itself: after each tick as many bytes as it took are written to a file beside the journal, over
what is there already, and synced with ``fdatasync``. No journal that is durable can be faster than that.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import numpy as np

from powerd.control import events as ev
from powerd.control.compiled import CompiledSite, as_drawn
from powerd.control.decision import Decision
from powerd.control.step import Stepper
from powerd.journal.store import Entry, Journal
from powerd.journal.writer import JournalWriter
from powerd.limits import Ints
from powerd.network.load import load_site
from powerd.server import checks
from powerd.state.lease_book import open_book
from powerd.state.snapshot import Snapshot, open_snapshot
from powerd.units import Now

PACKAGES = ("numpy", "apsw")
CONTROLLERS = 50
"""They share the EVSEs equally."""
FLOOR_BYTES = 32 * 1024 * 1024
"""Size of the file that the disk is measured with; it is written over from the beginning."""

TURNS = 4
"""Ticks between two reports of a controller where it says no more than it must: ttl/4 of 15 s."""

Row = dict[str, object]


class Case(StrEnum):
    """What controllers say."""

    CALM = "calm"
    BUSY = "busy"
    USUAL = "usual"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this bench."""
    parser.add_argument("--sizes", default="1000,10000", help="EVSE counts, comma-separated")
    parser.add_argument("--ticks", type=int, default=60, help="ticks per case")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk to be measured")


def hall(count: int) -> str:
    """Site file of ``count`` posts, a feeder for each controller."""
    each = count // CONTROLLERS
    groups = [
        f"  - {{count: {each}, first: {each * c + 1}, id: 'S{{n:05}}', bus: panel{c}, controller: c{c}, type: t}}"
        for c in range(CONTROLLERS)
    ]
    names = ", ".join(f"{{id: c{c}, class: c}}" for c in range(CONTROLLERS))
    panels = ", ".join(f"{{id: panel{c}, voltage_v: 400}}" for c in range(CONTROLLERS))
    feeders = ", ".join(
        f"{{id: F{c}, from_bus: main, to_bus: panel{c}, length_m: 1, r_ohm_per_km: 0.0001, x_ohm_per_km: 0.0001, "
        f"ampacity_a: {16.0 * each}, source: bench}}"
        for c in range(CONTROLLERS)
    )
    lines = [
        "site: hall",
        "supplies: [{id: grid, bus: main}]",
        f"buses: [{{id: main, voltage_v: 400}}, {panels}]",
        f"feeders: [{feeders}]",
        "controller_classes: [{id: c, ttl_s: 15.0, reaction_s: 5.0, watchdog_s: 0}]",
        f"controllers: [{names}]",
        "evse_types: [{id: t, phases: '3', max_current_a: 32, fallback_a: 0}]",
        "station_groups:",
        *groups,
    ]
    return "\n".join(lines) + "\n"


class Life:
    """A hall that is stepped; every controller hears and acks."""

    def __init__(self, folder: Path, count: int) -> None:
        file = folder / "site.yaml"
        file.write_text(hall(count), encoding="utf-8")
        electrical = load_site(file).must()
        self.site = CompiledSite.of(electrical)
        posts = electrical.posts
        book = open_book(self.site.terms, epoch=1, unknown_until_s=-np.inf)
        self.snapshot: Snapshot = open_snapshot(book, as_drawn(electrical), 0.0, meters=electrical.meters.count)
        self._stepper = Stepper(self.site)
        self._owned = [np.flatnonzero(posts.controller == c) for c in range(CONTROLLERS)]
        self._rng = np.random.default_rng(1)
        self._unacked: list[list[Decision]] = [[] for _ in self._owned]
        self._now_s = 0.0

    def tick(self, case: Case) -> Entry:
        """One tick, as the daemon hands it over."""
        self._now_s += 1.0
        events: list[ev.Event] = []
        for c, evse in enumerate(self._owned):
            if self._now_s == 1.0:
                events.append(self._hello(c, evse))
            elif case is not Case.USUAL or c % TURNS == self._now_s % TURNS:
                events.extend(self._report(c, evse, reads=case is not Case.CALM))
        now = Now(utc=datetime.fromtimestamp(1.7e9 + self._now_s, UTC), boottime_s=self._now_s)
        decision = self._stepper.step(self.snapshot, events, now)
        for waiting in self._unacked:
            waiting.append(decision)
        self.snapshot = decision.snapshot
        return Entry(now=now, events=events, decision=decision)

    def _report(self, c: int, evse: Ints, *, reads: bool) -> list[ev.Event]:
        found: list[ev.Event] = [ev.StampSeen(evse=evse, incarnation=100 + c, boottime_s=self._now_s)]
        for decision in self._unacked[c]:
            found.extend(self._acks(c, evse, decision))
        self._unacked[c] = []
        if reads:
            amps = np.repeat(self._rng.uniform(6.0, 16.0, evse.shape[0]), 3)
            found.append(ev.Measured(evse=evse, drawn=checks.readings("measured", amps.tolist()).reshape(-1, 3)))
        return found

    def _hello(self, c: int, evse: Ints) -> ev.HelloReceived:
        nothing, none = np.zeros(evse.shape[0]), np.zeros(evse.shape[0], np.int64)
        return ev.HelloReceived(
            evse=evse,
            incarnation=100 + c,
            boottime_s=self._now_s,
            highest_epoch=0,
            plugged=np.ones(evse.shape[0], np.bool_),
            plug_boottime_s=nothing,
            epoch=none,
            seq=none,
            ceiling=nothing,
            remaining_s=nothing,
            latched=np.zeros(evse.shape[0], np.bool_),
        )

    @staticmethod
    def _acks(c: int, evse: Ints, decision: Decision) -> list[ev.Event]:
        found: list[ev.Event] = []
        for batch in (decision.lowered, decision.raised):
            own = np.isin(batch.evse, evse)
            if own.any():
                found.append(
                    ev.Acked(evse=batch.evse[own], epoch=batch.epoch, seq=batch.seq, ceiling=batch.ceiling[own])
                )
        if c in decision.renewal.controller:
            found.append(ev.RenewalAcked(evse=evse, epoch=decision.renewal.epoch, seq=decision.renewal.seq))
        return found


class Floor:
    """A file that is written to and synced, nothing else."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_RDWR)
        os.pwrite(self._file, bytes(FLOOR_BYTES), 0)
        os.fsync(self._file)
        self._at = 0

    def write(self, size: int) -> float:
        """Seconds that ``size`` bytes take."""
        self._at = self._at + size if self._at + 2 * size < FLOOR_BYTES else 0
        data = os.urandom(size)
        began = time.perf_counter()
        os.pwrite(self._file, data, self._at)
        os.fdatasync(self._file)
        return time.perf_counter() - began

    def close(self) -> None:
        """Closes it."""
        os.close(self._file)


@dataclass
class Costs:
    """Of each tick, seconds and bytes."""

    wall: list[float] = field(default_factory=list)
    """Until it is durable."""
    ticker_cpu: list[float] = field(default_factory=list)
    """Of the ticker's thread."""
    all_cpu: list[float] = field(default_factory=list)
    """Of all threads."""
    written: list[int] = field(default_factory=list)
    """Bytes in the log."""
    floor: list[float] = field(default_factory=list)
    """What the disk alone took for as many."""


async def _persist(writer: JournalWriter, journal: Journal, entries: Iterator[Entry], floor: Floor) -> Costs:
    """Commits tick after tick; in the pauses the writer tidies up."""
    costs = Costs()
    for entry in entries:
        pages = journal.logged_pages
        began, used, all_used = time.perf_counter(), time.thread_time(), time.process_time()
        await writer.commit(entry)
        costs.wall.append(time.perf_counter() - began)
        costs.ticker_cpu.append(time.thread_time() - used)
        costs.all_cpu.append(time.process_time() - all_used)
        new = journal.logged_pages - pages
        if new > 0:  # else the log began anew
            costs.written.append(new * journal.page_bytes)
            costs.floor.append(floor.write(new * journal.page_bytes))
        await asyncio.sleep(0.05)
    return costs


def _case(folder: Path, count: int, ticks: int, case: Case) -> list[Row]:
    """Our row and the disk's."""
    life = Life(folder, count)
    for _ in range(25):  # everybody is granted and has renewed once
        warm = life.tick(case)
    path = folder / f"journal-{count}-{case}"
    journal = Journal(path, evse_ids=life.site.electrical.posts.ids)
    journal.start(life.snapshot, warm.now)
    writer, floor = JournalWriter(journal), Floor(folder / "floor")
    costs = asyncio.run(_persist(writer, journal, (life.tick(case) for _ in range(ticks)), floor))
    record = sum(len(r) for (r,) in journal._db.execute("SELECT content FROM records WHERE kind = 'tick'"))  # noqa: SLF001
    writer.close()
    floor.close()
    ours = _row(case, "powerd", count, costs.wall[1:]) | {
        "tick_thread_cpu_median_ms": _median_ms(costs.ticker_cpu[1:]),
        "tick_thread_cpu_p99_ms": round(1e3 * float(np.percentile(costs.ticker_cpu[1:], 99)), 3),
        "all_threads_cpu_median_ms": _median_ms(costs.all_cpu[1:]),
        "record_kb_per_tick": round(record / ticks / 1024, 2),
        "log_kb_per_tick": round(float(np.median(costs.written)) / 1024, 1),
    }
    return [ours, _row(case, "write and fdatasync of as many bytes", count, costs.floor)]


def _row(case: Case, engine: str, count: int, seconds: list[float]) -> Row:
    """What every row says."""
    return {
        "case": str(case),
        "engine": engine,
        "n": count,
        "median_ms": _median_ms(seconds),
        "best_ms": round(1e3 * min(seconds), 3),
        "p99_ms": round(1e3 * float(np.percentile(seconds, 99)), 3),
        "ticks": len(seconds),
    }


def _median_ms(seconds: list[float]) -> float:
    return round(1e3 * float(np.median(seconds)), 3)


def run(arguments: argparse.Namespace) -> list[Row]:
    """All rows."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for size in (int(word) for word in arguments.sizes.split(",")):
            for case in Case:
                rows.extend(_case(Path(folder), size, arguments.ticks, case))
    return rows
