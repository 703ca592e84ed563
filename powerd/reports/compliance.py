"""What became of each envelope, from the decisions of a replay: the grid operator's proof.

All figures are of what *could* have been imported: W, other loads and losses at full load, as in the tick itself.
Durations are counted on the boottime clock: the wall clock, which may be stepped, is for display alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from powerd.control.decision import Decision
from powerd.network.electrical import least_import_kw
from powerd.state import leases
from powerd.state.envelopes import Envelope, is_silent
from powerd.units import Now


@dataclass(kw_only=True)
class Course:
    """An envelope as it was said once, while it held without a break; instants are POSIX seconds."""

    envelope_id: str
    """Its id."""
    source: str
    """Who said so."""
    import_limit_kw: float
    """What it allowed [kW]."""
    guaranteed: bool
    """The site file promises to keep it."""
    allowed_s: float = 0.0
    """How long that may take: until the longest lease has ended, cars as slow as they were seen to be [s]."""
    anew_s: float = 0.0
    """For how long it had held when powerd began the last time, or the record did: from then on that counts [s]."""
    in_force_s: float
    """Since when."""
    last_s: float
    """The last tick in which it held."""
    kept_s: float | None = None
    """When it was first kept; None = not while it held."""
    held_s: float = 0.0
    """For how long it had held in that tick [s]."""
    tick_s: float = 0.0
    """How much of it is since the tick before [s]."""
    complied_s: float | None = None
    """After how long it was first kept [s]; None = not while it held."""
    most_kw: float = 0.0
    """Most that could have been imported from then on [kW]."""
    lapsed_s: float = 0.0
    """For how long it was not kept from then on [s]: because its source fell silent, or because more was asked."""
    silent: bool = False
    """Its source did not speak in time."""

    @property
    def broken(self) -> bool:
        """It is guaranteed, had held for longer than it may take one tick ago already, and was never kept."""
        return self.guaranteed and self.complied_s is None and self.held_s - self.tick_s > self.allowed_s

    def as_json(self) -> dict[str, object]:
        """For ``--json``; instants are RFC 3339."""
        return {
            "envelope_id": self.envelope_id,
            "source": self.source,
            "import_limit_kw": self.import_limit_kw,
            "guaranteed": self.guaranteed,
            "broken": self.broken,
            "in_force_since": _instant(self.in_force_s),
            "in_force_until": _instant(self.last_s),
            "kept_since": None if self.kept_s is None else _instant(self.kept_s),
            "complied_s": self.complied_s,
            "worst_import_kw": None if self.kept_s is None else self.most_kw,
            "lapsed_s": self.lapsed_s,
            "silent": self.silent,
        }

    def sentence(self) -> str:
        """The same for people."""
        held = f"in force {_instant(self.in_force_s)} to {_instant(self.last_s)}"
        kept = f"never kept in {self.held_s:.1f} s"
        if self.guaranteed:
            kept += (
                f": BROKEN, {self.allowed_s:.1f} s are allowed"
                if self.broken
                else f" of {self.allowed_s:.1f} s allowed"
            )
        if self.complied_s is not None:
            kept = f"kept after {self.complied_s:.1f} s, from then on at most {self.most_kw:.4g} kW could be imported"
        if self.lapsed_s > 0:
            kept += f", for {self.lapsed_s:.1f} s it was not kept"
        silent = "; its source fell silent" if self.silent else ""
        return f"{self.envelope_id} of {self.source}: {self.import_limit_kw:g} kW {held}, {kept}{silent}"


@dataclass
class Compliance:
    """Sees the decisions of a replay one after the other."""

    _courses: list[Course] = field(default_factory=list)
    _running: dict[tuple[object, ...], Course] = field(default_factory=dict)
    """Those that held in the tick before."""
    _before: Decision | None = None

    def see(self, decision: Decision) -> None:
        """One more tick."""
        passed_s = 0.0 if self._before is None else _between_s(self._before, decision)
        led = decision.snapshot.leases.epoch
        starts = self._before is not None and self._before.snapshot.leases.epoch != led
        self._before = decision
        site = decision.site
        imported_kw = site.imported_kw(site.limits.limit_flow(decision.worst) + decision.uncontrolled)
        running = {}
        for one in decision.snapshot.envelopes:
            if one.in_force_utc_s is not None:
                course = self._running.get(_said(one))
                if course is None:
                    course = _begun(one, one.in_force_utc_s, decision)
                    self._courses.append(course)
                else:
                    course.held_s += passed_s
                    course.tick_s = passed_s
                if starts:
                    course.anew_s = course.held_s
                course.allowed_s = max(course.allowed_s, course.anew_s + _longest_s(decision))
                running[_said(one)] = course
                course.silent |= is_silent(one, decision.now)
                _count(course, one, imported_kw, passed_s, decision.now)
        self._running = running

    def courses(self) -> Iterator[Course]:
        """All that held, in the order in which they came into force."""
        yield from self._courses


def _between_s(before: Decision, after: Decision) -> float:
    """Time from one tick to the next [s]; over another boot of the machine the wall clock alone can tell."""
    passed_s = after.now.boottime_s - before.now.boottime_s
    if before.snapshot.boot == after.snapshot.boot and passed_s >= 0.0:
        return passed_s
    return max(0.0, (after.now.utc - before.now.utc).total_seconds())


def _said(one: Envelope) -> tuple[object, ...]:
    """Who changes one of these sets another envelope by the same id; set anew it holds since another instant."""
    said = one.envelope_id, one.source, one.import_limit_kw, one.start_utc_s, one.end_utc_s, one.heartbeat_s
    return *said, one.in_force_utc_s


def _begun(one: Envelope, in_force_s: float, decision: Decision) -> Course:
    """A course as its first tick finds it; that may be the record's first, in which it had begun before."""
    held_s = max(0.0, decision.now.utc.timestamp() - in_force_s)
    return Course(
        envelope_id=one.envelope_id,
        source=one.source,
        import_limit_kw=one.import_limit_kw,
        guaranteed=one.import_limit_kw >= least_import_kw(decision.site.electrical),
        in_force_s=in_force_s,
        last_s=in_force_s,
        held_s=held_s,
        anew_s=held_s,
    )


def _longest_s(decision: Decision) -> float:
    """How long until the longest lease has ended, if nothing is heard from now on [s]; those without end left out.

    A car that was seen to lag moves the ends of its own; after a restart those of before are held for a whole life.
    """
    book, terms = decision.snapshot.leases, decision.site.terms
    left_s = np.maximum(leases.life_of(book, terms), leases.last_end_s(book) - decision.now.boottime_s)
    left_s += leases.slack_s(book, terms)
    return float(np.max(left_s, where=np.isfinite(left_s), initial=0.0))


def _count(course: Course, one: Envelope, imported_kw: float, passed_s: float, now: Now) -> None:
    """What one tick tells of it."""
    course.last_s = now.utc.timestamp()
    if course.kept_s is None and one.kept_utc_s is not None:
        course.kept_s = one.kept_utc_s
        course.complied_s = max(0.0, course.held_s - (course.last_s - one.kept_utc_s))  # kept before the record began
    if course.kept_s is not None:
        course.most_kw = max(course.most_kw, imported_kw)
        course.lapsed_s += passed_s if one.kept_utc_s is None else 0.0


def _instant(utc_s: float) -> str:
    return datetime.fromtimestamp(utc_s, UTC).isoformat(timespec="milliseconds")
