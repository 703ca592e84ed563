"""``python -m bench.memory CASE COUNT``: peak memory [MB] of a process that imports the room and nothing else.

Three ticks for COUNT EVSEs of a case of ``bench.allocate``; none for 0, which is what the imports alone take.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import numpy as np

from bench.instances import full_demands, plain_stage, posts, priorities, stream
from powerd.allocation.allocate import COLD, Allocator
from powerd.allocation.guard import admit_raises
from powerd.allocation.solve import Solver
from powerd.compiled import load_types

TICKS = 3


def plain(count: int) -> None:
    """One stage a tick, warm from tick to tick."""
    solver, start = Solver(), np.zeros(0)
    for tick in islice(stream(count), TICKS):
        warm = start if len(start) else np.zeros(tick.limits.row_count)
        start = solver.solve(tick.limits, plain_stage(tick), warm)[0].price


def full(count: int) -> None:
    """Classes, target and surplus, minima, the guard and the grant step."""
    allocator, warm, priority, current = Allocator(posts(count)), COLD, priorities(count), np.zeros(count)
    for tick in islice(stream(count), TICKS):
        limits, demands = full_demands(tick, priority)
        answer = allocator.allocate(limits, demands, warm)
        warm = answer.warm
        current = admit_raises(limits, demands.uncontrolled, current, current, answer.want, demands.minimum)


def main() -> None:
    """Prints the peak."""
    case, count = sys.argv[1], int(sys.argv[2])
    if count:
        load_types()  # as the daemon does
        {"plain": plain, "full": full}[case](count)
    # Not getrusage: its peak survives exec, so a child would report that of the process that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak_kb = next(line for line in status if line.startswith("VmHWM")).split()[1]
    sys.stdout.write(f"{int(peak_kb) / 1024.0}\n")


if __name__ == "__main__":
    main()
