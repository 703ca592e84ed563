"""Which EVSEs an element of the drawing stands above: what a stop of that element concerns, also when switches move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powerd.control.topology import may_be_closed, surely_closed
from powerd.limits import Bools, Ints
from powerd.network.electrical import Electrical
from powerd.network.supply import Energised, energise
from powerd.state.snapshot import Stop
from powerd.state.switchgear import Switchgear


def evses_below(electrical: Electrical, closed: Bools, element: str) -> Ints | None:
    """EVSEs at or below an element in one switching state.

    Args:
        electrical: the compiled drawing.
        closed: (E,) switch positions.
        element: id of the site, an EVSE, a controller, a bus, a branch or a supply.

    Returns:
        (k,) EVSE indices, ascending; None = there is no such element.
    """
    posts = electrical.posts
    if element == electrical.site_id:
        return np.arange(posts.count)
    if element in posts.ids:
        return np.array([posts.ids.index(element)])
    if element in electrical.controllers.ids:
        return np.flatnonzero(posts.controller == electrical.controllers.ids.index(element))
    live = energise(electrical, closed)
    buses = _buses_below(electrical, live, element)
    return None if buses is None else np.flatnonzero(buses[electrical.evse_bus])


def widened(electrical: Electrical, gear: Switchgear, stops: tuple[Stop, ...]) -> tuple[Stop, ...]:
    """Stops with all that is below their elements now: a reroute may bring others there, whom nobody has asked about.

    Where a position is not known, who may be below is. Who once was stays stopped until the stop is released.
    """
    states = (may_be_closed(electrical, gear), surely_closed(electrical, gear))
    return tuple(_widened(electrical, states, stop) for stop in stops)


def _widened(electrical: Electrical, states: tuple[Bools, ...], stop: Stop) -> Stop:
    """One of them."""
    below = [evses_below(electrical, closed, stop.element) for closed in states]
    now = np.unique(np.concatenate([stop.evse, *(evse for evse in below if evse is not None)]))
    return stop if now.shape == stop.evse.shape else replace(stop, evse=now)


def _buses_below(electrical: Electrical, live: Energised, element: str) -> Bools | None:
    """(B,) buses that the element feeds in the tree; None = no such bus, branch or supply.

    A transfer switch is found by its own id: both of its halves.
    """
    below = np.zeros(len(electrical.buses.ids), np.bool_)
    if element in electrical.supplies.ids:
        below[:] = live.supply == electrical.supplies.ids.index(element)
        return below
    halves = {element, f"{element}/preferred", f"{element}/alternate"}
    branches = [e for e, own in enumerate(electrical.branches.ids) if own in halves]
    if element in electrical.buses.ids:
        below[electrical.buses.ids.index(element)] = True
    elif branches:
        below |= np.isin(live.parent_branch, branches)
    else:
        return None
    for bus in live.order:  # parents come before children
        parent = live.parent_bus[bus]
        below[bus] |= parent >= 0 and below[parent]
    return below
