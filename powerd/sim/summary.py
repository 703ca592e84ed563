"""What a run came to: one flat record, the same keys for every policy, as JSON or as a table for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table

from powerd.limits import Floats
from powerd.sim.grid import Compliance, Tripped
from powerd.sim.plant import Truth, Violation
from powerd.sim.run import Record, Served
from powerd.sim.verify import AcVerdict

#: A session counts as full from this share of its need.
FULL = 0.99
#: Rows of a table for people.
MOST_ROWS = 10
#: Keys that are measured in real time: two equal runs may differ in them.
TIMINGS = ("tick_ms_p50", "tick_ms_p99", "wall_s")


@dataclass(frozen=True, kw_only=True)
class Wire:
    """What went over the wire; all zero without a daemon."""

    rpcs: int = 0
    """Calls made, streams counted once each."""
    stream_messages: int = 0
    """Messages on the streams, both ways."""
    refusals: int = 0
    """Grants that controllers refused."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The figures of one run; field names are the JSON keys."""

    site: str
    """Id of the site."""
    policy: str
    """Who said the ceilings."""
    cap_kw: float | None
    """Transformer size that was asked for [kW]; None = as drawn."""
    battery: str
    """Kind of batteries."""
    seed: int
    """Seed of the cars."""
    sessions: int
    """Stays replayed."""
    energy_requested_kwh: float
    """What drivers said, where they said anything [kWh]."""
    energy_needed_kwh: float
    """Sum of min(recorded, what the post could deliver in the stay) [kWh]."""
    energy_delivered_kwh: float
    """What cars got [kWh]."""
    energy_delivered_percent: float
    """100 * sum of min(delivered, needed) / sum of needed [%]."""
    sessions_full_percent: float
    """Sessions with at least 99 % of their need [%]."""
    worst_decile_fraction: float
    """Mean delivered / needed of the worst tenth of the sessions (0-1)."""
    jain_index: float
    """Jain's fairness index of delivered / needed: (sum x)^2 / (n sum x^2), 1 = all alike (Jain, Chiu, Hawe 1984)."""
    peak_kw: float
    """Most power taken [kW]."""
    worst_margin_a: float | None
    """Smallest rating - current over all ampere ratings and steps [A]; None = the site has no such rating."""
    limit_violations: int
    """Pairs (step, rating) in which the rating was exceeded by more than 1e-6 of it."""
    breaker_trips: int
    """Times an overcurrent device had stood an overload for as long as it can (earliest edge, hot); an overload counts
    once. Without a ``--trip`` none opens for it."""
    trips: tuple[Tripped, ...]
    """Which devices."""
    overload_allowed_s: float
    """After a loss: ack + reaction + 1 s of the slowest controller [s]."""
    forbidden_movements: tuple[str, ...]
    """Switch movements that I9 forbids, as "rule at element"."""
    compliance: tuple[Compliance, ...]
    """Each loss, return and opening: seconds until nothing was overloaded, against what the element stands."""
    violations: tuple[Violation, ...]
    """The ratings that were broken."""
    steps: int
    """Steps of the run."""
    steps_binding: int
    """Steps in which the ceilings in force used up some limit (to 1 % or 1 A)."""
    steps_transformer_binding: int
    """The same for limits of transformers alone."""
    simulated_s: int
    """Length of the run in simulated time [s]."""
    rpcs: int
    """Calls over gRPC."""
    stream_messages: int
    """Messages on the controllers' streams, both ways."""
    refusals: int
    """Grants that controllers refused (they ask for fresh ones)."""
    verify_ac: AcVerdict | None
    """Verdict of the power flows; None = not asked for."""
    tick_ms_p50: float | None
    """Median time of a tick [ms]; None = no daemon."""
    tick_ms_p99: float | None
    """99th percentile [ms]."""
    wall_s: float
    """Real time that the run took [s]."""

    @property
    def promise_kept(self) -> bool:
        """No rating was broken, in the plant's books and, if asked, in the power flows.

        Where something was lost on purpose, ratings may be exceeded after it for as long as ``overload_allowed_s``, and
        nothing may trip. What was broken before has no such excuse.
        """
        flows = self.verify_ac is None or self.verify_ac.passed
        if not self.compliance:
            return self.limit_violations == 0 and flows
        first_s = min(one.at_s for one in self.compliance)
        if any(broken.first_s < first_s for broken in self.violations):
            return False
        in_time = all(one.seconds <= self.overload_allowed_s for one in self.compliance)
        return in_time and self.breaker_trips == 0 and not self.forbidden_movements and flows

    def as_json(self) -> dict[str, Any]:
        """The record as plain values."""
        found = asdict(self)
        if self.verify_ac is not None:
            found["verify_ac"]["passed"] = self.verify_ac.passed
        return found


