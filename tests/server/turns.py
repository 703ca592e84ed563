"""An event loop that counts its turns: what happens in how many of them is a claim that needs no clock."""

from __future__ import annotations

from powerd.server.loop import ServingLoop


class CountingLoop(ServingLoop):
    """A callback that calls for itself is called once a turn."""

    turns = 0

    def count(self) -> None:
        """Counts from here on; to be called once."""
        self.turns += 1
        self.call_soon(self.count)
