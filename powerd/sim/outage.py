"""What can be lost and come back, in the true switchgear; and what its relays then have to say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np

from powerd.network.electrical import BranchKind, Electrical
from powerd.sim.switches import Gear


class Cause(StrEnum):
    """Why an element is lost."""

    UPSTREAM = "upstream"
    """It lost its voltage; nothing is wrong with it or behind it."""
    PROTECTION = "protection"
    """A fault on it or behind it; protection opened."""


@dataclass(frozen=True, kw_only=True)
class Element:
    """Something that can be lost."""

    kind: Literal["supply", "branch"]
    """What."""
    indices: tuple[int, ...]
    """Which: a supply, a branch, or both halves of a transfer switch."""
    name: str
    """Its id."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What is to be told of something that has no contact of its own."""

    kind: Literal["supply", "branch"]
    """What."""
    index: int
    """Which."""
    lost: bool
    """False = it is back."""
    protection: bool
    """Lost on protection; otherwise with the voltage upstream."""


def elements_of(electrical: Electrical) -> Iterator[Element]:
    """Supplies, branches and transfer switches (as one) in service, in the order of the drawing."""
    for s in np.flatnonzero(electrical.supplies.in_service).tolist():
        yield Element(kind="supply", indices=(s,), name=electrical.supplies.ids[s])
    ids = electrical.branches.ids
    halves: dict[str, list[int]] = {}
    for e in np.flatnonzero(electrical.branches.in_service).tolist():
        own, _, side = ids[e].rpartition("/")
        halves.setdefault(own if side in ("preferred", "alternate") else ids[e], []).append(e)
    for name, indices in halves.items():
        yield Element(kind="branch", indices=tuple(indices), name=name)


def is_feeder(electrical: Electrical, element: Element) -> bool:
    """A cable or line."""
    return element.kind == "branch" and bool(electrical.branches.kind[element.indices[0]] == BranchKind.FEEDER)


def strike(gear: Gear, element: Element, cause: Cause, now_s: float) -> list[Loss]:
    """The element is lost; what has to be told besides the positions that moved."""
    fault = cause is Cause.PROTECTION
    if element.kind == "supply":
        gear.supply(element.indices[0], False, now_s)
        return [Loss(kind="supply", index=element.indices[0], lost=True, protection=False)]
    told = []
    for branch in element.indices:
        switchable = bool(gear.electrical.branches.switchable[branch])
        if switchable and not gear.closed[branch]:
            gear.refuses.add(branch)  # an open switch fails by not closing
            gear.stuck.add(branch)
            continue
        (gear.lose if fault else gear.vanish)(branch, now_s)
        if not switchable:
            told.append(Loss(kind="branch", index=branch, lost=True, protection=fault))
    return told


def heal(gear: Gear, element: Element, now_s: float) -> list[Loss]:
    """It is back; switches stay where they are."""
    if element.kind == "supply":
        gear.supply(element.indices[0], True, now_s)
        return [Loss(kind="supply", index=element.indices[0], lost=False, protection=False)]
    told = []
    for branch in element.indices:
        gear.mend(branch, now_s)
        gear.refuses.discard(branch)
        gear.stuck.discard(branch)
        if not gear.electrical.branches.switchable[branch]:
            told.append(Loss(kind="branch", index=branch, lost=False, protection=False))
    return told
