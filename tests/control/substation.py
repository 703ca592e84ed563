"""A player for sites with switchgear: a controller that reports every switch and carries orders out, or does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from powerd.control import events as ev
from powerd.control import switch_events as sw
from powerd.control.compiled import CompiledSite
from powerd.control.decision import Decision
from powerd.network.load import load_site
from powerd.state.switchgear import Position
from tests.control.garage import Player

MODELS = Path(__file__).parents[2] / "models"


@cache
def model(name: str) -> CompiledSite:
    """A site of ``models``, compiled once."""
    return CompiledSite.of(load_site(MODELS / name).must())


@dataclass
class Substation:
    """The switches as they truly stand, and what their controller does with orders."""

    player: Player
    closed: np.ndarray
    flags: np.ndarray
    refusing: set[int] = field(default_factory=set)
    stuck: set[int] = field(default_factory=set)
    news: list[ev.Event] = field(default_factory=list)
    orders: list[tuple[str, bool]] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)

    @staticmethod
    def open(site: CompiledSite, *, plugged: bool = True) -> Substation:
        """All switches as drawn and reported, a car at every post, every controller there."""
        player = Player.of(site)
        posts = site.electrical.posts
        if plugged:
            player.plugged = set(range(posts.count))
        for controller in range(len(site.electrical.controllers.ids)):
            player.hello(controller)
        normal = site.electrical.branches.normally_closed.copy()
        return Substation(player, normal, np.zeros(normal.shape[0], np.int64))

    @property
    def switches(self) -> np.ndarray:
        """Branches that are switches."""
        return np.flatnonzero(self.player.site.electrical.branches.switchable)

    def branch(self, name: str) -> int:
        """Index of a branch."""
        return self.player.site.electrical.branches.ids.index(name)

    def supply(self, name: str, *, lost: bool) -> None:
        """A supply loses its voltage, or has it again."""
        index = self.player.site.electrical.supplies.ids.index(name)
        self.outage(sw.ElementKind.SUPPLY, index, lost=lost)

    def branch_lost(self, name: str, *, flags: int) -> None:
        """A branch without a contact of its own conducts no more."""
        self.outage(sw.ElementKind.BRANCH, self.branch(name), lost=True, flags=flags)

    def outage(
        self,
        kind: sw.ElementKind,
        index: int,
        *,
        lost: bool,
        flags: int = 0,
        reporter: int = 9,
        incarnation: int = 9,
        clock_s: float | None = None,
    ) -> None:
        """A device says that something without a contact is lost or back."""
        seen = sw.OutageSeen(
            reporter=reporter,
            reporter_id=f"relay {reporter}",
            incarnation=incarnation,
            clock_s=self.player.now_s if clock_s is None else clock_s,
            kind=kind,
            index=index,
            lost=lost,
            flags=flags,
        )
        self.news.append(seen)

    def moves(self, name: str, *, closed: bool, flags: int = 0) -> None:
        """A switch moves by itself."""
        self.closed[self.branch(name)] = closed
        self.flags[self.branch(name)] = flags

    def report(self, *, reporter: int = 1, clock_s: float | None = None) -> list[ev.Event]:
        """What the controller says now."""
        at, now_s = self.switches, self.player.now_s if clock_s is None else clock_s
        position = np.where(self.closed[at], int(Position.CLOSED), int(Position.OPEN))
        seen = sw.SwitchesSeen(
            reporter=reporter,
            reporter_id=f"device {reporter}",
            incarnation=7,
            clock_s=now_s,
            branch=at,
            position=position,
            flags=self.flags[at],
        )
        return [sw.GearHeard(branch=at, incarnation=7, clock_s=now_s), seen]

    def tick(self, *events: ev.Event, report: bool = True) -> Decision:
        """One second: reports go up, and an order that comes down is carried out."""
        sent = [*(self.report() if report else []), *self.news, *events]
        self.news = []
        decision = self.player.tick(*sent)
        self.alarms += decision.alarms
        order = decision.order
        if order is not None:
            self.orders.append((self.player.site.electrical.branches.ids[order.branch], order.close))
            if order.branch in self.refusing:
                self.news.append(sw.OrderRefused(order_id=order.order_id, reason="spring not charged"))
            elif order.branch not in self.stuck:
                self.closed[order.branch] = order.close
                self.flags[order.branch] = 0
        return decision

    def run(self, seconds: int) -> Decision:
        """Several ticks; after each, the last decision."""
        for _ in range(seconds):
            decision = self.tick()
        return decision

    def live(self) -> set[str]:
        """Buses with voltage, as believed."""
        names = self.player.site.electrical.buses.ids
        return {names[b] for b in np.flatnonzero(self.player.snapshot.gear.bus_live)}
