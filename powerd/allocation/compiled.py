"""``kernel``: how this room compiles its loops with numba.

``cache=True`` keeps the machine code beside the source, so that only the first start of an installation compiles;
``nogil=True`` lets the guard-only step run while a solve is under way; fast-math stays off, because the guard's NaN
handling and the certificates need IEEE semantics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` lazily, with its types kept for the type checker."""
    return cast(Callable[P, R], numba.njit(cache=True, nogil=True, error_model="numpy")(function))
