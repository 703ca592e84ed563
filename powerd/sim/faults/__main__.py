"""``python -m powerd.sim.faults``."""

from __future__ import annotations

import os

# One thread each for the linear algebra: unpinned, small problems ran 13 to 58 times slower. Must precede numpy.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import sys

from powerd.sim.faults.command import main

sys.exit(main())
