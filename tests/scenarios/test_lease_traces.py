"""Histories that broke earlier versions of the lease rules and belong to no single room. The others:

1, 7, 8, 9, 10, 11 in tests/state/test_leases.py; 2, 4, 5, 6 in tests/client/test_core.py; 12 in tests/control
(test_step.py, test_overshoot.py); 14 in tests/state/test_reaction.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powerd.allocation.guard import admit_raises, shed
from powerd.server.outbox import Lease, Outbox, Part
from tests.client.daemon_side import ME, TTL_S, controller, hello
from tests.control.garage import compiled, site_text


def test_trace_03_a_grant_that_lay_in_a_queue_is_already_old() -> None:
    """The tick decides, the door stalls for 3 s: the echo stays the deciding tick's, so 3 s of the lease are gone."""
    core = controller()
    stamp = hello(core, 100.0)
    outbox = Outbox(2)
    lease = Lease(epoch=1, seq=1, ttl_s=TTL_S, incarnation=ME, boottime_s=stamp)
    no = np.array([False])
    outbox.put(Part(lease=lease, place=np.array([0]), ceiling=np.array([16.0]), latched=no, one_phase=no))
    core.report(103.0)  # a newer stamp, absorbed while the grant waits
    (message,) = outbox.take()
    (write,) = core.receive(message, 103.2)
    assert write.valid_until_s == stamp + TTL_S


def test_trace_13_nothing_to_shed_sheds_nothing(tmp_path: Path) -> None:
    """W of ten posts is 60 A under 59 A while their ceilings fit: nobody is switched off, and nobody rises."""
    limits = compiled(tmp_path, site_text(10, 59.0)).limits
    uncontrolled = np.zeros(limits.capacity.shape)
    ceiling = np.array([6.0] * 9 + [0.0])
    least, nothing = np.full(10, 6.0), np.zeros(10)
    safe = shed(limits, uncontrolled, ceiling, least, nothing)
    assert safe == pytest.approx(ceiling)
    worst = np.full(10, 6.0)
    assert admit_raises(limits, uncontrolled, worst, ceiling, np.full(10, 32.0), least) == pytest.approx(ceiling)
