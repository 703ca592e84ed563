"""Posts to write to, for the tests of the connected controllers."""

from __future__ import annotations

import asyncio
from collections import defaultdict


class Posts:
    """Actuators that remember what they were told, and may fail or hang."""

    def __init__(self) -> None:
        self.told: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.failures = 0
        self.news, self.failed = asyncio.Event(), asyncio.Event()

    async def apply(self, evse_id: str, ceiling: float, valid_for_s: float) -> None:
        if self.failures:
            self.failures -= 1
            self.failed.set()
            raise ConnectionError("the post does not answer")
        self.told[evse_id].append((ceiling, valid_for_s))
        self.news.set()

    async def switch(self, evse_id: str, phases: int) -> None:
        self.told[evse_id].append((-phases, 0.0))

    async def has(self, evse_id: str, ceiling: float) -> float:
        """Waits until a post was last told this ceiling; returns for how long."""
        while not self.told[evse_id] or self.told[evse_id][-1][0] != ceiling:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 10)
        return self.told[evse_id][-1][1]
