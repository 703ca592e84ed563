"""Random yards for R9: two services, panels that transfer switches move between them, posts and loads, plain 400 V."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from powerd.network.electrical import Electrical
from powerd.network.load import load_site

HEAD = """
site: yard
title: A yard with transfer switches
timezone: Europe/Berlin
supplies:
  - {id: a, bus: in-a}
  - {id: b, bus: in-b}
controller_classes:
  - {id: box, ttl_s: 15, reaction_s: 5, watchdog_s: 10}
controllers:
  - {id: c, class: box}
evse_types:
  - {id: three, phases: 3, max_current_a: 32, fallback_a: 0}
  - {id: one, phases: 1, max_current_a: 32, fallback_a: 0}
"""


def yard(main_a: tuple[float, float], panels: list[tuple[str, float, int, int]], loads_kw: list[float]) -> str:
    """A site file.

    Args:
        main_a: ratings of the two main breakers [A].
        panels: of each transfer switch the side it is drawn at, its rating [A], three-phase and single-phase posts.
        loads_kw: worst load at service a, at service b and at each panel [kW].
    """
    buses = ["in-a", "in-b", "hall-a", "hall-b", *(f"p{k}" for k in range(len(panels)))]
    lines = [HEAD, "buses:", *(f"  - {{id: {bus}, voltage_v: 400}}" for bus in buses)]
    lines += ["switches:"]
    for side, rating in zip("ab", main_a, strict=True):
        lines.append(
            f"  - {{id: main-{side}, kind: breaker, from_bus: in-{side}, to_bus: hall-{side}, "
            f"rated_current_a: {rating}, protection: {{release: b}}}}"
        )
    lines += ["transfer_switches:"]
    for k, (side, rating, _, _) in enumerate(panels):
        lines.append(
            f"  - {{id: t{k}, kind: automatic, preferred_bus: hall-a, alternate_bus: hall-b, load_bus: p{k}, "
            f"rated_current_a: {rating}, position: {side}}}"
        )
    lines += ["loads:"]
    for bus, kw in zip(buses[2:], loads_kw, strict=True):
        lines.append(f"  - {{id: load-{bus}, bus: {bus}, typical_kw: {kw / 2}, worst_kw: {kw}, power_factor: 0.95}}")
    lines += ["station_groups:"]
    posts = [("hall-a", 2, 1), ("hall-b", 2, 1), *((f"p{k}", n, m) for k, (_, _, n, m) in enumerate(panels))]
    for k, (bus, three, one) in enumerate(posts):
        if three:
            lines.append(f'  - {{count: {three}, id: "T{k}-{{n}}", bus: {bus}, controller: c, type: three}}')
        if one:
            turns = "connections: [l1, l2, l3]"
            lines.append(f'  - {{count: {one}, id: "O{k}-{{n}}", bus: {bus}, controller: c, type: one, {turns}}}')
    return "\n".join(lines) + "\n"


def loaded(folder: Path, text: str) -> Electrical:
    """The columns of a site file."""
    (folder / "site.yaml").write_text(text, "utf-8")
    return load_site(folder).must()


def drawn(seed: int) -> str:
    """A random yard."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 4))
    panels = [
        (str(rng.choice(["preferred", "alternate"])), float(rng.choice([40, 63, 100])), int(rng.integers(0, 4)), 2)
        for _ in range(count)
    ]
    main = float(rng.choice([63, 100, 125])), float(rng.choice([63, 80, 125]))
    return yard(main, panels, [float(x) for x in rng.uniform(0.5, 4.0, 2 + count).round(2)])


def hall(
    *,
    main_a: str,
    main_b: str,
    posts: str,
    switch: str = "",
    more: str = "",
    cable_a: int = 160,
    neutral: str = "",
    standby: bool = False,
) -> str:
    """A site file: services a and b feed hall-a and hall-b, b over a cable.

    Args:
        main_a: rating and protection of the breaker of a.
        main_b: likewise of b.
        posts: station groups.
        switch: one more.
        more: other blocks, as a transfer switch that moves the panel "p" between the halls.
        cable_a: ampacity of the cable.
        neutral: that of its neutral.
        standby: b feeds nothing in the normal state.
    """
    feeding = ", normally_feeding: false" if standby else ""
    panel = "  - {id: p, voltage_v: 400}\n" if "load_bus: p" in more else ""
    return f"""
site: yard
supplies: [{{id: a, bus: in-a}}, {{id: b, bus: in-b{feeding}}}]
buses:
  - {{id: in-a, voltage_v: 400}}
  - {{id: in-b, voltage_v: 400}}
  - {{id: x-b, voltage_v: 400}}
  - {{id: hall-a, voltage_v: 400}}
  - {{id: hall-b, voltage_v: 400}}
{panel}switches:
  - {{id: main-a, kind: breaker, from_bus: in-a, to_bus: hall-a, {main_a}}}
  - {{id: main-b, kind: breaker, from_bus: in-b, to_bus: x-b, {main_b}}}
{switch}
feeders:
  - {{id: cable-b, from_bus: x-b, to_bus: hall-b, length_m: 50, r_ohm_per_km: 0.1, x_ohm_per_km: 0.08
     , ampacity_a: {cable_a}{neutral}}}
{more}
controller_classes: [{{id: box, ttl_s: 15, reaction_s: 5, watchdog_s: 10}}]
controllers: [{{id: c, class: box}}]
evse_types:
  - {{id: three, phases: 3, max_current_a: 32, fallback_a: 0}}
  - {{id: one, phases: 1, max_current_a: 32, fallback_a: 0}}
station_groups:
{posts}
"""
