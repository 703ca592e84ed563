"""What a run stands on: the drawing (capped if so told), its limits, the truth of its wires, and the sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from powerd.errors import UnreadableInput
from powerd.limits import Floats, Limits
from powerd.network.capped import cap_transformers
from powerd.network.curves import Edge
from powerd.network.electrical import BranchKind, Electrical
from powerd.network.load import load_site
from powerd.network.rows import build_rows
from powerd.network.supply import normal_positions
from powerd.sim.breakers import Breakers
from powerd.sim.grid import Grid, Incident
from powerd.sim.incidents import Clocked, full_house
from powerd.sim.plant import Plant
from powerd.sim.sessions import RecordedSession, read_sessions, select
from powerd.sim.switches import Gear, Transfer, transfers_of
from powerd.sim.wires import Survey, Wires, as_drawn


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Everything that does not change during a run."""

    site: Path
    """Site file or folder, as named by the user."""
    electrical: Electrical
    """The drawing as columns, with the cap."""
    cap_kw: float | None
    """The cap, if there is one [kW]."""
    transformer_kva: float
    """All transformers in service together, with the cap [kVA]; 0 = none."""
    timezone: ZoneInfo
    """Of the site."""
    limits: Limits
    """The limit rows that policies plan with."""
    allowed: Floats
    """(L,) what they leave to the EVSEs after the uncontrolled loads' worst case [limit unit]."""
    survey: Survey
    """The truth in any switching state."""
    wires: Wires
    """The truth in the normal one."""
    transfers: tuple[Transfer, ...]
    """Switches that move by themselves."""
    sessions: tuple[RecordedSession, ...]
    """The stays to replay, by arrival; at least one."""

    def plant(self, incidents: Sequence[Incident] = (), *, edge: Edge = Edge.EARLIEST, acts: bool = False) -> Plant:
        """Fresh books for one run.

        Args:
            incidents: what is lost and comes back.
            edge: when breakers trip.
            acts: a breaker that trips opens; otherwise it is only counted.
        """
        gear = Gear(self.electrical, self.transfers)
        grid = Grid(self.survey, gear, Breakers(self.electrical, edge), incidents, acts=acts)
        return Plant(self.wires, self.limits, self.allowed, grid)


def set_scene(
    *,
    site: Path,
    sessions: Path | None,
    first: date | None,
    days: int | None,
    cap_kw: float | None,
    seed: int,
    clocked: Sequence[Clocked] = (),
) -> Scene:
    """Reads site and sessions and compiles both.

    Args:
        site: site file or folder.
        sessions: file of recorded sessions; None = a full house around ``clocked``.
        first: first day of arrival; None = the file's first.
        days: how many days; None = to the end of the file.
        cap_kw: transformer size to run with, or None.
        seed: settles what the drawing leaves open.
        clocked: what is lost and comes back.

    Raises:
        UnreadableInput: a file cannot be read, or no session of it fits the site or the days.
        SiteRefused: the site has faults.
        PowerdError: the site cannot be simulated or capped.
    """
    loaded = load_site(site)
    electrical = loaded.must() if cap_kw is None else cap_transformers(loaded, cap_kw)
    timezone = ZoneInfo(loaded.site.timezone if loaded.site is not None else "UTC")
    if sessions is not None:
        recorded = select(read_sessions(sessions), first, days)
        _fits(recorded, sessions, electrical, first)
    elif clocked:
        recorded = full_house(electrical, clocked, timezone, seed)
    else:
        raise UnreadableInput("name recorded --sessions, or with --trip what is lost in a full house")
    rows = build_rows(electrical, normal_positions(electrical))
    uncontrolled: Floats = rows.load_share @ electrical.loads.worst_kw
    nameplate = electrical.impedances.rated_kva[
        (electrical.branches.kind == BranchKind.TRANSFORMER) & electrical.branches.in_service
    ]
    survey = Survey(electrical, np.random.default_rng(seed))
    return Scene(
        site=site,
        electrical=electrical,
        cap_kw=cap_kw,
        transformer_kva=float(nameplate.sum()) if cap_kw is None else cap_kw,
        timezone=timezone,
        limits=rows.limits,
        allowed=np.maximum(rows.limits.capacity - uncontrolled, 0.0),
        survey=survey,
        wires=survey.wires(as_drawn(electrical)),
        transfers=transfers_of(loaded.site, electrical),
        sessions=recorded,
    )


def _fits(recorded: Sequence[RecordedSession], sessions: Path, electrical: Electrical, first: date | None) -> None:
    if not recorded:
        since = "" if first is None else f" that arrived on or after {first} within the days asked for"
        raise UnreadableInput(f"{sessions}: has no session{since}; change --from and --days")
    known = frozenset(electrical.posts.ids)
    for session in recorded:
        if session.evse_id not in known:
            raise UnreadableInput(
                f"{sessions}: session {session.session_id} is at EVSE {session.evse_id}, which {electrical.site_id} "
                f"does not have (it has {', '.join(sorted(known)[:3])}, ...); name the site where they were recorded"
            )
