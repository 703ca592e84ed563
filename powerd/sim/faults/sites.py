"""Small sites for the fault simulation: a feeder into a panel, a feeder on into a second one, posts on both.

Each number gives another site, always the same one. Limits leave room for what R5 reserves and a bit more, so that they
bind nearly all the time.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from powerd.control.compiled import CompiledSite, as_drawn
from powerd.control.step import Stepper
from powerd.limits import Floats
from powerd.network.load import load_site
from powerd.server.directory import Directory
from powerd.state.switchgear import Switchgear

COUNT = 24
"""How many different sites there are."""
RATING_A = 32.0
"""Of every post."""
TICK_S = 0.4
"""Controllers act at the full second; the daemon ticks so much later [s]."""
TICK_SOON_S = 0.15
"""The same where clocks drift much: a younger echo leaves less time that hides the drift of a lease [s]."""
CLASSES = ("own", "dog", "none")
"""Validity enforced by the post itself, a watchdog of 2 s, no watchdog."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """One site, compiled."""

    number: int
    site: CompiledSite
    stepper: Stepper
    """Shared by all runs in this process: its answers depend on its arguments alone."""
    names: Directory
    gear: Switchgear
    """As drawn."""
    rows: Floats
    """(m, n) linear rows [limit unit per own unit]."""
    loads: Floats
    """(m,) load of each row that is not controlled [limit unit]."""
    outer: Floats
    """(L,) bool as float: the limit belongs to the outer feeder."""
    share_min: float
    """Smallest share of the limits that still fits the reserves."""
    tick_s: float
    """When in each second the daemon ticks [s]."""


def _text(number: int) -> str:
    """The site file of one number."""
    chance = random.Random(number)  # noqa: S311
    posts = chance.randint(3, 12)
    ttl, reaction = chance.choice(((6, 2), (6, 3), (9, 3), (15, 5)))
    owners = [chance.choice(CLASSES[:2]) for k in range(chance.randint(2, 4))]
    if number % 3 == 0:
        owners[-1] = "none"
    fallback, boot = chance.choice(((0, 0), (6, 0), (6, 8), (0, 6), (8, 0)))
    owner_of = [k % len(owners) for k in range(posts)]
    inner = [k % 2 == 1 for k in range(posts)]
    reserve = [RATING_A if owners[o] == "none" else max(fallback, boot) for o in owner_of]
    limit = {}
    for name, members in (("inner", [k for k in range(posts) if inner[k]]), ("outer", list(range(posts)))):
        least = sum(reserve[k] for k in members)
        most = sum(RATING_A for _ in members)
        limit[name] = round(least + chance.uniform(0.25, 0.6) * max(most - least, 12.0) + 2.0, 1)
    alone = f"fallback_a: {fallback}, boot_current_a: {boot}"
    stations = [
        f"  - {{id: S{k}, bus: {'far' if inner[k] else 'near'}, controller: c{owner_of[k]}, "
        f"evses: [{{id: P{k}, type: t}}]}}"
        for k in range(posts)
    ]
    terms = f"ttl_s: {ttl}, reaction_s: {reaction}, drift: {0.05 if number % 3 == 1 else 0.001}"
    feeder = "length_m: 20, r_ohm_per_km: 0.2, x_ohm_per_km: 0.08"
    lines = [
        f"site: faults-{number}",
        "supplies: [{id: grid, bus: main}]",
        "buses: [{id: main, voltage_v: 400}, {id: near, voltage_v: 400}, {id: far, voltage_v: 400}]",
        "feeders:",
        f"  - {{id: outer, from_bus: main, to_bus: near, {feeder}, ampacity_a: {limit['outer']}, source: made}}",
        f"  - {{id: inner, from_bus: near, to_bus: far, {feeder}, ampacity_a: {limit['inner']}, source: made}}",
        "controller_classes:",
        f"  - {{id: own, {terms}, watchdog_s: 0}}",
        f"  - {{id: dog, {terms}, watchdog_s: 2}}",
        f"  - {{id: none, {terms}}}",
        f"controllers: [{', '.join(f'{{id: c{k}, class: {c}}}' for k, c in enumerate(owners))}]",
        f"evse_types: [{{id: t, phases: '3', max_current_a: {RATING_A}, {alone}}}]",
        "stations:",
        *stations,
    ]
    return "\n".join(lines) + "\n"


@cache
def layout(number: int) -> Layout:
    """The site of a number, loaded once a process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "site.yaml"
        file.write_text(_text(number), encoding="utf-8")
        # The power flow's check of the ceilings is not what is tried here, and would take most of the time.
        site = replace(CompiledSite.of(load_site(file).must()), ac=None)
    limits, posts = site.limits, site.electrical.posts
    least = np.maximum(np.maximum(posts.fallback, posts.boot_current), posts.fallback_idle)
    reserve = np.where(site.terms.has_watchdog, least, posts.max_ceiling)
    share = float(np.max(limits.limit_flow(reserve) / limits.capacity))
    return Layout(
        number=number,
        site=site,
        stepper=Stepper(site),
        names=Directory.of(site.electrical),
        gear=as_drawn(site.electrical),
        rows=np.asarray(limits.real.todense(), np.float64),
        loads=site.loads_worst[limits.limit_of_row],
        outer=np.array([element == "outer" for element in limits.element], np.float64),
        share_min=min(1.0, share + 0.01),
        tick_s=TICK_SOON_S if number % 3 == 1 else TICK_S,
    )
