"""A disk under SQLite that the test fills, and whose reads and syncs it counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import apsw


class Disk(apsw.VFS):
    """The usual one, but for what it is told."""

    def __init__(self, name: str) -> None:
        self.full = False
        """It takes nothing more."""
        self.synced: list[str] = []
        """Files that were made durable, by the ends of their names, in order."""
        self.read_bytes = 0
        """So much was read from it."""
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  SQLite's name
        """A file on it."""
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        super().__init__("", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802  SQLite's name
        self._disk.read_bytes += amount
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  SQLite's name
        if self._disk.full:
            raise apsw.FullError("database or disk is full")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802  SQLite's name
        self._disk.synced.append("wal" if self._name.endswith("-wal") else "file")
        super().xSync(flags)


@contextmanager
def disk(name: str) -> Iterator[Disk]:
    """One that SQLite knows by its name meanwhile."""
    own = Disk(name)
    try:
        yield own
    finally:
        own.unregister()
