"""Units and the one sign convention.

Sign: **positive = consumption**, power or current flowing away from the grid into the device; negative = export or
discharge. Limits are magnitudes (>= 0) with the direction in the name (``import_limit_kw``). Only doors and
pandapower's generator-frame tables (``ext_grid``, ``sgen``, ``gen``) flip a sign.

Names carry their unit last: ``_a`` ampere (never phase A; phases are l1, l2, l3), ``_v`` volt line-to-line, ``_ln_v``
line-to-neutral, ``_kw``, ``_kva``, ``_kwh``, ``_s``, ``_percent`` (0-100), ``_deg``.
A *ceiling* is in the EVSE's own unit: ampere per connected phase for AC, kW for DC.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

SQRT3 = math.sqrt(3.0)

#: Largest overshoot of a limit row, in the row's own unit, that counts as rounding and not as a violation.
ROW_TOLERANCE = 1e-6
#: Longest lease that a site file may give [s].
TTL_MAX_S = 3600
#: Largest port; gRPC takes larger ones modulo 65 536, so a slip would reach another daemon.
PORT_MAX = 65535


@dataclass(frozen=True, slots=True)
class Now:
    """The instant a step runs at; the only clock the core ever sees.

    ``utc`` serves schedules, sessions and people. Leases, staleness and time-outs use only ``boottime_s``, a clock that
    also runs in suspend and never jumps (Linux ``CLOCK_BOOTTIME``).
    """

    utc: datetime
    """Aware UTC wall-clock time."""
    boottime_s: float
    """Seconds on the daemon's boottime clock."""
