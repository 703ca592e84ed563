"""Where somebody else's program runs: whatever it raises becomes one error, with the file and the line."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from types import TracebackType

from powerd.errors import PowerdError, UnreadableInput


class UserCode:
    """``with UserCode(files, "terms(site) fails"):`` around all that runs a user's file, or what it gave to cvxpy.

    A user's file may raise anything, cvxpy raises bare Exceptions, and ``sys.exit`` or a panic in Clarabel (pyo3 0.2x:
    PanicException) are not even Exceptions. So no list of names is long enough. This is the one place that takes all
    of them, and it turns them into an error that powerd knows; only Ctrl-C and powerd's own errors pass as they are.

    Args:
        files: the users' files, as their code calls itself.
        what: what fails, for the message.
        place: where, if the error came through no line of the files; "" = in one of them.
    """

    def __init__(self, files: Sequence[str], what: str, place: str = "") -> None:
        self._files, self._what, self._place = tuple(files), what, place or ", ".join(files)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, (KeyboardInterrupt, PowerdError)):
            return
        told = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
        raise UnreadableInput(f"{_line_of(error, self._files) or self._place}: {self._what}: {told}") from error


def _line_of(error: BaseException, files: tuple[str, ...]) -> str:
    """The innermost line of the users' files that the error came through; "" = through none."""
    if isinstance(error, SyntaxError) and error.filename in files and error.lineno:
        return f"{error.filename}:{error.lineno}"
    # A StopIteration inside a generator arrives as a RuntimeError that it caused, without the generator's line.
    traces = [one.__traceback__ for one in (error.__cause__, error) if one is not None]
    lines = [(frame.f_code.co_filename, line) for trace in traces for frame, line in traceback.walk_tb(trace)]
    return next((f"{name}:{line}" for name, line in reversed(lines) if name in files), "")