def summarise(
    *,
    site: str,
    policy: str,
    cap_kw: float | None,
    battery: str,
    seed: int,
    record: Record,
    truth: Truth,
    wire: Wire,
    verdict: AcVerdict | None,
    wall_s: float,
    overload_allowed_s: float = 0.0,
) -> Summary:
    """The figures of a run."""
    needed = np.array([s.needed_kwh for s in record.served])
    got = np.array([s.delivered_kwh for s in record.served])
    fraction = delivered_fraction(needed, got)
    ticks = np.percentile(record.step_ms, [50, 99]).tolist() if record.step_ms.shape[0] else [None, None]
    series = truth.series
    return Summary(
        site=site,
        policy=policy,
        cap_kw=cap_kw,
        battery=battery,
        seed=seed,
        sessions=len(record.served),
        energy_requested_kwh=_said(record.served),
        energy_needed_kwh=float(needed.sum()),
        energy_delivered_kwh=float(got.sum()),
        energy_delivered_percent=_percent(float(np.minimum(got, needed).sum()), float(needed.sum())),
        sessions_full_percent=_percent(float(np.count_nonzero(fraction >= FULL)), float(fraction.shape[0])),
        worst_decile_fraction=worst_decile(fraction),
        jain_index=jain(fraction),
        peak_kw=truth.peak_kw,
        worst_margin_a=truth.worst_margin_a if math.isfinite(truth.worst_margin_a) else None,
        limit_violations=truth.limit_violations,
        breaker_trips=truth.breaker_trips,
        trips=truth.trips,
        overload_allowed_s=overload_allowed_s,
        forbidden_movements=truth.forbidden_movements,
        compliance=truth.compliance,
        violations=truth.violations,
        steps=truth.steps,
        steps_binding=truth.steps_binding,
        steps_transformer_binding=truth.steps_transformer_binding,
        simulated_s=int(series.start_s[-1] + series.seconds[-1]) if truth.steps else 0,
        rpcs=wire.rpcs,
        stream_messages=wire.stream_messages,
        refusals=wire.refusals,
        verify_ac=verdict,
        tick_ms_p50=ticks[0],
        tick_ms_p99=ticks[1],
        wall_s=wall_s,
    )


def delivered_fraction(needed: Floats, delivered: Floats) -> Floats:
    """min(delivered, needed) / needed of each session (0-1); 1 where nothing was needed."""
    share = np.divide(np.minimum(delivered, needed), needed, out=np.ones_like(needed), where=needed > 0.0)
    return np.asarray(share, dtype=np.float64)


def worst_decile(fraction: Floats) -> float:
    """Mean of the worst tenth (at least one) of the sessions' fractions; 1 without sessions."""
    count = math.ceil(fraction.shape[0] / 10)
    return float(np.sort(fraction)[:count].mean()) if count else 1.0


def jain(fraction: Floats) -> float:
    """Jain's index of the fractions, between 1/n and 1; 1 where nobody got anything."""
    squares = float(fraction @ fraction)
    return float(fraction.sum() ** 2 / (fraction.shape[0] * squares)) if squares > 0.0 else 1.0


def _percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole > 0.0 else 100.0


def _said(served: Sequence[Served]) -> float:
    return float(sum(s.session.said_energy_kwh or 0.0 for s in served))


def as_table(summary: Summary) -> RenderableType:
    """The summary for people."""
    figures = Table(title=_title(summary), title_justify="left", show_header=False, box=None, pad_edge=False)
    for label, value in _lines(summary):
        figures.add_row(label, value)
    parts: list[RenderableType] = [figures]
    for table, rows in ((_events, summary.compliance), (_tripped, summary.trips), (_broken, summary.violations)):
        parts += ["", table(summary)] if rows else []
    return Group(*parts)


def _events(summary: Summary) -> Table:
    """What was lost, came back or tripped, and how long anything was over."""
    table = Table(title="Time to compliance", title_justify="left", box=None, pad_edge=False)
    for heading in ("event", "into the run", "over for", "most", "which stands that", "of a tolerance used"):
        table.add_column(heading, justify="left" if heading == "event" else "right")
    for one in summary.compliance:
        stands = "for ever, or no curve" if one.tolerated_s is None else f"{one.tolerated_s:.0f} s"
        cells = (f"{one.seconds:.0f} s", f"{100 * one.share:.0f} % of {one.name}", stands, f"{100 * one.used:.0f} %")
        cells = cells if one.name else ("nothing was over", "", "", "")
        table.add_row(one.event, str(timedelta(seconds=one.at_s)), *cells)
    return table


