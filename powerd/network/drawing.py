"""The drawing before it becomes columns: the user's elements, those of an imported net, and where each is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from powerd.faults import Fault, Severity
from powerd.site.codes import Code
from powerd.site.expand import DrawnEvse
from powerd.site.schema import SiteFile
from powerd.site.shape import Removed
from powerd.site.tree import Path, Place


@dataclass(frozen=True, kw_only=True)
class Cable:
    """A line type of the catalogue, per kilometre of one conductor set."""

    r_ohm_per_km: float
    """Resistance [ohm/km]."""
    x_ohm_per_km: float
    """Reactance [ohm/km]."""
    c_nf_per_km: float
    """Capacitance [nF/km]."""
    ampacity_a: float
    """Current-carrying capacity [A]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """All elements in one place; whatever came from an imported net stands behind the user's own in each list."""

    site: SiteFile
    """The user's elements and the imported ones."""
    evses: tuple[DrawnEvse, ...]
    """Every EVSE, groups written out."""
    own: dict[str, int]
    """How many elements of each list are the user's."""
    removed: Removed
    """What could not be understood, and is therefore not in ``site``."""
    net_is_read: bool
    """False where the imported net could not be read: what refers to it cannot be judged."""
    cable: Callable[[str], Cable | None]
    """The catalogue: a cable type by name; None where there is none of that name."""
    auxiliary_buses: frozenset[str] = frozenset()
    """Ids of buses between a line and its switch; nobody can hang anything on them."""


@dataclass(kw_only=True)
class Findings:
    """Collects faults and knows where everything is written."""

    name: str
    """The site file as the user named it."""
    place: Place
    """Lines of the site file."""
    net_name: str = ""
    """The imported net's file."""
    own: dict[str, int] = field(default_factory=dict)
    """How many elements of each list are the user's."""
    faults: list[Fault] = field(default_factory=list)
    """What was found so far."""

    def add(
        self,
        code: Code,
        path: Path,
        element: str,
        message: str,
        mend: str,
        severity: Severity = Severity.ERROR,
    ) -> None:
        """Note a fault at ``path`` of the site file (of the imported net, where the path leads there)."""
        imported = len(path) > 1 and isinstance(path[1], int) and path[1] >= self.own.get(str(path[0]), path[1] + 1)
        self.faults.append(
            Fault(
                file=self.net_name if imported else self.name,
                line=1 if imported else self.place.at(*path),
                code=code,
                element=element,
                message=message,
                mend=mend,
                severity=severity,
            )
        )
