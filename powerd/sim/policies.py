"""Who says the ceilings: the interface that the lock-step loop drives, and two baselines that need no daemon.

The daemon's own implementation is ``powerd.sim.daemon.Daemon``; all three see the same cars and the same plant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from powerd.limits import Bools, Floats, Limits, Posts
from powerd.sim.grid import News
from powerd.sim.sessions import RecordedSession


class Policy(StrEnum):
    """Who says the ceilings."""

    POWERD = "powerd"
    """The daemon, over gRPC."""
    EQUAL_SHARE = "equal-share"
    """The same ceiling for every plugged car, as high as every limit row allows."""
    UNCONTROLLED = "uncontrolled"
    """Every post at its rating, whatever the wires say."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moment:
    """What a policy may know at one instant; n EVSEs."""

    utc: datetime
    """Wall clock."""
    elapsed_s: int
    """Seconds since the start of the run."""
    unplugged: tuple[int, ...]
    """EVSEs whose car left at this instant."""
    plugged: tuple[int, ...]
    """EVSEs where a car came at this instant, after those that left."""
    started: tuple[tuple[int, RecordedSession], ...]
    """(EVSE, session) of the drivers who state their demand at this instant; only what they *said* may be used."""
    drawn: Floats
    """(n,) what the posts measure [own unit]."""
    news: News = field(default_factory=News)
    """What relays report."""
    closed: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    """(E,) where all contacts stand."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """The ceilings from this instant on."""

    ceilings: Floats
    """(n,) as the actuators took them [own unit]."""
    step_ms: float
    """Time that deciding took [ms]; nan = nothing was decided."""
    orders: tuple[Order, ...] = ()
    """Switches to move; whoever carries them out notes refusals in them."""


@dataclass(kw_only=True)
class Order:
    """One switch to one position."""

    branch: int
    """Which."""
    close: bool
    """True = close."""
    refused: bool = False
    """The switch does not take it."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How the loop may step under a policy."""

    longest_s: int
    """Longest step [s]."""
    quiet_s: int
    """Seconds without any change after which steps may be longer than 1 s."""


class Ceilings(Protocol):
    """A policy at work. A context manager: entering starts it, leaving ends it."""

    pace: Pace
    """How to step."""
    rpcs: int
    """Calls made over the wire so far."""

    def decide(self, moment: Moment) -> Answer:
        """The ceilings from ``moment`` on."""

    def __enter__(self) -> Self:
        """Starts it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""


class _Local:
    """What both baselines share: who is plugged in, in the order of arrival."""

    pace = Pace(longest_s=15, quiet_s=6)
    rpcs = 0

    def __init__(self, posts: Posts) -> None:
        self._posts = posts
        self._queue: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.clear()

    def _follow(self, moment: Moment) -> None:
        self._queue = [evse for evse in self._queue if evse not in moment.unplugged]
        self._queue += moment.plugged


class Uncontrolled(_Local):
    """Every plugged car may take the post's rating."""

    def decide(self, moment: Moment) -> Answer:
        """Ratings where a car is plugged in, else 0."""
        self._follow(moment)
        ceilings = np.zeros(self._posts.count)
        ceilings[self._queue] = self._posts.max_ceiling[self._queue]
        return Answer(ceilings=ceilings, step_ms=float("nan"))


class EqualShare(_Local):
    """Every plugged car gets the same power, the largest that fits all rows; who does not fit waits, first come first.

    A post gets it as the next pilot step below (same voltage: the same ceiling in ampere), at most its rating, at least
    its minimum. Cars that are full but still plugged in keep their share: an equal split does not ask.
    """

    def __init__(self, posts: Posts, limits: Limits, allowed: Floats) -> None:
        """``allowed`` (L,) is what the ``limits`` leave to the EVSEs [limit unit]."""
        super().__init__(posts)
        self._limits = limits
        self._bound = allowed * (1.0 + 1e-9)
        self._ceilings = np.zeros(posts.count)
        self._values = _powers(posts)

    def decide(self, moment: Moment) -> Answer:
        """The equal split; changes only when a car comes or leaves."""
        if moment.plugged or moment.unplugged:
            self._follow(moment)
            self._ceilings = self._split()
        return Answer(ceilings=self._ceilings.copy(), step_ms=float("nan"))

    def _split(self) -> Floats:
        served = np.zeros(self._posts.count, dtype=np.bool_)
        for evse in self._queue:
            served[evse] = self._limits.energized[evse]
            served[evse] = served[evse] and self._fits(np.where(served, self._posts.min_ceiling, 0.0))
        low, high = -1, self._values.shape[0]  # largest value that fits, by bisection: rows are monotone
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(self._at(middle, served)) else (low, middle)
        return self._at(low, served) if low >= 0 else np.where(served, self._posts.min_ceiling, 0.0)

    def _fits(self, ceilings: Floats) -> bool:
        return bool((self._limits.limit_flow(ceilings) <= self._bound).all())

    def _at(self, value: int, served: Bools) -> Floats:
        """Ceilings (n,) at power ``_values[value]`` a car."""
        posts = self._posts
        ceilings = np.clip(self._values[value] / posts.kw_per_unit, posts.min_ceiling, posts.max_ceiling)
        for evse in np.flatnonzero(served).tolist():
            steps = posts.pilot_steps[evse]
            if steps.shape[0]:
                below = steps[steps <= ceilings[evse] + 1e-9]
                ceilings[evse] = max(float(below[-1]), float(posts.min_ceiling[evse]))
        return np.where(served, ceilings, 0.0)


def _powers(posts: Posts) -> Floats:
    """Powers [kW] to choose from, ascending, above 0: every pilot step, and 1 000 even ones for continuous posts."""
    values = [s * kw for s, kw in zip(posts.pilot_steps, posts.kw_per_unit.tolist(), strict=True) if s.shape[0]]
    if len(values) < posts.count:
        values.append(np.linspace(0.0, float((posts.max_ceiling * posts.kw_per_unit).max()), 1001))
    found: Floats = np.unique(np.round(np.concatenate(values), 9))
    return found[found > 0.0]
