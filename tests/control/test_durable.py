"""What may leave before the disk has it: only what every tick that may become the last durable one covers."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powerd.control.decision import Decision, GrantBatch
from powerd.control.durable import covered_by, split_lowered
from powerd.journal.disk import Covered, DiskWatch
from tests.control.garage import Player, site_text


@pytest.fixture
def decision(tmp_path: Path) -> Decision:
    """Of a site of two posts."""
    return Player.open(tmp_path, site_text(2, 32.0)).tick()


def test_the_least_w_of_all_that_may_become_durable_counts() -> None:
    """Per EVSE."""
    assert covered_by([np.array([32.0, 6.0]), np.array([8.0, 16.0])]).tolist() == [8.0, 6.0]


def test_a_waiting_tick_that_covers_less_bounds_what_leaves(decision: Decision) -> None:
    """From the moment it waits until a later one is durable; a refused one is written with a later one."""
    all_phases = np.zeros(2, np.bool_)
    disk = DiskWatch(Covered(np.array([32.0, 32.0]), all_phases), 2.0, epoch=decision.snapshot.leases.epoch)
    swapped, granted = (replace(decision, worst=np.array(worst)) for worst in ([8.0, 32.0], [20.0, 20.0]))
    disk.handed_over(swapped)
    assert disk.covering(decision).tolist() == [8.0, 32.0]
    disk.handed_over(granted)
    assert disk.covering(decision).tolist() == [8.0, 20.0]
    disk.took(swapped)
    assert disk.covering(decision).tolist() == [8.0, 20.0]
    disk.took(granted)
    assert disk.covering(decision).tolist() == [20.0, 20.0]
    disk.handed_over(swapped)
    disk.refused()
    assert disk.covering(decision).tolist() == [8.0, 20.0]  # it may be there at the next start


def test_a_ceiling_for_all_phases_is_not_covered_by_one_for_l1_alone(decision: Decision) -> None:
    """20 A on L1 are not 20 A on three phases: until the change is durable, nothing above 0 leaves for them."""
    book, switched = decision.snapshot, np.array([True, False])
    on_one = replace(book, contactors=replace(book.contactors, one=switched, proved=switched))
    before = replace(decision, snapshot=on_one, worst=np.full(2, 20.0))
    disk = DiskWatch(Covered(np.full(2, 20.0), switched), 2.0, epoch=book.leases.epoch)
    after = replace(decision, worst=np.full(2, 20.0))
    assert disk.covering(before).tolist() == [20.0, 20.0]
    assert disk.covering(after).tolist() == [0.0, 20.0]
    disk.handed_over(after)
    disk.refused()
    assert disk.covering(after).tolist() == [0.0, 20.0]
    disk.handed_over(after)
    disk.took(after)
    assert disk.covering(after).tolist() == [20.0, 20.0]


def test_a_lowering_that_a_restart_may_not_cover_waits(decision: Decision) -> None:
    """At 31 A over a W of 8 A it waits, at 6 A it leaves."""
    batch = replace(
        decision.lowered,
        evse=np.array([0, 1]),
        ceiling=np.array([31.0, 6.0]),
        latched=np.zeros(2, np.bool_),
        one_phase=np.zeros(2, np.bool_),
        ttl_s=np.full(2, 15.0),
        echo_incarnation=np.ones(2, np.int64),
        echo_boottime_s=np.zeros(2),
    )
    at_once, waits = split_lowered(replace(decision, lowered=batch), np.array([8.0, 8.0]))
    assert at_once.lowered.evse.tolist() == [1]
    assert waits is not None
    assert waits.lowered.evse.tolist() == [0]


def test_a_part_of_a_batch_says_of_each_post_what_the_whole_said(decision: Decision) -> None:
    """Every column is cut alike: a flag that slips to the neighbour moves current to phases where nobody counts it.

    Also a column that is added later: here each has its own value for each post.
    """
    own = {field.name: getattr(decision.lowered, field.name) for field in fields(GrantBatch)}
    columns: dict[str, Any] = {
        name: np.array([0, 1, 2]).astype(one.dtype) for name, one in own.items() if isinstance(one, np.ndarray)
    }
    whole = replace(decision.lowered, **columns)
    at_once, waits = split_lowered(replace(decision, lowered=whole), np.array([0.0, 0.0, 2.0]))
    assert waits is not None
    for name, column in columns.items():
        assert getattr(at_once.lowered, name).tolist() == column[[0, 2]].tolist(), name
        assert getattr(waits.lowered, name).tolist() == column[[1]].tolist(), name
