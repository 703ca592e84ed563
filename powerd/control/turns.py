"""Whose turn it is when not all minima fit: on- and off-times, rotation, and no car starved for ever.

The allocation switches the cars of a class on in the order given here, each one that still fits (``choose_on``):

1. who has been on for less than ``MIN_ON_S``: contactors and cars are not made for short turns. Limits and higher
   classes come before that: they take the current away in spite of it;
2. who is *overdue*: at 0 for ``OVERDUE_S`` at the last renewal, the longest waiting first. While an overdue minimum
   does not fit, it is kept free of cars behind it, so that many small ones cannot hold a large one off;
3. the others by energy at the last renewal, least first; a newcomer has had none.

The order is renewed every ``ROTATION_S``; between renewals it stands, so the set changes only as cars and limits do.
Who was switched off stays off for ``MIN_OFF_S``, whatever happens; whose lease ended in silence goes on as soon as
both sides speak again (I6). The bound on waiting that follows is in
``docs/chargers.md`` and held by ``tests/control/test_turns.py``.
"""

from __future__ import annotations

import numpy as np

from powerd.compiled import kernel, read
from powerd.limits import Floats, Ints
from powerd.state.columns import put, replace
from powerd.state.usage import Usage

ROTATION_S = 900.0
"""Period in which the order of service is renewed: WARP's 15 minutes, long against minimum on-times."""
OVERDUE_S = 1800.0
"""Waiting time after which a car goes before all who have not waited as long: two rotations."""
MIN_ON_S = 210.0
"""Shortest turn (WARP's 3.5 min): a car needs up to half a minute to start, and wakes up only so often."""
MIN_OFF_S = 210.0
"""Shortest pause; cars that are switched on again at once report faults (WARP)."""

FIRST = 1e9
"""More than any two order keys differ by [kWh, cars]; small enough that they keep their order to 1e-6."""


def longest_wait_s(ahead: int, slots: int, lag_s: float) -> float:
    """Longest that a car can wait at 0 for its turn [s]; the derivation is in ``docs/chargers.md``.

    Args:
        ahead: cars of its class that had waited at least as long when it came.
        slots: cars of its class that fit at their minimum together, in any choice.
        lag_s: from a lowering decided until what it frees may be lent on (ack + reaction, at most E).
    """
    rounds = -(-(ahead + 1) // slots)
    return OVERDUE_S + rounds * ROTATION_S + MIN_ON_S + lag_s


@kernel
def note_turn(
    on_since_s: float,
    off_since_s: float,
    waiting_since_s: float,
    charging: bool,
    told_off: bool,
    waiting: bool,
    was_s: float,
    now_s: float,
) -> tuple[float, float, float]:
    """``Usage.on_since_s``, ``off_since_s`` and ``waiting_since_s`` of an EVSE: who is on, off and waiting.

    Args:
        on_since_s: as of the last step, likewise the next two.
        off_since_s: of it.
        waiting_since_s: of it.
        charging: a car with a ceiling above 0.
        told_off: its newest grant says 0; a car at 0 without it fell back in silence, and that is no turn.
        waiting: a car at 0 that would take more.
        was_s: boottime of the last step, which decided the ceilings.
        now_s: this step's.
    """
    goes_off = np.isfinite(on_since_s) and not charging and told_off
    return (
        min(on_since_s, was_s) if charging else np.inf,
        now_s if goes_off else off_since_s,
        min(waiting_since_s, was_s) if waiting else np.inf,
    )


def renew_order(usage: Usage, energy_kwh: Floats, now_s: float) -> Usage:
    """Renews the order of service when it is time; ``energy_kwh`` (n,) is that of each session."""
    if now_s - usage.order_at_s < ROTATION_S:
        return usage
    return replace(usage, order_key=_renewed(usage, energy_kwh, now_s), order_at_s=now_s)


def off_in_silence(usage: Usage, evse: Ints) -> Usage:
    """``evse`` (k,) are at 0 without a lease: nobody told them so. A 0 that they are told next ends no turn either."""
    return usage if not evse.shape[0] else replace(usage, on_since_s=put(usage.on_since_s, evse, np.inf))


def _renewed(usage: Usage, energy_kwh: Floats, now_s: float) -> Floats:
    """(n,) new order keys: overdue cars below 0 in the order in which they began to wait, then energy."""
    overdue = now_s - usage.waiting_since_s >= OVERDUE_S
    place = np.empty(overdue.shape[0])
    place[np.argsort(np.where(overdue, usage.waiting_since_s, np.inf), kind="stable")] = np.arange(overdue.shape[0])
    keys: Floats = np.where(overdue, place - overdue.shape[0], energy_kwh)
    return keys


@kernel
def rests(off_since_s: float, min_off_s: float, now_s: float) -> bool:
    """Switched off so lately that it must stay off."""
    return now_s - off_since_s < min_off_s


@kernel
def is_overdue(order_key: float) -> bool:
    """Its minimum is kept free for it."""
    return order_key < 0.0


def service_order(usage: Usage, now_s: float) -> Floats:
    """(n,) who goes first, lower first: see ``order_of``."""
    return order_of(read(usage.order_key), read(usage.on_since_s), MIN_ON_S, now_s)


@kernel
def order_of(order_key: Floats, on_since_s: Floats, min_on_s: float, now_s: float) -> Floats:
    """(n,) who goes first, lower first: those in their turn before all others, each group by its order keys."""
    order = np.empty(order_key.shape[0])
    for i in range(order.shape[0]):
        in_turn = np.isfinite(on_since_s[i]) and now_s - on_since_s[i] < min_on_s
        order[i] = order_key[i] - (FIRST if in_turn else 0.0)
    return order
