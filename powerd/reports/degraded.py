"""``docs/failsafe.md``, written from the table of degraded modes: ``python -m powerd.reports.degraded``."""

from __future__ import annotations

from pathlib import Path

from powerd.control.failsafe import TABLE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "failsafe.md"
"""Where the page lies in the source tree."""
HEAD = """# What powerd does when something fails

Whatever fails, three things hold: decreases and stops go out at once, a ceiling rises only as far as
[R1](leases.md) admits, and every lease ends by itself. A degraded mode only ever takes raises away.

The modes that hold now are in the alarms of `WatchSite`, and the log tells when each begins and ends; in a mode that is
not serving, health says `NOT_SERVING`. The
table is [`powerd/control/failsafe.py`](../powerd/control/failsafe.py), and this page is written from it
(`python -m powerd.reports.degraded`; a test holds the two together, and another triggers every row).

| what fails | how it is noticed | mode | what is granted | how it ends | health |
|---|---|---|---|---|---|
"""
FOOT = """
## The disk

Raises wait until the tick that decided them is on the disk; decreases do not. What a restart would hold anyway (W of
the last durable tick) needs no disk: such grants and renewals go out also while it refuses, so that cars go on charging
at what they have. A single call (`RequestSetpoint`) is answered with such a grant when it leaves, too. If the disk is
away, or does not answer, for so long that 64 MB wait in memory, they are given up and the record gets a *gap*; the
state never does. A daemon does not *start* without its journal: the new epoch must be durable before the first grant
(R4). It ends with exit code 2 and the reason; the controllers hold their fallbacks meanwhile. For the same reason a
hello that names a higher epoch ([R4](leases.md)) is put off while the disk is slow or refuses: its controller alone
gets no grants, nothing rises beside what another leader may have granted, all others go on; once the disk is well its
stream ends with `UNAVAILABLE`, and its next hello is followed. Only where such a hello comes before the trouble has
been noticed does everything wait until the disk has the new epoch: controllers go to their fallbacks.

## Urgent events

A stop, a trip, a switch position, a lower envelope or a meter above its limit wakes the ticker at once. The tick that
follows is decided by the guard alone, whether a solve is running or not; a full one comes after it. At most 20 such
ticks are made a second, the first of them never waits. A solve that takes more than half a period is *late*: the guard
decides each tick until it is done.
"""


def page() -> str:
    """The whole page."""
    rows = (
        f"| {row.trigger} | {row.noticed} | {row.mode} | {row.granted} | {row.ends} "
        f"| {'SERVING' if row.serving else 'NOT_SERVING'} |\n"
        for row in TABLE
    )
    return HEAD + "".join(rows) + FOOT


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
