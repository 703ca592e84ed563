"""How switches are operated: what interlocks, plans and the failure path need to know of each branch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from powerd.limits import Bools, Floats, Ints

UNLIMITED = 1 << 30
"""Operations an hour where the site file sets no maximum."""
RETRANSFER_S = 300.0
"""Wait before a feeder that came back is used again, where the site file names no transfer switch for it [s]."""


class By(IntEnum):
    """Who moves a switch."""

    NOBODY = 0
    HAND = 1
    POWERD = 2
    ITSELF = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """(E,) one row a branch; what is not a switch has NOBODY and no partner."""

    by: Ints
    """``By``."""
    partner: Ints
    """The other half of a transfer switch; -1 = none."""
    closed_transition: Bools
    """May parallel two supplies for a moment, with a reported sync-check permissive."""
    transfer_time_s: Floats
    """A transfer switch's longest time from loss to transfer [s]; nan for others."""
    retransfer_delay_s: Floats
    """Wait before it goes back [s]."""
    max_operations: Ints
    """Operations an hour that powerd may order."""
    reported: Bools
    """A switchgear controller is to report its position: unknown until it has."""

    @staticmethod
    def none(count: int) -> Operation:
        """``count`` branches that nobody operates."""
        return Operation(
            by=np.full(count, int(By.NOBODY), np.int64),
            partner=np.full(count, -1, np.int64),
            closed_transition=np.zeros(count, np.bool_),
            transfer_time_s=np.full(count, math.nan),
            retransfer_delay_s=np.full(count, RETRANSFER_S),
            max_operations=np.full(count, UNLIMITED, np.int64),
            reported=np.zeros(count, np.bool_),
        )
