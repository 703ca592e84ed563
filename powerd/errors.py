"""powerd's exceptions, all of them.

PowerdError
    UnreadableInput     a file that cannot be read, parsed or replayed at all (exit 2)
    SiteRefused         a site with faults of severity error (exit 1); carries the faults
    EnvelopeUnheld      a journal with an envelope that nothing in the site file can hold (exit 2)
    BadRequest          a request whose content is wrong; carries field path and expectation
    UnknownName         a request that names something that is not there
    Overloaded          the inbox is full; try again later
    CannotListen        an address that must not or cannot be listened on (exit 2)
    ControllerEnded     a call of a controller whose ``with`` block has ended
    NotDpp              a formulation bug in the convex program
"""

from __future__ import annotations

from powerd.faults import Fault


class PowerdError(Exception):
    """Everything powerd raises on purpose."""


class UnreadableInput(PowerdError):
    """A file that cannot be read or parsed; the message names the place and the mend."""


class SiteRefused(PowerdError):
    """The site has faults; retrying without mending them will not help."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(f"{f.file}:{f.line}: {f.element}: {f.message} ({f.code}); {f.mend}" for f in faults))


class EnvelopeUnheld(PowerdError):
    """The journal knows an envelope, and the site file has no limit that it could lower."""


class BadRequest(PowerdError):
    """A request field with a value that cannot be accepted; nothing was changed."""

    def __init__(self, field: str, expected: str) -> None:
        self.field = field
        self.expected = expected
        super().__init__(f"{field}: {expected}")


class UnknownName(PowerdError):
    """A request names an EVSE, session, stop or element that is not there; nothing was changed."""


class CannotListen(PowerdError):
    """The server must not (beyond this machine without TLS) or cannot (port taken, bad key) listen there."""


class Overloaded(PowerdError):
    """The inbox is full: nothing was taken; a retry later may succeed."""


class ControllerEnded(PowerdError):
    """The controller's ``with`` block has ended, or ends while a call waits."""


class NotDpp(PowerdError):
    """The convex program does not follow disciplined parametrised programming: a formulation bug."""
