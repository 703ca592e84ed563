"""``kernel``: how the house compiles its loops with numba.

``cache=True`` keeps the machine code beside the source, so that only the first start of an installation compiles;
``nogil=True`` lets the guard-only step run while a solve is under way; fast-math stays off, because the guard's NaN
handling and the certificates need IEEE semantics.

numba (0.68) drops cached code when the *file of the function* changes, but not when a kernel it calls in another file
does, or a constant there: what was mended would go on running in its old, inlined form. So the stamp of every cached
kernel is a digest of its module and of all that this imports of ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy.typing as npt
from numba.core.registry import cpu_target

P = ParamSpec("P")
R = TypeVar("R")
Column = TypeVar("Column", bound=npt.NDArray[Any])


HOUSE = Path(__file__).parent
"""Where our sources are."""

_IMPORTED = re.compile(rf"^ *(?:from|import) {HOUSE.name}\.([\w.]+)", re.MULTILINE)


@cache
def _text_of(source: Path) -> bytes:
    """As it was when first asked for."""
    return source.read_bytes()


@cache
def _imported_by(source: Path) -> frozenset[Path]:
    """Our modules that this one imports; of a package all, for any of them may be meant."""
    places = {HOUSE.joinpath(*name.split(".")) for name in _IMPORTED.findall(_text_of(source).decode())}
    files = (place.glob("*.py") if place.is_dir() else [place.with_suffix(".py")] for place in places)
    return frozenset(itertools.chain.from_iterable(files))


@cache
def digest_of(source: Path) -> str:
    """Digest of a module and of all that it imports of ours, directly or not, by name and content."""
    found, todo = {source}, [source]
    while todo:
        new = set(_imported_by(todo.pop())) - found
        found |= new
        todo += new
    digest = hashlib.sha256()
    for one in sorted(found):
        digest.update(str(one.relative_to(HOUSE) if one.is_relative_to(HOUSE) else one.name).encode())
        digest.update(_text_of(one))
    return digest.hexdigest()


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` lazily, with its types kept for the type checker."""
    dispatcher: Any = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    stamp = digest_of(Path(function.__code__.co_filename))
    dispatcher._cache._cache_file._source_stamp = stamp  # noqa: SLF001 numba has no public way
    return cast(Callable[P, R], dispatcher)


def read(column: Column) -> Column:
    """The column, or a view of it, that is read-only, for loops that only read it.

    numba compiles anew for each other kind of array.
    """
    if not column.flags.writeable:
        return column
    view = column.view()
    view.setflags(write=False)
    return view


def load_types() -> None:
    """Loads what numba must know before it can load the first kernel, without what no kernel of ours uses.

    To know whether there is a BLAS numba imports the whole of ``scipy.linalg``, and for C types the parser of ``cffi``:
    a third of the time (0.2 of 0.6 s). In a process that calls this no kernel can multiply matrices or call C.
    """
    with _hidden("scipy.linalg", "cffi"):
        cpu_target.typing_context.refresh()
        cpu_target.target_context.refresh()


@contextlib.contextmanager
def _hidden(*modules: str) -> Iterator[None]:
    """To import one of these fails meanwhile, unless that has been done before."""
    absent: dict[str, Any] = dict.fromkeys(set(modules) - sys.modules.keys())
    sys.modules.update(absent)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
