"""What pilot steps cost: the garage's published week with steps inside the optimum, and rounded down afterwards.

The optimum of each instant is applied at once, without leases and without what drivers say, so that nothing but the
steps differs; cars follow with their lags, which is why the plant's limits are not judged here (``powerd simulate`` is
for that).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from powerd.allocation.allocate import COLD, Allocator
from powerd.allocation.demands import Demands
from powerd.limits import Floats
from powerd.sim.cars import Battery, Cars
from powerd.sim.policies import Answer, Moment, Pace
from powerd.sim.run import Loop
from powerd.sim.scene import Scene, set_scene

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
        for inside in (True, False):
            way = "steps inside" if inside else "rounded down afterwards"
            rows.append(
                {"case": way, "engine": "powerd", "cap_kw": cap, "energy_delivered_percent": _delivered(scene, inside)}
            )
    return rows


def _delivered(scene: Scene, inside: bool) -> float:
    """Energy delivered over the week [% of needed]."""
    posts = scene.electrical.posts
    loop = Loop(posts=posts, sessions=scene.sessions, plant=scene.plant(), battery=Battery.IDEAL, seed=1)
    with _Optimum(scene, loop.cars, inside) as policy:
        record = loop.run(policy)
    needed = np.array([stay.needed_kwh for stay in record.served])
    delivered = np.array([stay.delivered_kwh for stay in record.served])
    return round(100.0 * float(np.minimum(delivered, needed).sum() / needed.sum()), 2)


class _Optimum:
    """The allocation of each instant, applied as it is."""

    pace = Pace(longest_s=60, quiet_s=3)
    rpcs = 0

    def __init__(self, scene: Scene, cars: Cars, inside: bool) -> None:
        self._posts, self._cars, self._inside = scene.electrical.posts, cars, inside
        self._limits = replace(scene.limits, capacity=np.maximum(scene.allowed, 0.0))
        continuous = replace(self._posts, pilot_steps=(np.zeros(0),) * self._posts.count)
        self._allocator = Allocator(self._posts if inside else continuous)
        self._warm = COLD

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
