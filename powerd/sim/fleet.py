"""Every charger controller of a site at once, as columns and in process: what studies drive the core with.

The messages are those of the lease protocol (docs/leases.md) as the core sees them, without a wire: a living controller
stamps every tick, applies what it is told at once and acks it in the next tick. A silent one does neither; its posts
keep their last ceiling until its lease and their watchdog have run out, then they fall back.
"""

from __future__ import annotations

import numpy as np

from powerd.control import events as ev
from powerd.control.decision import Decision
from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import Electrical
from powerd.state.readings import rounded_down


class Fleet:
    """All controllers and posts; mutable: this is the world. A car is at every post."""

    def __init__(self, electrical: Electrical) -> None:
        posts, controllers = electrical.posts, electrical.controllers
        n = posts.count
        self._posts = posts
        self._ttl_s = controllers.ttl_s[posts.controller]
        self._watchdog_s = np.nan_to_num(controllers.watchdog_s, nan=np.inf)[posts.controller]
        self._fallback = posts.fallback
        self.ceiling: Floats = posts.fallback_idle.copy()
        """(n,) in force [own unit]."""
        self._until_s: Floats = np.full(n, np.inf)
        self._granted: Bools = np.zeros(n, np.bool_)
        self.silent: Bools = np.zeros(len(controllers.ids), np.bool_)
        """(C,) hears nothing and says nothing."""
        self._met: Bools = np.zeros(len(controllers.ids), np.bool_)
        self._epoch: Ints = np.zeros(n, np.int64)
        self._seq: Ints = np.zeros(n, np.int64)
        self._acks: list[ev.Event] = []
        self._drawn: Floats = np.zeros(n)

    def speaks(self, now_s: float) -> list[ev.Event]:
        """What living controllers have to say at ``now_s``: hellos, stamps, acks, readings."""
        owner = self._posts.controller
        alive: Ints = np.flatnonzero(~self.silent[owner])
        new: Ints = np.flatnonzero(~self.silent[owner] & ~self._met[owner])
        found: list[ev.Event] = [self._hello(np.flatnonzero(owner == c), now_s) for c in np.unique(owner[new]).tolist()]
        self._met |= ~self.silent
        if alive.shape[0]:
            found.append(ev.StampSeen(evse=alive, incarnation=1, boottime_s=now_s))
        found += self._acks
        self._acks = []
        if alive.shape[0]:
            found.append(ev.Measured(evse=alive, drawn=self._reading()[alive]))
        return found

    def reconnects(self) -> None:
        """powerd is a new process: everybody says hello, and what is in force."""
        self._met[:] = False
        self._acks = []

    def hears(self, decision: Decision, now_s: float) -> None:
        """Applies the messages of a tick and runs the clocks of leases out."""
        owner = self._posts.controller
        for batch in (decision.lowered, decision.raised):
            heard = ~self.silent[owner[batch.evse]]
            evse = batch.evse[heard]
            if evse.shape[0]:
                self.ceiling[evse] = batch.ceiling[heard]
                self._until_s[evse] = batch.echo_boottime_s[heard] + batch.ttl_s[heard]
                self._granted[evse] = True
                self._epoch[evse], self._seq[evse] = batch.epoch, batch.seq
                self._acks.append(
                    ev.Acked(evse=evse, epoch=batch.epoch, seq=batch.seq, ceiling=batch.ceiling[heard].copy())
                )
        for c in decision.renewal.controller.tolist():
            if not self.silent[c]:
                mine: Ints = np.flatnonzero(owner == c)
                self._until_s[mine] = now_s + self._ttl_s[mine]
                renewal = decision.renewal
                self._epoch[mine], self._seq[mine] = renewal.epoch, renewal.seq
                self._acks.append(ev.RenewalAcked(evse=mine, epoch=renewal.epoch, seq=renewal.seq))
        # A living controller puts its posts back itself; behind a dead one the post's own watchdog does.
        late = self._until_s + np.where(self.silent[owner], self._watchdog_s, 0.0)
        over = self._granted & (now_s >= late)
        self.ceiling[over] = self._fallback[over]
        self._until_s[over] = np.inf

    def measures(self, drawn: Floats) -> None:
        """What the posts' meters show from now on (n,) [own unit]."""
        self._drawn = drawn

    def _reading(self) -> Floats:
        """(n, 3) as ``Measured`` has it, as the daemon's door rounds it."""
        count = np.where(self._posts.is_dc, 1, self._posts.phase_count)
        return rounded_down(self._drawn[:, None] * (np.arange(3)[None, :] < count[:, None]))

    def _hello(self, evse: Ints, now_s: float) -> ev.HelloReceived:
        in_force = self._granted[evse] & np.isfinite(self._until_s[evse])
        return ev.HelloReceived(
            evse=evse,
            incarnation=1,
            boottime_s=now_s,
            highest_epoch=int(self._epoch[evse].max(initial=0)),
            plugged=np.ones(evse.shape[0], np.bool_),
            plug_boottime_s=np.zeros(evse.shape[0]),
            epoch=np.where(in_force, self._epoch[evse], 0),
            seq=np.where(in_force, self._seq[evse], 0),
            ceiling=np.where(in_force, self.ceiling[evse], 0.0),
            remaining_s=np.where(in_force, self._until_s[evse] - now_s, 0.0),
            latched=np.zeros(evse.shape[0], np.bool_),
        )
