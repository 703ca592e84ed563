"""What can happen to the switchgear, as the door hands it in. Indices are the site's: branches, supplies, buses."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from powerd.limits import Ints
from powerd.state.switchgear import PlanEntry


class ElementKind(StrEnum):
    """What an index is one of."""

    SUPPLY = "supply"
    BUS = "bus"
    BRANCH = "branch"


@dataclass(frozen=True, kw_only=True, eq=False)
class SwitchesSeen:
    """A device said how some switches stand."""

    reporter: int
    """Who, a number of the door's making that is the same after a restart; not 0."""
    reporter_id: str
    """Who, for people."""
    incarnation: int
    """Its process."""
    clock_s: float
    """Its clock when it saw this [s]."""
    branch: Ints
    """(k,) switches."""
    position: Ints
    """(k,) ``Position``; UNKNOWN also where the quality is questionable."""
    flags: Ints
    """(k,) ``Flag`` bits."""


@dataclass(frozen=True, kw_only=True)
class OutageSeen:
    """Something that is no switch lost its voltage or failed, or came back."""

    reporter: int
    """Who says so, as in ``SwitchesSeen``."""
    reporter_id: str
    """Who, for people."""
    incarnation: int
    """Its process."""
    clock_s: float
    """Its clock when it saw this [s]."""
    kind: ElementKind
    """What it is."""
    index: int
    """Which."""
    lost: bool
    """False = it is back."""
    flags: int
    """``Flag`` bits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GearHeard:
    """A switchgear controller spoke on its stream: it takes orders for these switches."""

    branch: Ints
    """(k,) its switches."""
    incarnation: int
    """Its process."""
    clock_s: float
    """Its clock [s]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GearClosed:
    """The stream of a switchgear controller ended."""

    branch: Ints
    """(k,) its switches."""


@dataclass(frozen=True, kw_only=True)
class OrderRefused:
    """The controller will not carry out an order."""

    order_id: int
    """Which."""
    reason: str
    """Why."""


@dataclass(frozen=True, kw_only=True)
class SwitchOrdered:
    """An operator's order for one switch; interlocks are checked when it is absorbed and before it goes out."""

    request_id: str
    """For idempotence; empty = none."""
    branch: int
    """Which."""
    close: bool
    """True = close."""
    reason: str
    """Why."""


@dataclass(frozen=True, kw_only=True)
class ServiceChanged:
    """An operator takes an element out of service, or returns it, which also releases trips and lock-outs there."""

    request_id: str
    """For idempotence; empty = none."""
    kind: ElementKind
    """What it is."""
    indices: tuple[int, ...]
    """Which: both halves of a transfer switch."""
    in_service: bool
    """False = out."""
    reason: str
    """Why."""


@dataclass(frozen=True, kw_only=True)
class PlansReady:
    """The background has found plans: a playbook, or the exact answer to a question that the playbook lacked."""

    base: str
    """Key of the state that a playbook starts from; "" = one more answer for the present playbook."""
    entries: tuple[PlanEntry, ...]
    """The answers."""


SwitchEvent = (
    SwitchesSeen | OutageSeen | GearHeard | GearClosed | OrderRefused | SwitchOrdered | ServiceChanged | PlansReady
)
