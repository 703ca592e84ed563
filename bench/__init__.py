"""Benchmarks: ``python -m bench NAME --json``."""

import os

# One thread each: unpinned BLAS is many times slower on problems this small. Must precede numpy's import.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
