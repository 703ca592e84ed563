"""What pilot steps cost: the garage's published week with steps inside the optimum, and rounded down afterwards.

Beside both plain least laxity, which is on steps by itself: what an optimum that is rounded afterwards has to beat. It
is told what no driver is asked here, when each car will leave and what it still needs.

The optimum of each instant is applied at once, without leases and without what drivers say, so that nothing but the
steps differs; cars follow with their lags, which is why the plant's limits are not judged here (``powerd simulate`` is
for that).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from powerd.allocation.allocate import COLD, Allocator
from powerd.allocation.demands import Demands
from powerd.limits import Floats
from powerd.sim.cars import Battery, Cars
from powerd.sim.policies import Answer, Ceilings, Moment, Pace
from powerd.sim.run import Loop
from powerd.sim.scene import Scene, set_scene
from powerd.units import ROW_TOLERANCE

PACKAGES = ("numpy", "numba")
GARAGE = Path(__file__).resolve().parents[1] / "models" / "caltech_garage"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this bench."""
    parser.add_argument("--caps", default="50,40,30", help="transformer sizes [kW], default 50,40,30")


def run(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One row for each cap and way."""
    rows: list[dict[str, object]] = []
    for cap in [float(text) for text in str(arguments.caps).split(",")]:
        scene = set_scene(
            site=GARAGE,
            sessions=GARAGE / "sessions" / "caltech_2019-05-06_5d.csv",
            first=None,
            days=None,
            cap_kw=cap,
            seed=1,
        )
        for way, policy in WAYS.items():
            engine, delivered = "rule" if way == "least laxity" else "powerd", _delivered(scene, policy)
            rows.append({"case": way, "engine": engine, "cap_kw": cap, "energy_delivered_percent": delivered})
    return rows


def _delivered(scene: Scene, way: Callable[[Scene, Cars], Ceilings]) -> float:
    """Energy delivered over the week [% of needed]."""
    posts = scene.electrical.posts
    loop = Loop(posts=posts, sessions=scene.sessions, plant=scene.plant(), battery=Battery.IDEAL, seed=1)
    with way(scene, loop.cars) as policy:
        record = loop.run(policy)
    needed = np.array([stay.needed_kwh for stay in record.served])
    delivered = np.array([stay.delivered_kwh for stay in record.served])
    return round(100.0 * float(np.minimum(delivered, needed).sum() / needed.sum()), 2)


class _Way:
    """What all ways share."""

    pace = Pace(longest_s=60, quiet_s=3)
    rpcs = 0

    def __init__(self, scene: Scene, cars: Cars) -> None:
        self._posts, self._cars = scene.electrical.posts, cars
        self._limits = replace(scene.limits, capacity=np.maximum(scene.allowed, 0.0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was opened."""


class _Optimum(_Way):
    """The allocation of each instant, applied as it is."""

    def __init__(self, scene: Scene, cars: Cars, *, inside: bool) -> None:
        super().__init__(scene, cars)
        self._inside = inside
        continuous = replace(self._posts, pilot_steps=(np.zeros(0),) * self._posts.count)
        self._allocator = Allocator(self._posts if inside else continuous)
        self._warm = COLD

    def decide(self, moment: Moment) -> Answer:
        """Ceilings for the cars that are not full; minima by least energy, in whole kWh."""
        del moment
        count = self._posts.count
        upper = np.where(self._cars.hungry, self._posts.max_ceiling, 0.0)
        demands = Demands(
            weight=np.ones(count),
            upper=upper,
            minimum=self._posts.min_ceiling,
            floor=np.zeros(count),
            silent=np.zeros(count),
            opens=np.zeros(count),
            priority=np.zeros(count, dtype=np.int64),
            least_served=np.floor(np.where(self._cars.plugged, self._cars.got_kwh, 0.0)),
            overdue=np.zeros(count, dtype=np.bool_),
            target=upper,
            uncontrolled=np.zeros(self._limits.capacity.shape[0]),
        )
        allocation = self._allocator.allocate(self._limits, demands, self._warm)
        self._warm = allocation.warm
        want = allocation.want if self._inside else _rounded_down(self._posts.pilot_steps, allocation.want)
        return Answer(ceilings=want, step_ms=float("nan"))


def _rounded_down(steps: tuple[Floats, ...], want: Floats) -> Floats:
    """(n,) the step below each ceiling."""
    return np.array([own[own <= x + 1e-6][-1] if own.size else x for own, x in zip(steps, want.tolist(), strict=True)])


class _LeastLaxity(_Way):
    """ACN's rule: who has the least time to spare goes first and takes the largest step that fits."""

    def __init__(self, scene: Scene, cars: Cars) -> None:
        super().__init__(scene, cars)
        self._stays = scene.sessions
        self._leaves: list[datetime | None] = [None] * self._posts.count

    def decide(self, moment: Moment) -> Answer:
        """Ceilings for the cars that are not full."""
        for evse in moment.plugged:
            own = [
                stay for stay in self._stays if stay.evse_id == self._posts.ids[evse] and stay.departure > moment.utc
            ]
            self._leaves[evse] = min((stay.departure for stay in own), default=None)
        ceilings = np.zeros(self._posts.count)
        for evse in sorted(np.flatnonzero(self._cars.hungry).tolist(), key=lambda k: self._laxity_h(k, moment.utc)):
            ceilings[evse] = self._largest(ceilings, evse)
        return Answer(ceilings=ceilings, step_ms=float("nan"))

    def _laxity_h(self, evse: int, utc: datetime) -> float:
        """Time until it leaves, less what charging at full power would still take [h]."""
        leaves = self._leaves[evse]
        left_h = np.inf if leaves is None else (leaves - utc).total_seconds() / 3600.0
        power_kw = float(self._posts.max_ceiling[evse] * self._posts.kw_per_unit[evse])
        return left_h - float(self._cars.need_kwh[evse] - self._cars.got_kwh[evse]) / power_kw

    def _largest(self, ceilings: Floats, evse: int) -> float:
        """The largest step within every limit; flows grow with it."""
        steps = self._posts.pilot_steps[evse]
        fits, too_much = 0, steps.shape[0]
        while too_much - fits > 1:
            middle = (fits + too_much) // 2
            tried = ceilings.copy()
            tried[evse] = steps[middle]
            within = bool((self._limits.limit_flow(tried) <= self._limits.capacity + ROW_TOLERANCE).all())
            fits, too_much = (middle, too_much) if within else (fits, middle)
        return float(steps[fits])


WAYS: dict[str, Callable[[Scene, Cars], Ceilings]] = {
    "steps inside": partial(_Optimum, inside=True),
    "rounded down afterwards": partial(_Optimum, inside=False),
    "least laxity": _LeastLaxity,
}
