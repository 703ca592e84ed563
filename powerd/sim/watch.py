"""A replay at a speed that one can watch: the loop is held back to it, and a table shows every post that has a car."""

from __future__ import annotations

import time
from datetime import timedelta

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from powerd.limits import Floats
from powerd.sim.policies import Ceilings
from powerd.sim.run import Loop
from powerd.sim.scene import Scene

#: Pictures a second.
REFRESH = 4
#: Posts and ratings shown; a terminal is not longer.
POSTS_SHOWN, RATINGS_SHOWN = 16, 4
#: Without a terminal one line is printed this often [simulated s].
LINE_EVERY_S = 3600


class Pacer:
    """Holds a loop back to ``speed`` simulated seconds a second; time lost is not caught up in a burst."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._reached_s = 0
        self._at = time.monotonic()

    def hold(self, reached_s: int) -> None:
        """Sleeps until the wall clock has come as far as the run."""
        self._at += (reached_s - self._reached_s) / self._speed
        self._reached_s = reached_s
        ahead = self._at - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        else:
            self._at -= ahead


def watch(scene: Scene, loop: Loop, policy: Ceilings, *, speed: float, console: Console, address: str) -> None:
    """Runs ``loop`` under ``policy`` (entered by the caller) at ``speed`` simulated seconds a second, showing it."""
    pacer = Pacer(speed)
    if not console.is_terminal:
        last_line = -LINE_EVERY_S

        def report(reached_s: int) -> None:
            nonlocal last_line
            if reached_s - last_line >= LINE_EVERY_S:
                last_line = reached_s
                console.print(_line(scene, loop, reached_s), markup=False, highlight=False)
            pacer.hold(reached_s)

        loop.run(policy, report)
        return
    with Live(console=console, refresh_per_second=REFRESH, transient=False) as live:
        shown_at = 0.0

        def show(reached_s: int) -> None:
            nonlocal shown_at
            pacer.hold(reached_s)
            if time.monotonic() - shown_at >= 1.0 / REFRESH:
                shown_at = time.monotonic()
                live.update(picture(scene, loop, reached_s, address))

        loop.run(policy, show)


def picture(scene: Scene, loop: Loop, reached_s: int, address: str) -> RenderableType:
    """What the terminal shows at ``reached_s`` seconds from the start."""
    drawn = loop.cars.drawn()
    flow = scene.wires.flow(drawn)
    head = Text(_line(scene, loop, reached_s), style="bold")
    foot = Text(f"listening on {address}; ask it: powerd explain {scene.electrical.posts.ids[0]}; Ctrl-C ends", "dim")
    return Group(head, "", _ratings(scene, flow), "", _posts(scene, loop, drawn), foot)


def _line(scene: Scene, loop: Loop, reached_s: int) -> str:
    local = (loop.start + timedelta(seconds=reached_s)).astimezone(scene.timezone)
    drawn = loop.cars.drawn()
    plugged, charging = int(loop.cars.plugged.sum()), int((drawn > 0).sum())
    rating = f" of {scene.transformer_kva:g} kVA" if scene.transformer_kva else ""
    power = scene.wires.site_kw(drawn)
    return f"{local:%a %d %b %H:%M:%S}  {power:6.1f} kW{rating}, {plugged} cars plugged in, {charging} charging"


def _ratings(scene: Scene, flow: Floats) -> Table:
    """The ratings that are used most."""
    table = Table(box=None, pad_edge=False)
    for heading in ("rating", "now", "limit", ""):
        table.add_column(heading, justify="left" if heading in {"rating", ""} else "right")
    wires = scene.wires
    share = np.divide(flow, wires.capacity, out=np.zeros_like(flow), where=wires.capacity > 0.0)
    for p in np.argsort(-share, kind="stable")[:RATINGS_SHOWN].tolist():
        bar = "█" * round(20 * min(float(share[p]), 1.2))
        style = "red" if share[p] > 1.0 else "yellow" if share[p] > 0.95 else "green"
        unit = wires.unit[p]
        table.add_row(wires.name[p], f"{flow[p]:.1f} {unit}", f"{wires.capacity[p]:.1f} {unit}", Text(bar, style))
    return table


def _posts(scene: Scene, loop: Loop, drawn: Floats) -> Table:
    """The posts with a car, those that charge first."""
    posts, cars = scene.electrical.posts, loop.cars
    table = Table(box=None, pad_edge=False)
    for heading in ("EVSE", "ceiling", "drawn", "got", "driver asked for", "leaves"):
        table.add_column(heading, justify="left" if heading == "EVSE" else "right")
    busy = np.flatnonzero(cars.plugged)
    order = busy[np.lexsort((busy, -drawn[busy]))]
    for evse in order[:POSTS_SHOWN].tolist():
        unit = "kW" if posts.is_dc[evse] else "A"
        session = loop.session_at(evse)
        said = session.said_energy_kwh if session else None
        leaves = session.said_departure.astimezone(scene.timezone) if session and session.said_departure else None
        table.add_row(
            posts.ids[evse],
            f"{loop.ceilings[evse]:.0f} {unit}",
            f"{drawn[evse]:.1f} {unit}",
            f"{cars.got_kwh[evse]:.1f} kWh",
            "nothing said" if said is None else f"{said:.1f} kWh",
            "" if leaves is None else f"{leaves:%H:%M}",
        )
    if order.shape[0] > POSTS_SHOWN:
        table.caption = f"and {order.shape[0] - POSTS_SHOWN} more"
    return table
