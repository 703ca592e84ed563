"""Why a ceiling is what it is, in one sentence for people."""

from __future__ import annotations

import numpy as np

from powerd.control.decision import Decision
from powerd.server.core import Drawn
from powerd.state import leases
from powerd.state.phases import EVERY
from powerd.state.snapshot import bounds_of

SLACK = 0.05
"""Ceilings closer than this count as equal in a sentence [own unit]."""


def reason(core: Drawn, decision: Decision, evse: int) -> str:
    """The sentence for column ``evse`` after ``decision``."""
    posts, sessions = core.electrical.posts, decision.snapshot.sessions
    unit = "kW" if posts.is_dc[evse] else "A"
    ceiling = float(decision.ceiling[evse])
    stop = next((s for s in decision.snapshot.stops if bool((s.evse == evse).any())), None)
    if stop is not None:
        return f"stopped by order at {stop.element}: {stop.reason} (stop {stop.stop_id})"
    if not decision.site.limits.energized[evse]:
        return "held at 0 A: no supply reaches it" if unit == "A" else "held at 0 kW: no supply reaches it"
    if not sessions.plugged[evse]:
        return f"held at {ceiling:g} {unit}: no car is plugged in"
    if not sessions.served[evse]:
        return f"held at {ceiling:g} {unit}: its session was stopped"
    if (why := _untrusted(decision, evse, unit)) is not None:
        return why
    state = decision.snapshot.contactors
    if state.leaving[evse]:
        return f"held at {ceiling:g} A before its post connects all its phases again"
    if state.one[evse] and not state.proved[evse]:
        return f"held at {ceiling:g} A until its post has connected L1 alone"
    held = _binding(decision, evse)
    sentence = _held(core, decision, evse, held, unit)
    if state.one[evse]:
        return f"{sentence}; its post has connected L1 alone, for on three phases not everybody's minimum fitted"
    used = int(decision.snapshot.phases.used[evse])
    if used in (0, EVERY):
        return sentence
    phases = " and ".join(f"L{k + 1}" for k in range(3) if used >> k & 1)
    return f"{sentence}; it counts on {phases} alone, the phases that its car uses"


def _untrusted(decision: Decision, evse: int, unit: str) -> str | None:
    """Why nothing is decided for its car at present; None = it is."""
    site, book, counts = decision.site, decision.snapshot.leases, f"{float(decision.worst[evse]):.4g} {unit}"
    if book.defiant[evse]:
        return f"it draws more than its ceiling, {float(decision.ceiling[evse]):.4g} {unit}: it counts at {counts}"
    if not leases.reachable(book, site.terms, decision.now.boottime_s)[evse]:
        controllers = site.electrical.controllers.ids
        name = controllers[int(site.electrical.posts.controller[evse])]
        return (
            f"at {float(decision.ceiling[evse]):.4g} {unit}, for its controller {name} is silent: it counts at {counts}"
        )
    return None


def _held(core: Drawn, decision: Decision, evse: int, held: str, unit: str) -> str:
    """What holds a car that is served; ``held`` is the limit that does, "" = none."""
    ceiling, want = float(decision.ceiling[evse]), float(decision.want[evse])
    if ceiling < want - SLACK:
        waits = (
            f"at {ceiling:.4g} {unit}, to rise to {want:.4g} {unit} when what others may still be drawing leaves room"
        )
        return f"{waits}; {want:.4g} {unit} is what {held} allows" if held else waits
    if held:
        return f"held at {ceiling:.4g} {unit} by {held}"
    return f"granted {ceiling:.4g} {unit}, {_enough(core, decision, evse, unit)}"


def _enough(core: Drawn, decision: Decision, evse: int, unit: str) -> str:
    """Why more than this would be of no use, though no limit holds it."""
    car = float(bounds_of(decision.snapshot.sessions, core.electrical.posts)[1][evse])
    if float(decision.snapshot.usage.usable[evse]) < car - SLACK:
        drawn = float(decision.snapshot.drawn[evse].max())
        return f"for it draws {drawn:.4g} {unit}; it gets more as soon as it takes all of this"
    if float(decision.ceiling[evse]) < car - SLACK and core.electrical.posts.pilot_steps[evse].size:
        return f"the largest step of the post within the {car:.4g} {unit} that the car can take"
    return "all that the car and the post can take"


def others(decision: Decision, evse: int) -> int:
    """How many other EVSEs the limit that holds ``evse`` holds too; 0 where none does."""
    limit = int(decision.binding_limit[evse])
    return 0 if limit < 0 else int(np.count_nonzero(decision.binding_limit == limit)) - 1


def _binding(decision: Decision, evse: int) -> str:
    limit = int(decision.binding_limit[evse])
    if limit < 0:
        return ""
    limits = decision.site.limits
    name, source, count = limits.name[limit], limits.source[limit], others(decision, evse)
    company = f", together with {count} other{'s' if count > 1 else ''}" if count else ""
    return f"{name} ({source}){company}" if source else f"{name}{company}"
