"""Read a site file: text → plain data → shape; every fault with its line, all in one pass."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from pathlib import Path

from powerd.errors import UnreadableInput
from powerd.faults import Fault
from powerd.site.codes import Code
from powerd.site.schema import SiteFile
from powerd.site.shape import Removed, element_at, validate
from powerd.site.tree import Place, Tree, parse

#: A site file is written by people; 5 000 stations written out in full are 1 MB.
MAX_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class SiteRead:
    """A site file as read, as far as it could be understood."""

    path: Path
    """The file itself, also where a folder was named."""
    name: str
    """The file as the user named it; what faults print."""
    file: SiteFile | None
    """The site without its faulty parts; None where nothing is left."""
    faults: tuple[Fault, ...]
    """Faults of shape, sorted by line."""
    place: Place
    """Line of every value in ``file``: ``place.at("feeders", 3, "length_m")``."""
    removed: Removed
    """What had to be left out of ``file``."""


def site_path(path: Path) -> Path:
    """The site file that ``path`` means: itself, or ``site.yaml`` in that folder."""
    return path / "site.yaml" if path.is_dir() else path


def read_site(path: Path) -> SiteRead:
    """Read ``path``, a site file or a folder with a ``site.yaml``.

    Raises:
        UnreadableInput: no such file, not UTF-8, not YAML, not a mapping.
    """
    path = site_path(path)
    name = str(path)
    tree = parse(read_text(path, name), name)
    if tree.value is None:
        raise UnreadableInput(f"{name}:1: nothing is written in it; begin with 'site: NAME', see docs/site-file.md")
    if not isinstance(tree.value, dict):
        raise UnreadableInput(f"{name}:1: a site file starts with keys such as 'site:'; see docs/site-file.md")
    faults = _repeated(tree, name)
    file, wrong, removed = validate(tree, name)
    faults += wrong
    if file is not None:
        faults += _timezone(file, tree.place, name)
    return SiteRead(path=path, name=name, file=file, faults=tuple(sorted(faults)), place=tree.place, removed=removed)


def read_text(path: Path, name: str) -> str:
    """The text of ``path``, UTF-8.

    Raises:
        UnreadableInput: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UnreadableInput(f"{name}: cannot be read: {reason}; name a site file or its folder") from error
    if len(data) > MAX_BYTES:
        raise UnreadableInput(f"{name}: larger than {MAX_BYTES // 1024 // 1024} MB; use station_groups")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UnreadableInput(f"{name}:{line}: not UTF-8; save the file as UTF-8") from error


def _repeated(tree: Tree, name: str) -> list[Fault]:
    return [
        Fault(
            file=name,
            line=line,
            code=Code.DUPLICATE_KEY,
            element=element_at(tree.value, path[:-1]),
            message=f"{path[-1]} is written twice",
            mend="remove one of them",
        )
        for path, line in tree.repeated
    ]


def _timezone(file: SiteFile, place: Place, name: str) -> list[Fault]:
    try:
        zoneinfo.ZoneInfo(file.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return [
            Fault(
                file=name,
                line=place.at("timezone"),
                code=Code.UNKNOWN_TIMEZONE,
                element=file.site,
                message=f"there is no time zone {file.timezone}",
                mend="write an IANA name such as Europe/Berlin or America/Los_Angeles",
            )
        ]
    return []
