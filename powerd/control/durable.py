"""Which part of a decision may leave before the disk has it: what a restart without this tick would still cover.

A restart holds W of the last durable tick for a whole lease (docs/leases.md R3). So a ceiling that is not above that W
may go out at once, whatever the disk does; a higher one must wait, also where the book calls it a decrease: a raise
that the disk has not taken may never have left, and then its lowering is a raise to the controller. Ticks that wait for
the disk may become the last durable one before this tick does, so their W bounds it too. A true decrease never waits:
what a post may follow is below all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from powerd.control.decision import Decision, GrantBatch
from powerd.limits import Bools, Floats, Ints
from powerd.units import ROW_TOLERANCE


def covered_by(worst: Sequence[Floats]) -> Floats:
    """(n,) what a restart holds for sure: the least W of the states of which each may be the last durable one.

    Args:
        worst: (n,) W of the last durable tick and of every later one that waits for the disk; not empty.
    """
    least: Floats = np.minimum.reduce(worst)
    return least


def split_lowered(decision: Decision, covered: Floats) -> tuple[Decision, Decision | None]:
    """The decision with the decreases that may go out at once, and with those that wait like raises (None = none).

    Args:
        decision: what a tick decided.
        covered: (n,) see ``covered_by`` [own unit].
    """
    within = _within(decision.lowered, covered)
    if within.all():
        return decision, None
    return (
        replace(decision, lowered=_part(decision.lowered, within)),
        replace(decision, lowered=_part(decision.lowered, ~within)),
    )


class HeldBack:
    """Decreases that wait for the disk, the oldest first: none is lost, and none is overtaken by what came after it."""

    def __init__(self) -> None:
        self._waiting: list[Decision] = []

    def add(self, decision: Decision) -> None:
        """The decreases of one more tick wait."""
        self._waiting.append(decision)

    def freed(self, durable: int, covering: Callable[[Decision], Floats]) -> list[Decision]:
        """What need not wait any longer, the oldest first: all of the ticks up to ``durable``, of later ones a part.

        Args:
            durable: newest tick that the disk has.
            covering: (n,) see ``covered_by``, for the epoch of each tick [own unit].
        """
        found, left = [], []
        for decision in self._waiting:
            now, later = (decision, None) if decision.tick <= durable else split_lowered(decision, covering(decision))
            found += [now] if now.lowered.evse.shape[0] else []
            left += [] if later is None else [later]
        self._waiting = left
        return found


def split_raised(decision: Decision, covered: Floats, owner: Ints) -> tuple[Decision, Decision]:
    """The decision with the grants and renewals that need no disk, and with those that do.

    A renewal waits where the newest ceiling of one of its EVSEs does, which is the one that it would go on with.

    Args:
        decision: what a tick decided.
        covered: (n,) see ``covered_by`` [own unit].
        owner: (n,) controller of each EVSE: a renewal speaks for all of its EVSEs or for none.
    """
    within = _within(decision.raised, covered)
    sent = np.nan_to_num(decision.snapshot.leases.sent_ceiling, nan=0.0)
    kept = ~np.isin(decision.renewal.controller, owner[sent > covered + ROW_TOLERANCE])
    renewed = decision.renewal.controller
    return (
        replace(
            decision,
            raised=_part(decision.raised, within),
            order=None,  # an order to the switchgear is durable before it goes out
            renewal=replace(decision.renewal, controller=renewed[kept]),
        ),
        replace(
            decision,
            raised=_part(decision.raised, ~within),
            renewal=replace(decision.renewal, controller=renewed[~kept]),
        ),
    )


def _within(batch: GrantBatch, covered: Floats) -> Bools:
    """(k,) entries that are not above what is covered."""
    within: Bools = batch.ceiling <= covered[batch.evse] + ROW_TOLERANCE
    return within


def _part(batch: GrantBatch, keep: Bools) -> GrantBatch:
    """The entries ``keep`` (k,) of a batch."""
    return replace(
        batch,
        evse=batch.evse[keep],
        ceiling=batch.ceiling[keep],
        latched=batch.latched[keep],
        one_phase=batch.one_phase[keep],
        ttl_s=batch.ttl_s[keep],
        echo_incarnation=batch.echo_incarnation[keep],
        echo_boottime_s=batch.echo_boottime_s[keep],
    )
