"""Random drawings and random use of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from powerd.network.electrical import Electrical
from tests.network.drawings import CONNECTIONS, Drawing

GROUPS = ("YNyn0", "Dyn1", "Dyn5", "Dyn7", "Dyn11")
#: What each connection may be used for: all its phases, or any of them where the car may choose.
FREE = ("l123",)


@st.composite
def trees(
    draw: st.DrawFn, connections: tuple[str, ...] = tuple(CONNECTIONS), groups: tuple[str, ...] = GROUPS
) -> Drawing:
    """A supply, one or two voltage levels of transformers, feeders and EVSEs; everything rated; a tree."""
    drawing = Drawing()
    root = drawing.bus(20_000.0)
    drawing.supply(root)
    for _ in range(draw(st.integers(1, 2))):
        above = root
        if draw(st.booleans()):
            above = drawing.bus(10_000.0)
            drawing.transformer(root, above, 500.0, 1000.0, draw(st.sampled_from(groups)))
        low = drawing.bus(400.0)
        drawing.transformer(above, low, 50.0, 1443.0, draw(st.sampled_from(groups)))
        panels = [low]
        for _ in range(draw(st.integers(0, 3))):
            panel = drawing.bus(400.0)
            drawing.feeder(draw(st.sampled_from(panels)), panel, draw(st.sampled_from([100.0, 200.0, float("nan")])))
            panels.append(panel)
        for _ in range(draw(st.integers(0, 6))):
            drawing.evse(draw(st.sampled_from(panels)), draw(st.sampled_from(connections)))
    if not drawing.evses:
        drawing.evse(low, connections[0])
    return drawing


def some_use(
    electrical: Electrical, drawing: Drawing, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Ceilings (n,) and phases (n, 3) that the cars chose: any subset on three-phase AC posts, one where unknown."""
    count = electrical.evse_count
    ceilings = rng.uniform(0, 32, count) * rng.integers(0, 2, count)
    used = np.ones((count, 3), dtype=np.bool_)
    for index, (_, _, connection) in enumerate(drawing.evses):
        if connection in FREE:
            used[index] = rng.integers(0, 2, 3).astype(bool)
        if connection == "unknown":
            used[index] = np.arange(3) == rng.integers(0, 3)
    return ceilings, used
