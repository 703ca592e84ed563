"""R6 and R9 for people: what a switch that moves by itself overloads, and how much patience controllers ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from powerd.network.standing import Patience, Standing


def moves_text(found: Sequence[Standing]) -> list[str]:
    """The overloads of every state that comes about by itself, the worst phase of each element; nothing where none."""
    worst: dict[tuple[str, str], Standing] = {}
    for one in found:
        key = (one.state, one.element)
        if one.worst > one.capacity and (key not in worst or _share(one) > _share(worst[key])):
            worst[key] = one
    if not found:
        return []
    if not worst:
        return ["No switch that moves by itself can overload anything."]
    lines = ["When a switch moves by itself, until EVSEs have followed:"]
    for (state, _), one in sorted(worst.items(), key=lambda item: (item[0][0], -_share(item[1]))):
        lines.append(f"  [{state}] {one.name}: up to {one.worst:.4g} of {one.capacity:.4g} {one.unit}, {_judged(one)}")
    return lines


def _share(one: Standing) -> float:
    return one.worst / one.capacity if one.capacity > 0 else math.inf


def _judged(one: Standing) -> str:
    over = f"over within {one.answering_s:.3g} s, {_span(one.bound_s)} where a controller is silent"
    if math.isinf(one.tolerated_s):
        return f"a contract or no device that trips; {over}"
    verdict = "" if one.fits else f": TOO LONG, only {one.admitted:.4g} {one.unit} would be stood that long"
    return f"stood {_span(one.tolerated_s)}; {over}{verdict}"


def patience_text(found: Sequence[Patience]) -> list[str]:
    """One line for each kind of controller: equal figures are told once."""
    groups: dict[tuple[float, float], list[Patience]] = {}
    for one in found:
        groups.setdefault((one.answering_s, one.silent_s), []).append(one)
    lines = ["How long an EVSE may draw on after its limit fell, and what is stood that long:"] if groups else []
    for (answering, silent), members in groups.items():
        tight = min(members, key=lambda one: one.stands_percent)
        names = members[0].controller + (f" and {len(members) - 1} more" if len(members) > 1 else "")
        what = f"{tight.element} stands {tight.stands_percent:.0f} % of its rating" if tight.element else "no curve"
        lines.append(f"  {names}: {answering:.3g} s, silent {_span(silent)}; tightest: {what}")
    return lines


def _span(seconds: float) -> str:
    return "for ever" if math.isinf(seconds) else f"{seconds:.3g} s"
