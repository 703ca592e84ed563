"""Many plays one after the other, on some processes, and a file that remembers them.

A run that is cut off is taken up where it was: what the file has is not played again, and all of it counts.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from powerd.errors import UnreadableInput

Asked = TypeVar("Asked")
Told = TypeVar("Told")

_play: Callable[[Any], Any] | None = None  # of this process; a forked one inherits it with the site that it holds


def played(todo: Sequence[Asked], play: Callable[[Asked], Told], *, jobs: int) -> Iterator[Told]:
    """``play`` of each, in order, on ``jobs`` processes: each inherits what ``play`` holds, nothing is built twice."""
    global _play  # noqa: PLW0603 - what is inherited has to be found by name
    if jobs == 1 or len(todo) < 2:
        yield from map(play, todo)
        return
    _play = play
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        yield from pool.map(_inherited, todo, chunksize=1)


def _inherited(asked: Any) -> Any:
    if _play is None:
        raise RuntimeError("nothing to play was inherited")
    return _play(asked)


class Results:
    """Rows as JSON lines, lists read as tuples; the first line says of what they are. Without a path: no memory."""

    def __init__(self, path: Path | None, of: dict[str, Any]) -> None:
        """Reads what is there.

        Raises:
            UnreadableInput: the file holds something else.
        """
        self.rows: list[dict[str, Any]] = []
        self._path = path
        if path is None:
            return
        if not path.exists() or path.stat().st_size == 0:
            path.write_text(json.dumps(of) + "\n", encoding="utf-8")
            return
        try:
            header, *rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        except ValueError as error:
            raise UnreadableInput(f"{path}: is not a file of results ({error}); name another one") from None
        if header != of:
            raise UnreadableInput(f"{path}: holds results of {header}, not of {of}; name another file")
        self.rows = [
            {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()} for row in rows
        ]

    def add(self, row: dict[str, Any]) -> None:
        """One more."""
        self.rows.append(row)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
