"""``kernel``: how the house compiles its loops with numba.

``cache=True`` keeps the machine code beside the source, so that only the first start of an installation compiles;
``nogil=True`` lets the guard-only step run while a solve is under way; fast-math stays off, because the guard's NaN
handling and the certificates need IEEE semantics.

numba (0.68) drops cached code when the *file of the function* changes, but not when a kernel it calls in another file
does: a mended callee would go on running in its old, inlined form. So the stamp of every cached kernel is a digest of
all sources of its room; a kernel calls none of another room.
"""

from __future__ import annotations

import contextlib
import hashlib
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


@cache
def digest_of(folder: Path) -> str:
    """Digest of all Python sources of a folder, by name and content, as they were when first asked for."""
    digest = hashlib.sha256()
    for source in sorted(folder.glob("*.py")):
        digest.update(source.name.encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` lazily, with its types kept for the type checker."""
    dispatcher: Any = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    stamp = digest_of(Path(function.__code__.co_filename).parent)
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
