"""The grain of posts' readings: whole mA of a phase, whole W of a DC post.

No meter of a post is finer, and a record of readings takes a quarter of the room. Doors round *down*: in headroom.py
what posts drew is taken off a meter above them, so less of it leaves more that is certainly not charging.
"""

from __future__ import annotations

import numpy as np

from powerd.limits import Floats

STEPS = 1000.0
"""Steps of a reading in one of its own unit (A, kW)."""
STEP = 1.0 / STEPS
"""The most that rounding down takes away [own unit], less than that in fact."""


def rounded_down(drawn: Floats) -> Floats:
    """Readings (k, ...) >= 0 as the largest whole number of steps that is not above each; of whole steps the same."""
    count = np.floor(drawn * STEPS)
    count += (count + 1.0) / STEPS <= drawn  # 4.35 * 1000 is below 4350
    count -= count / STEPS > drawn
    rounded: Floats = count / STEPS
    return rounded
