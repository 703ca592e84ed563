"""The one loader: site file → drawing → faults or columns.

The cable catalogue is pandapower's; it is asked only for a site that names a cable type, because importing pandapower
takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from powerd.errors import SiteRefused, UnreadableInput
from powerd.faults import Fault, Severity
from powerd.network.admission_faults import find_admission_faults
from powerd.network.charging import find_charging_faults
from powerd.network.compile import compile_drawing
from powerd.network.drawing import Cable, Drawing, Findings
from powerd.network.electrical import Electrical
from powerd.network.imported import import_wires
from powerd.network.netfile import read_net
from powerd.network.protection import find_protection_faults
from powerd.network.ratings import find_rating_faults
from powerd.network.references import find_reference_faults
from powerd.network.standing import find_tolerance_faults
from powerd.network.topology import find_topology_faults
from powerd.network.turn_faults import find_turn_faults
from powerd.network.wires import Wires
from powerd.site.codes import Code
from powerd.site.expand import MAX_EVSES, evse_total, expand
from powerd.site.read import SiteRead, read_site
from powerd.site.schema import SiteFile

#: Errors that leave references, ratings and connections intact: columns can still be made to look for further faults.
_HARMLESS: frozenset[str] = frozenset(
    {
        Code.DUPLICATE_KEY,
        Code.UNKNOWN_KEY,
        Code.UNKNOWN_TIMEZONE,
        Code.METER_UNKNOWN_ELEMENT,
        Code.UNKNOWN_METER,
        Code.DEAD_EVSE,
        Code.PARALLEL_SUPPLIES,
        Code.INTERLOCK_BROKEN,
        Code.WRONG_CURRENT_KIND,
        Code.MINIMUM_ABOVE_MAXIMUM,
        Code.PILOT_STEP_BELOW_MINIMUM,
        Code.PILOT_STEP_ABOVE_MAXIMUM,
        Code.FALLBACK_BELOW_MINIMUM,
        Code.TTL_SHORTER_THAN_REACTION,
        Code.WORST_BELOW_TYPICAL,
        Code.ENVELOPE_ABOVE_IMPORT,
        Code.ENVELOPE_WITHOUT_IMPORT,
    }
)

#: Lists that an imported net adds to.
_WIRED = ("buses", "supplies", "transformers", "feeders", "switches", "loads")


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedSite:
    """A site file after everything that can be said about it without running it."""

    path: Path
    """The site file itself."""
    electrical: Electrical | None
    """The drawing as columns; None where a fault of severity error was found."""
    site: SiteFile | None
    """The file's elements and those of the imported net, without what could not be understood."""
    faults: tuple[Fault, ...]
    """Every fault, errors and warnings, sorted by file and line."""

    @property
    def errors(self) -> tuple[Fault, ...]:
        """The faults that keep the site from running."""
        return tuple(fault for fault in self.faults if fault.severity is Severity.ERROR)

    def must(self) -> Electrical:
        """The columns of a site that has to be in order.

        Raises:
            SiteRefused: it has faults of severity error.
        """
        if self.electrical is None:
            raise SiteRefused(self.errors)
        return self.electrical


def load_site(path: Path) -> LoadedSite:
    """Load a site file (or the ``site.yaml`` in a folder), reporting all faults in one pass.

    Raises:
        UnreadableInput: the file cannot be read at all.
    """
    read = read_site(path)
    if read.file is None:
        return LoadedSite(path=read.path, electrical=None, site=None, faults=read.faults)
    findings = Findings(name=read.name, place=read.place, faults=list(read.faults))
    drawing = _draw(read, read.file, findings)
    clouded = frozenset(fault.element for fault in read.faults)
    find_reference_faults(drawing, findings)
    find_rating_faults(drawing, findings, clouded)
    find_protection_faults(drawing.site, findings, clouded)
    find_charging_faults(drawing, findings, clouded)
    find_topology_faults(drawing, findings)
    electrical = compile_drawing(drawing) if _can_compile(drawing, findings) else None
    if electrical is not None:
        files = tuple(str(read.path.parent / name) for name in electrical.term_files)
        electrical = replace(electrical, term_files=files)
    if electrical is not None:
        find_admission_faults(drawing, electrical, findings)
        find_tolerance_faults(drawing, electrical, findings)
        find_turn_faults(drawing, electrical, findings)
    faults = tuple(sorted(set(findings.faults)))
    if any(fault.severity is Severity.ERROR for fault in faults):
        electrical = None
    return LoadedSite(path=read.path, electrical=electrical, site=drawing.site, faults=faults)


def _can_compile(drawing: Drawing, findings: Findings) -> bool:
    """Whether the drawing is whole enough to add up what charges without powerd's word, other faults or not."""
    errors = {fault.code for fault in findings.faults if fault.severity is Severity.ERROR}
    return drawing.removed.whole and drawing.net_is_read and errors <= _HARMLESS


def _draw(read: SiteRead, site: SiteFile, findings: Findings) -> Drawing:
    """Write groups out and join the imported net, if there is one."""
    total = evse_total(site)
    if total > MAX_EVSES:
        message, mend = f"{total} EVSEs", f"split the site; one daemon takes {MAX_EVSES}"
        findings.add(Code.TOO_MANY_EVSES, ("station_groups",), site.site, message, mend)
    evses = tuple(expand(site)) if total <= MAX_EVSES else ()
    own = {section: len(getattr(site, section)) for section in _WIRED} | {"network": 0}
    findings.own = own
    wires = _wires(read, site, findings)
    joined = wires or Wires()
    added = {section: [*getattr(site, section), *getattr(joined, section)] for section in _WIRED}
    return Drawing(
        site=site.model_copy(update=added),
        evses=evses,
        own=own,
        removed=read.removed,
        net_is_read=wires is not None,
        cable=standard_cable,
        auxiliary_buses=frozenset(joined.auxiliary),
    )


def _wires(read: SiteRead, site: SiteFile, findings: Findings) -> Wires | None:
    """Elements of the imported net, if there is one; None where there is one that cannot be read."""
    if site.network is None:
        for index, bus in enumerate(site.buses):
            if bus.net_bus is not None:
                message, mend = "net_bus is given, but the site has no network:", "remove it, or add network: net.json"
                findings.add(Code.NET_NOT_GIVEN, ("buses", index, "net_bus"), bus.id, message, mend)
        return Wires()
    path = read.path.parent / site.network
    findings.net_name = str(path)
    if not path.is_file():
        mend = "write the file's name relative to this file, or remove the line"
        findings.add(Code.NET_FILE_MISSING, ("network",), site.site, f"there is no file {path}", mend)
        return None
    try:
        net = read_net(path, str(path))
    except UnreadableInput as error:
        mend = "save the net with pandapower.to_json(net, file)"
        findings.add(Code.NET_FILE_UNREADABLE, ("network",), site.site, str(error), mend)
        return None
    return import_wires(net, site, findings)


def standard_cable(name: str) -> Cable | None:
    """A line type of pandapower's catalogue (3.5: ``basic_line_std_types``, from manufacturers' tables)."""
    return _catalogue().get(name)


@cache
def _catalogue() -> dict[str, Cable]:
    from pandapower.std_types import basic_line_std_types

    return {
        name: Cable(
            r_ohm_per_km=float(kind["r_ohm_per_km"]),
            x_ohm_per_km=float(kind["x_ohm_per_km"]),
            c_nf_per_km=float(kind["c_nf_per_km"]),
            ampacity_a=float(kind["max_i_ka"]) * 1000,
        )
        for name, kind in basic_line_std_types().items()
    }
