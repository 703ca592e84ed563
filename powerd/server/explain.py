"""Why a ceiling is what it is, in one sentence for people."""

from __future__ import annotations

import numpy as np

from powerd.control.decision import BY_TERMS, Decision
from powerd.control.demand import over_reserved, pausing
from powerd.control.failsafe import BY_TRIGGER
from powerd.control.lease_alarms import defiance, named_few
from powerd.control.switching import picked_up
from powerd.control.turns import MIN_OFF_S
from powerd.limits import Bools, Floats, Ints, Limits
from powerd.server.core import Drawn
from powerd.state import leases
from powerd.state.impaired import Trigger
from powerd.state.phases import EVERY
from powerd.state.snapshot import bounds_of
from powerd.units import ROW_TOLERANCE

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
    if (why := _switched_off(decision, evse, unit) or _unopened(decision, evse, unit)) is not None:
        return why
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
    at = f"at {float(decision.ceiling[evse]):.4g} {unit}"
    if book.defiant[evse]:
        return defiance(site, decision.snapshot, evse)
    if not leases.reachable(book, site.terms, decision.now.boottime_s)[evse]:
        controllers = site.electrical.controllers.ids
        name = controllers[int(site.electrical.posts.controller[evse])]
        return f"{at}, for its controller {name} is silent: it counts at {counts}"
    if not np.isnan(book.barred_ceiling[evse]):
        return f"{at}, for its controller claims an epoch that cannot be now and gets no grants: it counts at {counts}"
    if book.unsettled[evse]:
        return f"{at}, for its post has not taken its controller's first order yet: it counts at {counts}"
    return None


def _switched_off(decision: Decision, evse: int, unit: str) -> str | None:
    """Why its car must stay at 0 for a while, though there may be room; None = it need not."""
    site, now_s = decision.site, decision.now.boottime_s
    if not picked_up(site.electrical, decision.snapshot.gear, decision.now)[evse]:
        return f"held at 0 {unit}: its voltage is back, and cars go on one after another"
    if pausing(site, decision.snapshot, evse, now_s):
        left_s = float(decision.snapshot.usage.off_since_s[evse]) + MIN_OFF_S - now_s
        return f"held at 0 {unit}: it was switched off, and stays off for {left_s:.0f} s more"
    return None


def _unopened(decision: Decision, evse: int, unit: str) -> str | None:
    """Which limit keeps its first grant back because it does not even hold the fallbacks that are open; None = none."""
    snapshot, limits = decision.snapshot, decision.site.limits
    if snapshot.leases.granted[evse]:
        return None
    least = leases.reserve(snapshot.leases, decision.site.terms, snapshot.sessions.plugged)
    over = over_reserved(limits, least, decision.uncontrolled, snapshot)
    over &= limits.limit_flow(np.eye(1, least.shape[0], evse)[0]) > 0.0
    if not over.any():
        return None
    held = f"held at {float(decision.ceiling[evse]):.4g} {unit}"
    return f"{held}: {limits.name[int(over.argmax())]} does not hold the fallbacks that others have already"


def _held(core: Drawn, decision: Decision, evse: int, held: str, unit: str) -> str:
    """Why a car that is served gets what it gets; ``held`` is what holds it, "" = nothing does."""
    ceiling, want = float(decision.ceiling[evse]), float(decision.want[evse])
    if by_the_guard(decision):
        return f"at {ceiling:.4g} {unit}, decided at once, by the guard alone: the next tick works out what holds it"
    if decision.shed is not None and decision.shed.limit[evse] >= 0:
        return f"held at {ceiling:.4g} {unit} by {held}"
    if ceiling < want - SLACK:
        waits = f"at {ceiling:.4g} {unit}, to rise to {want:.4g} {unit} {_when(decision, evse, unit)}"
        return f"{waits}; there it is held by {held}" if held else waits
    least = float(bounds_of(decision.snapshot.sessions, core.electrical.posts)[0][evse])
    if held and holding(decision)[evse] != BY_TERMS and want == ceiling == 0.0 < least:
        turns = "; cars take turns" if _turns(decision, evse) else ""
        return f"held at 0 {unit} by {held}: less than the {least:.4g} {unit} that it needs at least is left{turns}"
    if held:
        return f"held at {ceiling:.4g} {unit} by {held}"
    return f"granted {ceiling:.4g} {unit}, {_enough(core, decision, evse, unit)}"


def _turns(decision: Decision, evse: int) -> bool:
    """Somebody else whom its limit holds is on, or goes on next: where nobody's minimum fits there are no turns."""
    held = holding(decision)
    return bool((decision.want[held == held[evse]] > 0.0).any())


def by_the_guard(decision: Decision) -> bool:
    """Nothing was solved in its tick: what binds whom is not known anew."""
    return decision.path == "guard" and Trigger.SOLVER_FAILED not in decision.modes


