"""Small sites for the fault simulation: a feeder into a panel, a feeder on into a second one, posts on both.

Each number gives another site, always the same one. Limits leave room for what R5 reserves and a bit more, so that they
bind nearly all the time.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

from powerd.control.compiled import CompiledSite, as_drawn
from powerd.control.phase_switch import L1, Patience
from powerd.control.step import Stepper
from powerd.limits import Floats, Ints
from powerd.network.load import load_site
from powerd.server.directory import Directory
from powerd.state.switchgear import Switchgear

COUNT = 30
"""How many different sites there are."""
HIGH_FALLBACK = 24
"""From this number on posts fall back to more than what they do after their own restart."""
RATING_A = 32.0
"""Of every post."""
TICK_S = 0.4
"""Controllers act at the full second; the daemon ticks so much later [s]."""
TICK_SOON_S = 0.15
"""The same where clocks drift much: a younger echo leaves less time that hides the drift of a lease [s]."""
SWITCHING = (5, 10, 23)
"""Sites whose posts connect L1 alone where not all minima fit on three phases; there they mostly do not."""
PATIENCE = Patience(waits_s=4.0, roomy_s=6.0, between_s=12.0, confirm_s=20.0)
"""A scenario is too short for that of the field."""
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
    rows_one: Floats
    """(m, n) the same with each post that can on L1 alone."""
    loads: Floats
    """(m,) load of each row that is not controlled [limit unit]."""
    outer: Floats
    """(L,) bool as float: the limit belongs to the outer feeder."""
    share_min: float
    """Smallest share of the limits that still fits the reserves."""
    tick_s: float
    """When in each second the daemon ticks [s]."""
    _on_phases: dict[bytes, CompiledSite] = field(default_factory=dict)

    def on_phases(self, used: Ints | None) -> CompiledSite:
        """The site with cars on these phases (n,), as ``with_phases_in_use`` has them; None = on all."""
        return self.site if used is None else _kept_on(self.site, used, self._on_phases)


def _text(number: int) -> str:
    """The site file of one number."""
    chance = random.Random(number)  # noqa: S311
    posts = chance.randint(3, 12)
    ttl, reaction = chance.choice(((6, 2), (6, 3), (9, 3), (15, 5)))
    owners = [chance.choice(CLASSES[:2]) for k in range(chance.randint(2, 4))]
    if number % 3 == 0:
        owners[-1] = "none"
    switches = number in SWITCHING
    fallback, boot = chance.choice(((0, 0), (6, 0), (6, 8), (0, 6), (8, 0)))
    if switches:
        fallback = boot = 0
    if number >= HIGH_FALLBACK:
        fallback, boot = chance.choice(((16, 8), (10, 7)))
    owner_of = [k % len(owners) for k in range(posts)]
    inner = [k % 2 == 1 for k in range(posts)]
    reserve = [RATING_A if owners[o] == "none" else max(fallback, boot) for o in owner_of]
    limit = {}
    for name, members in (("inner", [k for k in range(posts) if inner[k]]), ("outer", list(range(posts)))):
        least = sum(reserve[k] for k in members)
        most = least + 6.0 * len(members) if switches else RATING_A * len(members)
        limit[name] = round(least + chance.uniform(0.25, 0.6) * max(most - least, 12.0) + 2.0, 1)
    idle = 6 if fallback == 8 else 0
    alone = f"fallback_a: {fallback}, fallback_idle_a: {idle}, boot_current_a: {boot}"
    alone += ", switches_phases: true" if switches else ""
    stations = [
        f"  - {{id: S{k}, bus: {'far' if inner[k] else 'near'}, controller: c{owner_of[k]}, "
        f"evses: [{{id: P{k}, type: t, rotation: {('l123', 'l231', 'l312')[k % 3]}}}]}}"
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


def _kept_on(site: CompiledSite, used: Ints, kept: dict[bytes, CompiledSite]) -> CompiledSite:
    """The site with cars on the phases ``used``, compiled once; its limits are those of the site, in their order."""
    found = kept.get(used.tobytes())
    if found is None:
        found = kept[used.tobytes()] = replace(site.in_state(site.state, used), ac=None)
        if found.limits.name != site.limits.name:
            raise ValueError(f"cars on phases {used} make other limits: {found.limits.name}")
    return found


@cache
def layout(number: int) -> Layout:
    """The site of a number, loaded once a process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "site.yaml"
        file.write_text(_text(number), encoding="utf-8")
        # The power flow's check of the ceilings is not what is tried here, and would take most of the time.
        site = replace(CompiledSite.of(load_site(file).must()), ac=None)
    limits, posts = site.limits, site.electrical.posts
    one = _kept_on(site, np.where(site.electrical.evse_switches, L1, 0), {})
    least = np.maximum(np.maximum(posts.fallback, posts.boot_current), posts.fallback_idle)
    reserve = np.where(site.terms.has_watchdog, least, posts.max_ceiling)
    share = float(np.max(limits.limit_flow(reserve) / limits.capacity))
    return Layout(
        number=number,
        site=site,
        stepper=Stepper(site, PATIENCE),
        names=Directory.of(site.electrical),
        gear=as_drawn(site.electrical),
        rows=np.asarray(limits.real.todense(), np.float64),
        rows_one=np.asarray(one.limits.real.todense(), np.float64),
        loads=site.loads_worst[limits.limit_of_row],
        outer=np.array([element == "outer" for element in limits.element], np.float64),
        share_min=min(1.0, share + 0.01),
        tick_s=TICK_SOON_S if number % 3 == 1 else TICK_S,
    )
