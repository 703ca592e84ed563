"""Random sequences of losses, returns, refusals, wrong and late reports: the same promises, whatever the order.

Deterministic: a sequence is a seed. Between two happenings pass 1 to 25 s, so that they fall into each other's work.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.sim.outage import Cause, Element
from powerd.sim.relays import operated
from powerd.sim.world import World
from powerd.studies.outages import Study

HAPPENINGS = 6
"""Of one sequence."""
APART_S = (1, 25)
"""Between two of them [s]."""
DELAYS_S = (0.0, 0.0, 1.0, 3.0)
"""How late reports are in a sequence [s]."""
CALM_S = 30
"""Watched after the last one [s]."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """One sequence and what was broken in it."""

    seed: int
    """Of the sequence."""
    story: tuple[str, ...]
    """What happened, in order: "12 s: T1 lost (protection)"."""
    broken: tuple[str, ...]
    """Promises that were not kept; empty = all were."""


def play_sequence(study: Study, seed: int) -> Played:
    """Plays the sequence of ``seed`` from the steady full house."""
    rng = np.random.default_rng(seed)
    world = study.house.fork()
    began = world.now_s
    world.relays.delay_s = float(rng.choice(DELAYS_S))
    lost: dict[str, Element] = {}
    story = [f"reports {world.relays.delay_s:g} s late"] if world.relays.delay_s else []
    for _ in range(HAPPENINGS):
        story.append(f"{world.now_s - began:g} s: {_happens(study, world, lost, rng)}")
        world.run(int(rng.integers(*APART_S)))
    world.run(CALM_S)
    return Played(seed=seed, story=tuple(story), broken=tuple(_broken(study, world)))


def _happens(study: Study, world: World, lost: dict[str, Element], rng: np.random.Generator) -> str:
    """One happening; what it was."""
    kind = rng.choice(["lose", "return", "lie", "refuse"], p=[0.5, 0.3, 0.1, 0.1])
    if kind == "return" and lost:
        name = str(rng.choice(sorted(lost)))
        world.heal(lost.pop(name))
        return f"{name} back"
    if kind == "lie":
        branch = int(rng.choice(np.flatnonzero(study.electrical.branches.switchable)))
        world.relays.lies(branch, world.now_s)
        return f"somebody reports the opposite of {study.electrical.branches.ids[branch]}"
    if kind == "refuse" and operated(study.electrical):
        branch = int(rng.choice(operated(study.electrical)))
        world.gear.refuses.add(branch)
        return f"{study.electrical.branches.ids[branch]} takes no orders"
    left = [element for element in study.elements if element.name not in lost]
    if not left:
        return "nothing is left to lose"
    element, cause = left[int(rng.integers(len(left)))], list(Cause)[int(rng.integers(2))]
    lost[element.name] = element
    world.strike(element, cause)
    return f"{element.name} lost ({cause})"


def _broken(study: Study, world: World) -> list[str]:
    """Forbidden movements, trips, and overloads beyond the bound (a late report starts it later)."""
    found = [f"{one.rule} at {one.element}, {one.at_s:g} s" for one in world.gear.broken]
    found += [f"{study.electrical.branches.ids[trip.branch]} tripped" for trip in world.breakers.trips]
    if world.breakers.worn.max(initial=0.0) >= 1.0:
        found.append("an element has stood more than it can")
    bound = study.answering_s + world.relays.delay_s
    found += [
        f"{w.name} over for {w.seconds:g} s (at most {bound:g} s)" for w in world.windows.all() if w.seconds > bound
    ]
    return found
