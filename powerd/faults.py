"""A fault: one thing wrong with what a person gave us, with its place and its mend.

Validation returns faults, all of them in one pass, and never raises for bad content.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a fault is."""

    ERROR = "error"
    """The site cannot be run."""
    WARNING = "warning"
    """The site runs, but a person should look."""


@dataclass(frozen=True, kw_only=True, order=True)
class Fault:
    """One fault in a site, with all a person needs to mend it."""

    file: str
    """File as the user named it."""
    line: int
    """1-based line of the offending value, or of the element that holds it."""
    code: str
    """Stable code, kebab-case (``unknown-bus``); listed in ``powerd/site/codes.py``."""
    element: str
    """Id of the element, or the path in the file where it has none."""
    message: str
    """What is wrong, with the value found."""
    mend: str
    """What to write instead."""
    severity: Severity = Severity.ERROR

    def as_json(self) -> dict[str, str | int]:
        """For ``--json``."""
        return {
            "severity": str(self.severity),
            "code": str(self.code),
            "element": self.element,
            "message": self.message,
            "mend": self.mend,
            "file": self.file,
            "line": self.line,
        }