def _when(decision: Decision, evse: int, unit: str) -> str:
    """What a raise waits for."""
    holding = [trigger for trigger in decision.modes if not BY_TRIGGER[trigger].raises]
    if holding:
        return f"when this is over: {holding[0]}"
    snapshot = decision.snapshot
    streamed = bool(snapshot.leases.streamed[evse])
    lacking = _lacking(decision, evse, np.maximum(decision.worst, decision.want))
    if not streamed and not lacking.any():
        return "when its controller asks next"
    ramps = np.isfinite(decision.site.electrical.evse_ramp[evse])
    next_step = float(decision.site.next_step_up(decision.ceiling + SLACK)[evse])
    if ramps and float(snapshot.usage.reach[evse]) < min(next_step, float(decision.want[evse]) - SLACK):
        return "as fast as the post's ramp lets it"
    return _for_whom(decision, evse, lacking, unit) + ("" if streamed else ", and its controller asks again")


def _for_whom(decision: Decision, evse: int, lacking: Bools, unit: str) -> str:
    """Whose current a raise waits for; ``lacking`` (L,) the limits without room for it."""
    if not lacking.any():
        return "in the next ticks"
    if not _lacking(decision, evse, decision.want).any():
        return f"when what its own post was granted before is over: it counts at {decision.worst[evse]:.4g} {unit}"
    above, below, _ = decision.limits.entries()
    late = decision.worst > decision.ceiling + SLACK
    late &= np.isin(np.arange(late.shape[0]), below[lacking[above]])
    late[evse] = False
    ids = decision.site.electrical.posts.ids
    whose = named_few([ids[i] for i in np.flatnonzero(late)]) or "others"
    return f"when what {whose} may still be drawing leaves room"


def _lacking(decision: Decision, evse: int, own: Floats) -> Bools:
    """(L,) limits above it without room for ``own[evse]`` of it [own unit] beside what counts of all others (R1)."""
    limits, one = decision.limits, np.zeros(decision.want.shape[0])
    one[evse] = 1.0
    counted = np.where(one > 0.0, own, decision.worst)
    left = limits.capacity - decision.uncontrolled - limits.limit_flow(counted)
    lacking: Bools = (limits.limit_flow(one) > 0.0) & (left < -ROW_TOLERANCE)
    return lacking


def _enough(core: Drawn, decision: Decision, evse: int, unit: str) -> str:
    """Why more than this would be of no use, though no limit holds it."""
    least, car = (float(bound[evse]) for bound in bounds_of(decision.snapshot.sessions, core.electrical.posts))
    if decision.want[evse] <= 0.0 and core.electrical.posts.pilot_steps[evse].size:
        return f"for the post has no step that its car can take, {least:.4g} to {car:.4g} {unit}"
    if float(decision.snapshot.usage.usable[evse]) < car - SLACK:
        drawn = float(decision.snapshot.drawn[evse].max())
        return f"for it draws {drawn:.4g} {unit}; it gets more as soon as it takes all of this"
    if float(decision.ceiling[evse]) < car - SLACK and core.electrical.posts.pilot_steps[evse].size:
        return f"the largest step of the post within the {car:.4g} {unit} that the car can take"
    return "all that the car and the post can take"


def holding(decision: Decision) -> Ints:
    """(n,) index of the limit that holds each ceiling down, or else the want; -1 = none does, ``BY_TERMS``."""
    shed = decision.shed
    return decision.binding_limit if shed is None else np.where(shed.limit >= 0, shed.limit, decision.binding_limit)


def limits_above(decision: Decision, evse: int) -> Limits:
    """The limits that ``holding`` is an index in."""
    shed = decision.shed
    return decision.limits if shed is None or shed.limit[evse] < 0 else shed.limits


def others(decision: Decision, evse: int) -> int:
    """How many other EVSEs the limit that holds ``evse`` holds too; 0 where none does."""
    held = holding(decision)
    return 0 if held[evse] < 0 else int(np.count_nonzero(held == held[evse])) - 1


def _binding(decision: Decision, evse: int) -> str:
    """What holds its ceiling down, or else its want; "" = nothing does."""
    limit = int(holding(decision)[evse])
    if limit == BY_TERMS:
        return f"the terms of {' and '.join(decision.term_names)}"
    if limit < 0:
        return ""
    limits = limits_above(decision, evse)
    name, source, count = limits.name[limit], limits.source[limit], others(decision, evse)
    company = f", together with {count} other{'s' if count > 1 else ''}" if count else ""
    beside = _beside_charging(decision, limits, limit)
    return f"{name} ({source}){beside}{company}" if source else f"{name}{beside}{company}"


def _beside_charging(decision: Decision, limits: Limits, limit: int) -> str:
    """What of a limit other loads have, by meters or by the drawing; "" = nothing, or it is none of the site's own."""
    own = decision.site.limits.name
    if limit >= len(own) or own[limit] != limits.name[limit] or decision.uncontrolled[limit] < SLACK:
        return ""
    return f", where other loads count for {float(decision.uncontrolled[limit]):.4g} {limits.unit[limit]}"
