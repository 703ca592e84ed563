"""How kernels are loaded."""

import subprocess
import sys

SCRIPT = """
import sys
from powerd.compiled import load_types
from powerd.state.lease_kernels import margin
load_types()
assert margin(100.0) == 5.0
print(*sys.modules)
import scipy.linalg, cffi
"""


def test_the_types_are_loaded_without_what_no_kernel_needs() -> None:
    """A kernel runs after ``load_types`` without BLAS and C parser, which others can import afterwards."""
    ran = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    assert {"scipy.linalg", "cffi", "pycparser"} & set(ran.stdout.split()) == set()
