"""What is wrong with the place of a journal, and what mends it: SQLite says what failed, the folder often says why."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

AWAY = "move the file away to start without state (raises then wait for old leases to end)"
"""The last resort: only where the file itself is no good."""


def told(path: Path, error: apsw.Error) -> str:
    """The file, SQLite's words for it, and the mend.

    Told is what came first: SQLite rolls a transaction back by itself where the disk is full, and that none is left to
    be rolled back then hides it (https://www.sqlite.org/lang_transaction.html, 4.1).
    """
    while isinstance(error.__context__, apsw.Error):
        error = error.__context__
    try:
        mend = _mend(path, error)
    except OSError as silent:
        mend = f"the disk of {path.parent} does not answer ({silent.strerror}): mend it, or name another with --journal"
    return f"{path}: {_why(error)}; {mend}"


def _why(error: apsw.Error) -> str:
    """SQLite's words, with its own name for it where it has one."""
    said = str(error) or type(error).__name__
    name = apsw.mapping_extended_result_codes.get(getattr(error, "extendedresult", 0))
    return said if name is None else f"{said} ({name})"


def _mend(path: Path, error: apsw.Error) -> str:
    """What to do so that the file can be written, its content kept where there is any."""
    folder = path.parent
    other = "name a place on another disk with --journal, this file and its -wal copied there"
    if not folder.is_dir():
        return f"there is no folder {folder}: make it, or name another place with --journal"
    if path.is_dir():
        return "this is a folder: name a file in it with --journal"
    if isinstance(error, apsw.ReadOnlyError) or os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"the file system of {folder} is read-only: mount it for writing, or {other}"
    if not os.access(folder, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.R_OK | os.W_OK)):
        return f"the daemon's user may not write there: give it {folder} and the files in it, or {other}"
    if isinstance(error, apsw.FullError):
        return f"free space on the disk of {folder}, or {other}"
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return AWAY
    return f"see whether the disk of {folder} is sound, and {other}; if it is, {AWAY}"
