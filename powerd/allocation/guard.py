"""The guard: no solver in it, O(nnz), and no float input makes it throw.

``shed`` lowers ceilings until every row holds; it never returns a ceiling above the one given. ``admit_raises`` is rule
R1: it lets ceilings rise only as far as the most that could be drawn, max(x, W), fits every row. The optimiser is
performance, these two are safety; so they trust nothing: NaN, infinities and negatives count as "nothing may flow".
"""

from __future__ import annotations

import numpy as np

from powerd.allocation.guard_kernels import raise_untrusted, shed_untrusted
from powerd.allocation.rows import readable, rows_of
from powerd.allocation.steps import PilotSteps, no_steps
from powerd.limits import Floats, Ints, Limits


def shed(
    limits: Limits,
    uncontrolled: Floats,
    ceilings: Floats,
    minimum: Floats,
    floor: Floats,
    order: Ints | None = None,
    *,
    silent: Floats | None = None,
    steps: PilotSteps | None = None,
) -> Floats:
    """Lower ``ceilings`` until every row holds.

    A row counts max(x, floor) wherever the floors alone fit it; where not even they fit (a limit below the reserve), it
    counts the ceilings themselves, so that live grants obey it, beside those that silent posts still hold. Ceilings
    shrink in proportion towards their minimum; where even the minima do not fit, whole sessions go off, lowest priority
    first, until the rest fits.

    Args:
        limits: rows, with the capacity of this tick.
        uncontrolled: (L,) load not under control [limit unit].
        ceilings: (n,) what is to be checked [own unit].
        minimum: (n,) smallest ceiling above 0 of each car; not finite = never on.
        floor: (n,) reserve counted in the rows.
        order: (n,) EVSEs, first served first (``demands.order_of_service``); default by index.
        silent: (n,) the part of the floor that counts under every limit (``Demands.silent``); default nothing.
        steps: pilot steps; default continuous.

    Returns:
        (n,) ceilings, each <= the one given, 0 or >= minimum, on a pilot step, and within every row (up to rounding,
        ``rows.SLACK``).
    """
    rows = rows_of(limits)
    return shed_untrusted(
        rows.columns,
        rows.limit_of_row,
        readable(limits.capacity),
        readable(uncontrolled),
        np.array(limits.energized),
        readable(ceilings),
        readable(minimum),
        readable(floor),
        readable(np.zeros(len(ceilings)) if silent is None else silent),
        np.arange(len(ceilings)) if order is None else order,
        no_steps(len(ceilings)) if steps is None else steps,
    )


def admit_raises(
    limits: Limits,
    uncontrolled: Floats,
    worst: Floats,
    current: Floats,
    wanted: Floats,
    minimum: Floats,
    order: Ints | None = None,
    *,
    opens: Floats | None = None,
    steps: PilotSteps | None = None,
) -> Floats:
    """Rule R1: take every decrease at once, and every increase as far as sum max(x, W) fits each row.

    Under a limit that W alone exceeds nothing rises. Raises from 0 jump to the minimum, in order of class and service;
    then all rise by one common fraction per limit; then what is left goes out in the same order. Whoever rises counts
    at what its first grant opens from then on.

    Args:
        limits: rows, with the capacity of this tick.
        uncontrolled: (L,) load not under control [limit unit].
        worst: (n,) W, the most each EVSE could be drawing; not finite = nothing may rise beside it.
        current: (n,) newest ceiling sent.
        wanted: (n,) what the allocation wants.
        minimum: (n,) smallest ceiling above 0 of each car; not finite = never on.
        order: (n,) EVSEs, first served first (``demands.order_of_service``); default by index.
        opens: (n,) least that W becomes with any raise (``Demands.opens``); default nothing. Not finite = no raise.
        steps: pilot steps; default continuous.

    Returns:
        (n,) ceilings to grant, each <= max(current, wanted), 0 or >= minimum, on a pilot step where it was raised.
    """
    rows = rows_of(limits)
    return raise_untrusted(
        rows.columns,
        rows.limit_of_row,
        readable(limits.capacity),
        readable(uncontrolled),
        np.array(limits.energized),
        readable(worst),
        readable(np.zeros(len(current)) if opens is None else opens),
        readable(current),
        readable(wanted),
        readable(minimum),
        np.arange(len(current)) if order is None else order,
        no_steps(len(current)) if steps is None else steps,
    )
