"""A full house, imagined: makes every kernel compile before the first real tick has to wait for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powerd.control.compiled import CompiledSite
from powerd.control.events import Event, HelloReceived, Measured, StampSeen
from powerd.control.question import question_of
from powerd.control.step import Stepper
from powerd.limits import Ints
from powerd.state.snapshot import Snapshot
from powerd.units import Now


def rehearse(site: CompiledSite, stepper: Stepper, snapshot: Snapshot, now: Now) -> None:
    """Steps through arrivals, a settled tick and a limit that falls; the snapshot given is left as it was."""
    posts = site.electrical.posts
    owners = [np.flatnonzero(posts.controller == c) for c in range(len(site.electrical.controllers.ids))]
    owners = [evse for evse in owners if evse.shape[0]]
    hellos: list[Event] = [_hello(evse, now) for evse in owners]
    decision = stepper.step(snapshot, hellos, now)
    stepper.planner.exact(question_of(site.electrical, snapshot.gear, posts.max_ceiling, now.boottime_s))
    later = Now(utc=now.utc, boottime_s=now.boottime_s + 1.0)
    stamps: list[Event] = [StampSeen(evse=evse, incarnation=1, boottime_s=later.boottime_s) for evse in owners]
    drawn = np.repeat(decision.ceiling[:, None], 3, axis=1)
    stepper.step(decision.snapshot, [*stamps, Measured(evse=np.arange(posts.count), drawn=drawn)], later)
    tight = replace(site, limits=replace(site.limits, capacity=0.3 * site.limits.capacity))
    Stepper(tight).step(decision.snapshot, stamps, later)


def _hello(evse: Ints, now: Now) -> HelloReceived:
    """A controller that has just started, a car at every post."""
    count = evse.shape[0]
    nothing = np.zeros(count)
    return HelloReceived(
        evse=evse,
        incarnation=1,
        boottime_s=now.boottime_s,
        highest_epoch=0,
        plugged=np.ones(count, np.bool_),
        plug_boottime_s=nothing,
        epoch=np.zeros(count, np.int64),
        seq=np.zeros(count, np.int64),
        ceiling=nothing,
        remaining_s=nothing,
        latched=np.zeros(count, np.bool_),
    )
