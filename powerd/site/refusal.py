"""What ``--json`` answers where a command comes to no result: the one object, with why as its faults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from powerd.errors import PowerdError, SiteRefused, UnreadableInput
from powerd.faults import Fault
from powerd.site.codes import Code
from powerd.site.read import site_path


def refusal_json(error: PowerdError, *files: Path) -> dict[str, Any]:
    """All faults of a site that has some, else ``error`` as the only one.

    Args:
        error: why there is no result; its message is "file[:line[:column]]: what; mend", or names no file.
        files: what the command reads, the one first that is meant where the message names none.
    """
    names = [str(site_path(file)) for file in files]
    name = next((name for name in names if str(error).startswith(name)), names[0])
    faults = error.faults if isinstance(error, SiteRefused) else (_fault(error, name),)
    return {"site": None, "file": name, "faults": [fault.as_json() for fault in faults]}


def _fault(error: PowerdError, file: str) -> Fault:
    """The message taken apart."""
    line, rest = 1, str(error).removeprefix(file)
    if (place := re.match(r"(?::(\d+)(?::\d+)?)?: ", rest)) is not None:
        line, rest = int(place[1] or 1), rest[place.end() :]
    message, _, mend = rest.rpartition("; ") if "; " in rest else (rest, "", "")
    code = Code.UNREADABLE if isinstance(error, UnreadableInput) else Code.NO_RESULT
    return Fault(file=file, line=line, code=code, element=file, message=message, mend=mend)
