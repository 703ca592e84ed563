"""The journal's file and its writer: ticks become durable in order, late or not at all."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from powerd.control.decision import Decision
from powerd.state.snapshot import Snapshot


@dataclass(kw_only=True)
class Disk:
    """One tick a commit: the real writer makes all that wait durable together, so here more of them are the last one.

    Times are true time [s].
    """

    state: Snapshot | None = None
    """The last durable one; None = the file is lost."""
    commit_s: float = 0.0
    """How long a commit takes while it is slow."""
    slow_until_s: float = -1.0
    refuses_until_s: float = -1.0
    keeps: bool = False
    """What it refuses now was written all the same."""
    keeps_oldest: bool = False
    """Of that the oldest is what a start finds, not the newest."""
    kept: Snapshot | None = None
    """A tick that was refused, and that a start finds unless one that it took came after it."""
    _waiting: deque[tuple[float, Decision]] = field(default_factory=deque)  # (when its commit ends, tick)

    def refuses(self, t_s: float) -> bool:
        """A commit that ends now fails."""
        return t_s < self.refuses_until_s

    def commit(self, decision: Decision, t_s: float) -> None:
        """Hands over a tick."""
        begun_s = max(t_s, self._waiting[-1][0]) if self._waiting else t_s
        self._waiting.append((begun_s + (self.commit_s if t_s < self.slow_until_s else 0.0), decision))

    def ended(self, t_s: float) -> bool | None:
        """Whether the oldest commit took its tick, else it is written with a later one; None = it has not ended."""
        if not self._waiting or self._waiting[0][0] > t_s:
            return None
        return self.write(self._waiting.popleft()[1], t_s)

    def write(self, decision: Decision, t_s: float) -> bool:
        """A commit that ends now; whether it took its tick."""
        took = not self.refuses(t_s)
        if took:
            self.state, self.kept = decision.snapshot, None
        elif self.keeps and (self.kept is None or not self.keeps_oldest):
            self.kept = decision.snapshot
        return took

    def found(self) -> Snapshot | None:
        """What a start finds."""
        return self.state if self.kept is None else self.kept

    def start(self, snapshot: Snapshot) -> None:
        """A start is durable, with whatever it found."""
        self.state, self.kept = snapshot, None

    def lose(self) -> None:
        """The file is gone."""
        self.state = self.kept = None

    def die(self) -> None:
        """The process is gone, and what it had not written."""
        self._waiting.clear()

    def heal(self, t_s: float) -> None:
        """No fault any more; what waits is done."""
        self.slow_until_s = self.refuses_until_s = -1.0
        self.keeps = False
        self._waiting = deque((min(end_s, t_s), decision) for end_s, decision in self._waiting)
