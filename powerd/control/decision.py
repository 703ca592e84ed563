"""What one step decides: plain columns for the doors, in this order: lowered, (journal), raised, renewals."""

from __future__ import annotations

from dataclasses import dataclass

from powerd.control.ac_check import Shed
from powerd.control.compiled import CompiledSite
from powerd.control.events import Outcome
from powerd.control.switching import SwitchOrder
from powerd.limits import Bools, Floats, Ints, Limits
from powerd.network.plan import Question
from powerd.state.impaired import Trigger
from powerd.state.overshoot import Overshoot
from powerd.state.snapshot import Snapshot
from powerd.units import Now

BY_TERMS = -2
"""In ``Decision.binding_limit``: no limit holds the want, a term of the users does."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GrantBatch:
    """Grants that share a seq; k entries, ascending by EVSE."""

    epoch: int
    """Who leads."""
    seq: int
    """Order within the epoch."""
    evse: Ints
    """(k,) EVSEs."""
    ceiling: Floats
    """(k,) [own unit]."""
    latched: Bools
    """(k,) a stop."""
    one_phase: Bools
    """(k,) the ceiling is for the post's L1 alone."""
    ttl_s: Floats
    """(k,) lease length [s]."""
    echo_incarnation: Ints
    """(k,) the newest stamp absorbed: process."""
    echo_boottime_s: Floats
    """(k,) the newest stamp absorbed: clock [s]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Renewal:
    """Leases of whole controllers extended at their last sent ceilings."""

    epoch: int
    seq: int
    controller: Ints
    """(c,) controller indices."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """All that one tick decided."""

    now: Now
    """The tick's instant."""
    site: CompiledSite
    """The site with the limits of the switching state that this tick decided for."""
    tick: int
    """Ticks since the start."""
    limits: Limits
    """Those limits as the want was decided under them: tightened, and renamed, where a power flow asks for it."""
    snapshot: Snapshot
    """The state after the tick."""
    lowered: GrantBatch
    """Decreases and stops: published at once, before the disk."""
    raised: GrantBatch
    """Raises and repeated grants: published after the disk."""
    renewal: Renewal
    """Renewals: published last."""
    outcomes: tuple[Outcome, ...]
    """One per absorbed event, in order."""
    ceiling: Floats
    """(n,) newest ceiling sent to (or in force at) each EVSE after this tick [own unit]."""
    want: Floats
    """(n,) what the allocation wants to give [own unit]."""
    worst: Floats
    """(n,) W after this tick [own unit]."""
    binding_limit: Ints
    """(n,) index of the limit that holds the want; -1 = nothing does, ``BY_TERMS`` = the users' terms do."""
    term_names: tuple[str, ...]
    """Whose terms bound what was asked for: files and entry points."""
    shadow_price: Floats
    """(L,) price of each limit [1/unit], >= 0."""
    limit_flow: Floats
    """(L,) flow of the ceilings under each limit [unit]."""
    uncontrolled: Floats
    """(L,) load not under control that was counted [unit]."""
    overshoots: tuple[Overshoot, ...]
    """Declared overshoots that last, or ended in this tick."""
    path: str
    """How the want was found: "kernel", "conic", "guard"."""
    modes: tuple[Trigger, ...]
    """What is wrong now: the rows of ``failsafe.TABLE`` that hold."""
    shed: Shed | None = None
    """Whom the power flow of the ceilings took back to less than he would have got."""
    order: SwitchOrder | None = None
    """What to tell the switchgear; published at once."""
    unanswered: Question | None = None
    """What the background is to plan exactly."""
    alarms: tuple[str, ...]
    """What stands now, for people."""