def _tripped(summary: Summary) -> Table:
    """Which devices stood an overload for as long as they can, one line each."""
    opened = any(one.opened for one in summary.trips)
    title = "Tripped" if opened else "Would have tripped (breakers open only with --trip)"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("device", "times", "at up to", "first into the run"):
        table.add_column(heading, justify="left" if heading == "device" else "right")
    for one in summary.trips[:MOST_ROWS]:
        table.add_row(one.element, str(one.times), f"{one.most_a:.0f} A", str(timedelta(seconds=round(one.first_s))))
    return _and_more(table, len(summary.trips))


def _and_more(table: Table, rows: int) -> Table:
    """The table with a last line for what it leaves out of ``rows``."""
    if rows > MOST_ROWS:
        table.add_row(f"and {rows - MOST_ROWS} more")
    return table


def _broken(summary: Summary) -> Table:
    broken = Table(title="Ratings that were broken", title_justify="left", box=None, pad_edge=False)
    for heading in ("rating", "limit", "worst", "for", "first at"):
        broken.add_column(heading, justify="left" if heading == "rating" else "right")
    for v in summary.violations[:MOST_ROWS]:
        limit, worst = f"{v.limit:.1f} {v.unit}", f"{v.worst:.1f} {v.unit}"
        broken.add_row(v.name, limit, worst, f"{v.seconds / 60:.1f} min", f"{v.first_s / 3600:.1f} h")
    return _and_more(broken, len(summary.violations))


def _title(summary: Summary) -> str:
    cap = "" if summary.cap_kw is None else f", transformers of {summary.cap_kw:g} kW"
    return f"{summary.site}{cap}: {summary.policy}, {summary.battery} batteries"


def violations_text(s: Summary) -> str:
    """How many limits were broken, and whether that is what a loss excuses."""
    if not s.limit_violations:
        return "no limit violation"
    plural, ratings = "s" if s.limit_violations > 1 else "", len(s.violations)
    count = f"{s.limit_violations} limit violation{plural} of {ratings} rating{'s' if ratings > 1 else ''}"
    if not (s.compliance and s.promise_kept):
        return count
    longest_s = max(one.seconds for one in s.compliance)
    return f"{count}, all after a loss and over in {longest_s:.0f} s ({s.overload_allowed_s:.0f} s allowed)"


def _trips(s: Summary) -> str:
    """How often devices tripped, "" = never."""
    return f", {s.breaker_trips} trip{'s' if s.breaker_trips > 1 else ''}" if s.breaker_trips else ""


def _asked(s: Summary) -> str:
    """What the drivers said, where the sessions tell it."""
    return f" (drivers had asked for {s.energy_requested_kwh:.0f} kWh)" if s.energy_requested_kwh else ""


def _lines(s: Summary) -> list[tuple[str, str]]:
    """(label, value) of every line."""
    margin = "-" if s.worst_margin_a is None else f"{s.worst_margin_a:.1f} A"
    lines = [
        ("sessions", f"{s.sessions}, {s.sessions_full_percent:.1f} % of them full"),
        ("energy delivered", f"{s.energy_delivered_kwh:.1f} of {s.energy_needed_kwh:.1f} kWh needed"),
        ("", f"{s.energy_delivered_percent:.2f} %" + _asked(s)),
        ("worst tenth of the cars", f"{100 * s.worst_decile_fraction:.1f} % of their need"),
        ("fairness (Jain)", f"{s.jain_index:.4f}"),
        ("peak", f"{s.peak_kw:.1f} kW"),
        ("smallest margin", margin),
        ("limits", violations_text(s) + _trips(s)),
        ("steps", f"{s.steps}; limits bound in {s.steps_binding}, transformers in {s.steps_transformer_binding}"),
    ]
    if s.tick_ms_p50 is not None and s.tick_ms_p99 is not None:
        lines.append(("tick", f"{s.tick_ms_p50:.1f} ms median, {s.tick_ms_p99:.1f} ms 99th percentile"))
        lines.append(("over gRPC", f"{s.rpcs} calls, {s.stream_messages} stream messages, {s.refusals} grants refused"))
    if s.verify_ac is not None:
        verdict = "passed" if s.verify_ac.passed else f"FAILED in {s.verify_ac.loads_failed}"
        lines.append(("power flow", f"{verdict}; {s.verify_ac.loads_checked} loads"))
        lines.append(("", f"worst {s.verify_ac.worst_percent:.1f} % of {s.verify_ac.worst_name}"))
    lines.append(("took", f"{s.wall_s:.0f} s for {s.simulated_s / 3600:.1f} h"))
    return lines
