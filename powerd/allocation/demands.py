"""What the EVSEs ask for in one tick, as columns; plain arrays, made by ``control``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from powerd.limits import Bools, Floats, Ints

#: Classes that lie closer together than this are sorted as 16-bit numbers, which numpy does in one pass.
MOST_CLASSES = 2**15 - 1


def order_of_service(priority: Ints, least_served: Floats | None = None) -> Ints:
    """EVSE indices, first served first: higher class, then least served, then lower index."""
    highest = priority.max(initial=0)
    first = highest - priority
    if highest - priority.min(initial=0) <= MOST_CLASSES:
        first = first.astype(np.int16)
    served = np.zeros(first.shape[0]) if least_served is None else least_served  # NaN sorts last
    return np.lexsort((served, first))  # stable: equal ones by index


@dataclass(frozen=True, kw_only=True, eq=False)
class Demands:
    """One column per EVSE (length n, in the order of ``Posts``), in the EVSE's own unit (A for AC, kW for DC)."""

    weight: Floats
    """(n,) > 0: share relative to others of the same class."""
    upper: Floats
    """(n,) the most the EVSE can be granted now; 0 = idle or nothing wanted."""
    minimum: Floats
    """(n,) smallest ceiling above 0 this car can use (0-or-at-least-minimum), >= ``Posts.min_ceiling``."""
    floor: Floats
    """(n,) reserve that the rows count anyway, as max(x, floor); up to it a ceiling is free."""
    silent: Floats
    """(n,) the part of the floor that posts of silent controllers hold, and surely may draw: it also counts where a
    limit does not hold the floors."""
    opens: Floats
    """(n,) what the floor becomes with the first grant, which opens the post's fallback; 0 = nothing more."""
    priority: Ints
    """(n,) class; a higher number is served first, strictly."""
    least_served: Floats
    """(n,) who goes first inside a class when not all minima fit: lower first (for example delivered share)."""
    overdue: Bools
    """(n,) waits for too long: while its minimum does not fit, that much is kept free of those behind it."""
    target: Floats
    """(n,) what the schedule wants now, <= upper; = upper where there is no schedule."""
    uncontrolled: Floats
    """(L,) per limit: load that is not under control [limit unit]."""

    @cached_property
    def order(self) -> Ints:
        """(n,) EVSEs, first served first."""
        return order_of_service(self.priority, self.least_served)

    def columns(self) -> tuple[Floats | Ints | Bools, ...]:
        """All arrays, for comparing two ticks."""
        return (
            self.weight,
            self.upper,
            self.minimum,
            self.floor,
            self.silent,
            self.opens,
            self.priority,
            self.least_served,
            self.overdue,
            self.target,
            self.uncontrolled,
        )
