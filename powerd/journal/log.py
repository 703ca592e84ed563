"""The write-ahead log's place on the disk, taken once: a commit that makes a file grow writes of its growth as well."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def lay_out(log: Path, size: int) -> None:
    """Fills a log up to ``size`` bytes with zeros; what it holds stays.

    SQLite reads no further than the last frame with its log's salts (sqlite.org/fileformat2.html, 4.2), and writes over
    the rest. Where there is no room for it the log grows with the commits, and they tell what a full disk means.
    """
    with contextlib.suppress(OSError):
        file = os.open(log, os.O_WRONLY)
        try:
            held = os.fstat(file).st_size
            if held < size:
                if os.pwrite(file, bytes(size - held), held) < size - held:
                    os.ftruncate(file, held)  # that was all the room there is, and others write there, too
                os.fsync(file)
        finally:
            os.close(file)
