"""The outage study: every supply, transformer, tie and switch lost, one or two at once, and what becomes of the site.

Each outage is played second by second on the real core (``sim/world``) from the same full house: it strikes, automatic
switches move, powerd lowers, orders, raises. Told of each: who lost the supply, who got it back and when, what is
delivered in the end, how long anything was overloaded and how much of its tolerance that used, and whether any switch
ever closed where it must not (I9).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from powerd.control.compiled import CompiledSite
from powerd.control.step import Stepper
from powerd.errors import PowerdError
from powerd.network.load import LoadedSite
from powerd.network.moves import silent_s
from powerd.network.standing import ACK_S
from powerd.sim.outage import Cause, Element, elements_of, is_feeder
from powerd.sim.switches import transfers_of
from powerd.sim.wires import Survey
from powerd.sim.world import World
from powerd.studies.best import owed

SETTLE_S = 40
"""A full house is steady after this long [s]."""
SETTLED_S = 25
"""An outage is over when nothing has changed for so long [s]: longer than an order or a staggered pick-up takes ..."""
WATCH_S = 240
"""... and at most so long after it [s]; an order waits 120 s for room."""
SLACK_S = 1.0
"""One tick, in which an event may just have been missed [s]."""


Play = tuple[tuple[Element, ...], Cause]
"""What is lost in the same second, and why."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the site; field names are the JSON keys."""

    outage: tuple[str, ...]
    """What was lost."""
    cause: str
    """Why."""
    before_kw: float
    """What all EVSEs drew before [kW]."""
    lost: int
    """EVSEs without supply right after it, automatic transfers done."""
    restored: int
    """How many of them powerd brought back."""
    seconds: float
    """From the outage to the last EVSE brought back [s]; 0 = none was."""
    remaining_kw: float
    """What all EVSEs draw in the end [kW]."""
    owed: int
    """EVSEs that must have a supply in the end (``studies.best``); -1 = not found out."""
    live: int
    """EVSEs that have one in the end."""
    overload_s: float
    """Longest time that anything carried more than its rating [s]."""
    bound_s: float
    """How long that may be."""
    overloaded: str
    """What carried it, for people; "" = nothing."""
    share: float
    """Most that anything carried, of its rating."""
    worn: float
    """Largest share of its tolerance that an element used; 1 = it trips or is damaged."""
    trips: tuple[str, ...]
    """Simulated breakers that opened."""
    broken: tuple[str, ...]
    """Movements that I9 forbids, as "rule at element"."""

    @property
    def key(self) -> tuple[str, ...]:
        """What was played."""
        return (*self.outage, self.cause)

    @property
    def kept(self) -> bool:
        """Every promise."""
        in_time = self.overload_s <= self.bound_s and self.worn < 1.0 and not self.trips
        return in_time and not self.broken and (self.owed < 0 or self.live >= self.owed)


class Study:
    """One site, ready to be played."""

    def __init__(self, loaded: LoadedSite, *, seed: int = 1, stepper: Stepper | None = None) -> None:
        """``stepper`` for tests that break a rule on purpose."""
        self.electrical = loaded.must()
        self._stepper = stepper or Stepper(CompiledSite.of(self.electrical))
        survey = Survey(self.electrical, np.random.default_rng(seed))
        self.house = World(self._stepper, survey, transfers_of(loaded.site, self.electrical), seed=seed)
        self.house.run(SETTLE_S)
        if self.house.windows.any_open or self.house.breakers.trips:
            raise PowerdError(f"site {self.electrical.site_id} is overloaded before anything is lost")

    @property
    def elements(self) -> list[Element]:
        """Everything that is lost in turn: supplies, transformers, switches; a transfer switch is one."""
        return [one for one in elements_of(self.electrical) if not is_feeder(self.electrical, one)]

    def element(self, name: str) -> Element:
        """The one of that id."""
        return next(element for element in self.elements if element.name == name)

    @property
    def answering_s(self) -> float:
        """How long an overload may last where controllers answer: ack + reaction + 1 s [s]."""
        return ACK_S + float(self.electrical.controllers.reaction_s.max()) + SLACK_S

    def play(
        self,
        outage: tuple[Element, ...],
        cause: Cause,
        *,
        watch_s: int = WATCH_S,
        silent: bool = False,
        sheds: bool = True,
    ) -> Outcome:
        """One outage.

        Args:
            outage: what is lost, all in the same second.
            cause: why.
            watch_s: how long to watch at most [s].
            silent: every controller falls silent in that second (R6's other bound).
            sheds: False = decreases do not reach the posts, a control.
        """
        world = self.house.fork()
        began, before_kw = world.now_s, world.power_kw
        world.sheds = sheds
        world.fleet.silent[:] = silent
        was_live = world.live.copy()
        for element in sorted(outage, key=lambda one: one.kind == "supply"):
            world.strike(element, cause)  # protection acts before a voltage is gone
        world.run(2)  # automatic transfers take less
        dead = was_live & ~world.live
        restored_s, live = 0.0, world.live
        while world.now_s - began < watch_s and world.still_s < SETTLED_S:
            world.on()
            if (world.live & ~live).any():
                restored_s = world.now_s - began
            live = world.live
        return self._outcome(world, outage, cause, before_kw, dead, restored_s, silent)

    def _outcome(
        self,
        world: World,
        outage: tuple[Element, ...],
        cause: Cause,
        before_kw: float,
        dead: np.ndarray,
        restored_s: float,
        silent: bool,
    ) -> Outcome:
        ids = self.electrical.branches.ids
        windows = world.windows.all()
        longest = max(windows, key=lambda window: window.seconds, default=None)
        controllers = self.electrical.controllers
        return Outcome(
            outage=tuple(element.name for element in outage),
            cause=str(cause),
            before_kw=before_kw,
            lost=int(dead.sum()),
            restored=int((dead & world.live).sum()),
            seconds=restored_s,
            remaining_kw=world.power_kw,
            owed=owed(world),
            live=int(world.live.sum()),
            overload_s=0.0 if longest is None else longest.seconds,
            bound_s=float(silent_s(controllers).max()) + SLACK_S if silent else self.answering_s,
            overloaded="" if longest is None else longest.name,
            share=max((window.share for window in windows), default=0.0),
            worn=float(world.breakers.worn.max(initial=0.0)),
            trips=tuple(ids[trip.branch] for trip in world.breakers.trips),
            broken=tuple(f"{one.rule} at {one.element}" for one in world.gear.broken),
        )


def outages(elements: list[Element], *, double: bool = False, sample: int = 0, seed: int = 1) -> list[Play]:
    """What is played: every single loss, with ``double`` every pair, too (``sample`` > 0: so many drawn by ``seed``).

    Each for both causes; a supply alone is only ever lost upstream.
    """
    single: list[tuple[Element, ...]] = [(element,) for element in elements]
    pairs = list(itertools.combinations(elements, 2)) if double else []
    if 0 < sample < len(pairs):
        drawn = np.random.default_rng(seed).choice(len(pairs), size=sample, replace=False)
        pairs = [pairs[k] for k in sorted(drawn.tolist())]
    return [
        (outage, cause)
        for outage, cause in itertools.product([*single, *pairs], Cause)
        if cause is Cause.UPSTREAM or any(element.kind == "branch" for element in outage)
    ]
