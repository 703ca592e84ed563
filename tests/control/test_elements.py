"""Who is under a stop of an element: whoever is below it, also when switches have moved since it was ordered."""

from __future__ import annotations

import numpy as np

from powerd.control import events as ev
from powerd.control.elements import evses_below
from powerd.limits import Ints
from tests.control.substation import Substation, model


def below(depot: Substation, element: str) -> Ints:
    """EVSEs below an element as the switches truly stand."""
    evse = evses_below(depot.player.site.electrical, depot.closed, element)
    assert evse is not None
    return evse


def stop(depot: Substation, element: str) -> Ints:
    """A stop as the door orders it: with those below the element at that moment."""
    evse = below(depot, element)
    depot.tick(ev.StopOrdered(request_id="", stop_id="s", element=element, evse=evse, reason="smoke"))
    return evse


def test_whom_a_reroute_brings_below_a_stopped_element_is_stopped_as_well() -> None:
    """The other supply is lost and the tie closes: nobody charges through the stopped cable, in no tick."""
    depot = Substation.open(model("two_feeder_depot"))
    depot.run(30)
    before = stop(depot, "utility-a")
    assert before.shape[0] == 20
    depot.supply("utility-b", lost=True)
    for _ in range(180):
        decision = depot.tick()
        assert np.all(decision.ceiling[below(depot, "utility-a")] == 0.0)
    assert ("tie", True) in depot.orders
    assert below(depot, "utility-a").shape[0] == 60
    assert depot.player.snapshot.stops[0].evse.shape[0] == 60


def test_a_stop_of_a_dead_element_holds_when_its_voltage_returns() -> None:
    """A fitter at work on an open breaker is not surprised by cars that charge once it is closed."""
    depot = Substation.open(model("two_feeder_depot"))
    depot.run(20)
    depot.supply("utility-b", lost=True)
    depot.run(60)
    assert stop(depot, "main-b").shape[0] == 0
    depot.supply("utility-b", lost=False)
    for _ in range(900):
        decision = depot.tick()
        assert np.all(decision.ceiling[below(depot, "main-b")] == 0.0)
    assert below(depot, "main-b").shape[0] == 40


def test_whom_a_reroute_takes_away_from_a_stopped_element_stays_stopped() -> None:
    """Only the release ends a stop: what was told to stop does not begin again because a switch moved."""
    depot = Substation.open(model("two_feeder_depot"))
    depot.run(30)
    before = stop(depot, "utility-b")
    depot.supply("utility-b", lost=True)
    decision = depot.run(180)
    assert below(depot, "utility-b").shape[0] == 0
    assert np.all(decision.ceiling[before] == 0.0)
