"""``python -m bench tick``: the whole step, from events to decision, with lease book and AC check, without gRPC.

Every second each controller of 100 posts sends its stamp, acks what it was granted, and reports the currents of a tenth
of its posts; 1 % of the cars leave and as many come. All of it is absorbed and decided in one ``step``.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from time import perf_counter

import numpy as np

from bench.sites import site
from powerd.control import events as ev
from powerd.control.compiled import CompiledSite, as_drawn
from powerd.control.decision import Decision
from powerd.control.step import Stepper
from powerd.limits import Bools, Ints
from powerd.state.lease_book import open_book
from powerd.state.snapshot import open_snapshot
from powerd.units import Now

PACKAGES = ("numpy", "numba")

#: Ticks per size.
TICKS = {50: 300, 500: 200, 5000: 80, 50000: 15}
#: Ticks at the start that are not counted: everybody plugs in, ceilings rise.
SETTLING = 12
#: Share of the posts whose car is swapped each tick, and whose current is reported.
CHURN, REPORTED = 0.02, 0.1

Row = dict[str, object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this bench."""
    parser.add_argument("--sizes", default="50,500,5000", help="EVSE counts, comma-separated")
    parser.add_argument("--groups", default="YNyn0,Dyn5", help="vector groups of the transformers: tree, cones")
    parser.add_argument("--ticks", type=int, default=0, help="ticks per size; 0 = as many as fit the size")


class Hall:
    """Controllers that answer as they should."""

    def __init__(self, compiled: CompiledSite) -> None:
        self.owner: Ints = compiled.electrical.posts.controller
        self.members = [np.flatnonzero(self.owner == c) for c in range(len(compiled.electrical.controllers.ids))]
        self.rng = np.random.default_rng(0)
        self.plugged: Bools = self._coin(0.8)

    def hello(self, now_s: float) -> list[ev.Event]:
        """All connect."""
        return [
            ev.HelloReceived(
                evse=evse, incarnation=1, boottime_s=now_s, highest_epoch=0, plugged=self.plugged[evse],
                plug_boottime_s=np.zeros(evse.shape[0]), epoch=np.zeros(evse.shape[0], np.int64),
                seq=np.zeros(evse.shape[0], np.int64), ceiling=np.zeros(evse.shape[0]),
                remaining_s=np.zeros(evse.shape[0]), latched=np.zeros(evse.shape[0], np.bool_),
            )
            for evse in self.members
        ]  # fmt: skip

    def news(self, last: Decision, now_s: float) -> list[ev.Event]:
        """What comes in during one second."""
        events: list[ev.Event] = []
        for batch in (last.lowered, last.raised):
            events += [
                ev.Acked(evse=batch.evse[at], epoch=batch.epoch, seq=batch.seq, ceiling=batch.ceiling[at])
                for at in self._by_controller(batch.evse)
            ]
        for c in last.renewal.controller.tolist():
            events.append(ev.RenewalAcked(evse=self.members[c], epoch=last.renewal.epoch, seq=last.renewal.seq))
        swapped = self._coin(CHURN)
        self.plugged = np.logical_xor(self.plugged, swapped)
        drawn = np.where(self.plugged & ~swapped, 0.95 * last.ceiling, 0.0)
        changed = np.flatnonzero(swapped)
        for at in self._by_controller(changed):
            evse = changed[at]
            events.append(
                ev.PlugChanged(evse=evse, plugged=self.plugged[evse], plug_boottime_s=np.full(evse.shape[0], now_s))
            )
        for evse in self.members:
            events.append(ev.StampSeen(evse=evse, incarnation=1, boottime_s=now_s))
            some = evse[self.rng.random(evse.shape[0]) < REPORTED]
            events.append(ev.Measured(evse=some, drawn=np.repeat(drawn[some, None], 3, axis=1)))
        return events

    def _coin(self, chance: float) -> Bools:
        """(n,) True with this chance."""
        side: Bools = np.less(self.rng.random(self.owner.shape[0]), chance)
        return side

    def _by_controller(self, evse: Ints) -> list[Ints]:
        """Positions in ``evse``, one array a controller."""
        found: dict[int, list[int]] = defaultdict(list)
        for position, owner in enumerate(self.owner[evse].tolist()):
            found[owner].append(position)
        return [np.array(found[owner]) for owner in sorted(found)]


def measure(count: int, group: str, ticks: int) -> Row:
    """One size."""
    compiled = CompiledSite.of(site(count, group))
    book = open_book(compiled.terms, epoch=1, unknown_until_s=-np.inf)
    gear, meters = as_drawn(compiled.electrical), compiled.electrical.meters.count
    snapshot = open_snapshot(book, gear, 0.0, meters=meters)
    stepper, hall = Stepper(compiled), Hall(compiled)
    news, seconds, events, now_s = hall.hello(0.0), [], 0, 0.0
    paths: set[str] = set()
    for tick in range(SETTLING + (ticks or TICKS.get(count, 20))):
        now_s += 1.0
        now = Now(utc=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=now_s), boottime_s=now_s)
        before = perf_counter()
        decision = stepper.step(snapshot, news, now)
        if tick >= SETTLING:
            seconds.append(perf_counter() - before)
            events += len(news)
            paths.add(decision.path)
        snapshot = decision.snapshot
        news = hall.news(decision, now_s)
    times = np.array(seconds) * 1e3
    return {
        "case": f"step, 2 % churn, {group}",
        "engine": "powerd",
        "n": count,
        "median_ms": round(float(np.median(times)), 3),
        "p99_ms": round(float(np.percentile(times, 99)), 3),
        "ticks": len(seconds),
        "events": round(events / len(seconds), 1),
        "paths": ",".join(sorted(paths)),
    }


def run(arguments: argparse.Namespace) -> list[Row]:
    """All sizes."""
    rows = []
    for count in (int(size) for size in arguments.sizes.split(",")):
        for group in arguments.groups.split(","):
            print(f"{count} EVSEs, {group} ...", file=sys.stderr)
            rows.append(measure(count, group, arguments.ticks))
    return rows
