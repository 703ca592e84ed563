"""A faultless site's columns, kept on the disk between starts: reading a thousand posts takes longer than a restart.

What is kept answers one question alone: these very files, this cap, these sources of powerd, this cable catalogue
(SHA-256 over all of them). Any other, or a byte that is wrong, and the site is loaded from its files as ever. Like
numba's machine code it may be deleted at any time; and like that it lies where only its owner can write.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from powerd.codec import Unreadable, classes_of, decode, encode
from powerd.compiled import digest_of
from powerd.network.electrical import Electrical

SITES_KEPT = 32
"""Older ones are deleted."""
_DIGEST_BYTES = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """One file of the folder, after its digest."""

    sources: str
    """Digest of what made it."""
    files: tuple[tuple[str, str], ...]
    """Path and digest of every file that it was made from."""
    electrical: Electrical
    """The columns."""


_CLASSES = classes_of(Kept)


def cache_folder() -> Path | None:
    """Where sites are kept, made if missing: ``powerd`` in the user's cache; None where there is no safe place."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "powerd"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except (OSError, RuntimeError):  # no home, or none that can be written
        return None
    return folder if status.st_uid == os.geteuid() and not status.st_mode & 0o022 else None


def load_electrical(path: Path, cap_kw: float | None, folder: Path | None) -> Electrical:
    """The columns of a site that has to be in order, its transformers capped where ``cap_kw`` says so.

    Args:
        path: site file or its folder.
        cap_kw: see ``cap_transformers``; None = as drawn.
        folder: where columns are kept; None = nowhere.

    Raises:
        UnreadableInput: the site file cannot be read.
        SiteRefused: it has faults.
        PowerdError: the cap makes no sense.
    """
    place = None if folder is None else folder / f"{_digest(f'{path}|{path.resolve()}|{cap_kw}'.encode())}.site"
    found = None if place is None else _read(place)
    return _load(path, cap_kw, place) if found is None else found


def _load(path: Path, cap_kw: float | None, place: Path | None) -> Electrical:
    """From the files; what reads them is imported only here, since a warm start does not need it."""
    from powerd.network.capped import cap_transformers
    from powerd.network.load import load_site

    loaded = load_site(path)
    electrical = loaded.must() if cap_kw is None else cap_transformers(loaded, cap_kw)
    if place is not None:
        imported = () if loaded.site is None or loaded.site.network is None else (loaded.site.network,)
        files = (loaded.path, *(loaded.path.parent / name for name in imported))
        with contextlib.suppress(OSError):  # a full disk keeps nothing
            digests = tuple((str(file), _digest(file.read_bytes())) for file in files)
            _write(place, Kept(sources=_sources(), files=digests, electrical=electrical))
    return electrical


def _read(place: Path) -> Electrical | None:
    """The columns kept at ``place``, None where there are none or they no longer hold."""
    try:
        data = place.read_bytes()
        if hashlib.sha256(data[_DIGEST_BYTES:]).digest() != data[:_DIGEST_BYTES]:
            return None
        kept: Kept = decode(data[_DIGEST_BYTES:], _CLASSES)
        fresh = kept.sources == _sources() and all(_digest(Path(f).read_bytes()) == own for f, own in kept.files)
    except (OSError, Unreadable):
        return None
    return kept.electrical if fresh else None


def _write(place: Path, kept: Kept) -> None:
    """Puts it there whole or not at all, and deletes what has not been written for longest."""
    data = encode(kept)
    with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".part", delete=False) as part:
        part.write(hashlib.sha256(data).digest() + data)
    Path(part.name).replace(place)
    oldest = sorted(place.parent.glob("*.site"), key=lambda own: own.stat().st_mtime)[:-SITES_KEPT]
    for own in oldest:
        own.unlink(missing_ok=True)


def _sources() -> str:
    """Digest of every source between a site file and its columns, and of the catalogue of cables."""
    return _digest("|".join([version("pandapower"), digest_of(Path(__file__).with_name("load.py"))]).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
