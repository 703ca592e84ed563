"""What all tests share: repeatable property tests and one thread for linear algebra."""

from __future__ import annotations

import os

from hypothesis import settings

# Before numpy is imported anywhere: on small problems more threads are many times slower.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# Deadlines measure the machine, not the code; in CI the examples are the same in every run.
settings.register_profile("powerd", deadline=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("powerd"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "powerd")
