"""The log of reasons: one structured line for each EVSE whose ceiling or whose binding limit changed, bounded in rate.

Lines go to the logger ``powerd.reasons`` at level INFO as one JSON object each:
``{"time": …, "event": "ceiling", "tick": …, "evse": …, "controller": …, "ceiling": …, "limit": …, "element": …,
"phase": …, "source": …, "shadow_price": …, "others": …, "reason": …}``. What does not fit the rate is counted, in a
line of its own.
"""

from __future__ import annotations

import json
import logging

import numpy as np

from powerd.control.decision import Decision
from powerd.limits import Floats, Ints
from powerd.server.core import Core
from powerd.server.explain import SLACK, by_the_guard, holding, limits_above, others, reason

logger = logging.getLogger("powerd.reasons")

LINES_A_SECOND = 20.0
"""Lines in the long run: 2 million a day at most."""
BURST = 200.0
"""Lines at once after a quiet time: a garage that wakes up."""


class ReasonLog:
    """Remembers what it told last; ``tell`` is given each decision."""

    def __init__(self, core: Core) -> None:
        self._core = core
        n = core.electrical.evse_count
        self._ceiling: Floats = np.full(n, np.nan)
        self._limit: Ints = np.full(n, -1)
        self._credit = BURST
        self._told_s = -np.inf

    async def follow(self) -> None:
        """Tells every decision that it gets to see, until cancelled; a slow log skips some and delays none."""
        async for decision in self._core.follow():
            self.tell(decision)

    def tell(self, decision: Decision) -> None:
        """Logs what changed since the last decision told; nothing is worked out where nobody listens."""
        if not logger.isEnabledFor(logging.INFO):
            return
        now_s = decision.now.boottime_s
        if np.isfinite(self._told_s):
            self._credit = min(BURST, self._credit + LINES_A_SECOND * max(0.0, now_s - self._told_s))
        self._told_s = now_s
        moved = ~(np.abs(decision.ceiling - self._ceiling) <= SLACK)
        first = np.isnan(self._ceiling) & (decision.ceiling == 0.0) & (holding(decision) < 0)
        # What holds whom is not worked out in a tick of the guard alone: what was told of it stands.
        limit = self._limit if by_the_guard(decision) else holding(decision)
        held_else = (limit != self._limit) & decision.snapshot.sessions.plugged
        changed = np.flatnonzero((moved & ~first) | held_else)
        told = changed[: int(self._credit)]
        for evse in told.tolist():
            logger.info("%s", json.dumps(self._line(decision, evse), ensure_ascii=False))
        self._credit -= told.shape[0]
        if changed.shape[0] > told.shape[0]:
            left = int(changed.shape[0] - told.shape[0])
            more = {"time": _instant(decision), "event": "ceilings", "tick": decision.tick, "not_told": left}
            logger.info("%s", json.dumps(more))
        self._ceiling = np.where(moved, decision.ceiling, self._ceiling)  # a slow drift is told once it adds up
        self._limit = limit

    def _line(self, decision: Decision, evse: int) -> dict[str, object]:
        limit, limits = int(holding(decision)[evse]), limits_above(decision, evse)
        electrical = self._core.electrical
        found: dict[str, object] = {
            "time": _instant(decision),
            "event": "ceiling",
            "tick": decision.tick,
            "evse": electrical.posts.ids[evse],
            "controller": electrical.controllers.ids[electrical.posts.controller[evse]],
            "ceiling": round(float(decision.ceiling[evse]), 3),
        }
        if limit >= 0:
            found |= {
                "limit": limits.name[limit],
                "element": limits.element[limit],
                "phase": limits.phase[limit],
                "source": limits.source[limit],
                "shadow_price": round(float(decision.shadow_price[limit]), 9),
                "others": others(decision, evse),
            }
        return found | {"reason": reason(self._core, decision, evse)}


def _instant(decision: Decision) -> str:
    """Its tick's, RFC 3339."""
    return decision.now.utc.isoformat(timespec="milliseconds")
