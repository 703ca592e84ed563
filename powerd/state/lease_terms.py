"""What the site file promises about leases: lengths, reaction, watchdog, fallbacks; spread to one value an EVSE."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from powerd.compiled import read
from powerd.limits import Bools, Controllers, Floats, Posts


@dataclass(frozen=True, kw_only=True, eq=False)
class LeaseTerms:
    """What the site file says about leases, spread from controllers to EVSEs; (n,) each."""

    ttl_s: Floats
    """Lease length."""
    life_s: Floats
    """E - sent: ttl (1 + drift) + watchdog + reaction; inf without watchdog."""
    reaction_s: Floats
    """From an applied lower ceiling until the car has followed."""
    watchdog_s: Floats
    """Time the EVSE needs to fall back by itself; nan = it has no watchdog."""
    has_watchdog: Bools
    """The EVSE falls back by itself."""
    fallback: Floats
    """F, on silence with a car."""
    fallback_idle: Floats
    """On silence without a car."""
    boot: Floats
    """After the post's own restart."""
    rating: Floats
    """Largest ceiling."""

    @cached_property
    def lines(self) -> tuple[Floats | Bools, ...]:
        """What the loops over the lease book read of them, read-only, in the order of ``lease_kernels.Lines``."""
        numbers = map(read, (self.fallback, self.fallback_idle, self.boot, self.rating))
        return (read(self.ttl_s), read(self.reaction_s), read(self.has_watchdog), *numbers)

    @staticmethod
    def of(posts: Posts, controllers: Controllers) -> LeaseTerms:
        """Spreads the controllers' terms over their EVSEs."""
        owner = posts.controller
        watchdog = controllers.watchdog_s[owner]
        life = controllers.ttl_s[owner] * (1 + controllers.drift[owner]) + watchdog + controllers.reaction_s[owner]
        return LeaseTerms(
            ttl_s=controllers.ttl_s[owner],
            life_s=np.where(np.isnan(watchdog), np.inf, life),
            reaction_s=controllers.reaction_s[owner],
            watchdog_s=watchdog,
            has_watchdog=~np.isnan(watchdog),
            fallback=posts.fallback,
            fallback_idle=posts.fallback_idle,
            boot=posts.boot_current,
            rating=posts.max_ceiling,
        )
