"""The published Caltech ACN network, as figures.

Facts read from PyPI package acnportal 0.3.3 (BSD-3-Clause, Caltech Netlab), function ``caltech_acn``: which posts hang
between which phases, which belong to the two pods, and the limits for a 150 kW transformer. "CA-" is left off the ids.
"""

from __future__ import annotations

import numpy as np

AB_POSTS = """
    308 508 303 513 310 506 316 500 318 498 324 325 326 327 489 490 491 492 322 493 496 320 495 321 323
    494
"""
BC_POSTS = """
    304 512 305 511 313 503 311 505 317 499 148 149 212 213
"""
CA_POSTS = """
    307 509 309 507 306 510 315 501 319 497 312 504 314 502
"""
#: Pair of phases: (angle of its current [deg], posts).
PAIRS = {"AB": (30.0, AB_POSTS.split()), "BC": (-90.0, BC_POSTS.split()), "CA": (150.0, CA_POSTS.split())}
CC_POD = ["322", "493", "496", "320", "495", "321", "323", "494"]
AV_POD = ["324", "325", "326", "327", "489", "490", "491", "492"]
#: AeroVironment posts take 6..32 A in steps of 1 A, ClipperCreek (the CC pod) these.
AV_STEPS = (0.0, *(float(a) for a in range(6, 33)))
CC_STEPS = (0.0, 8.0, 16.0, 24.0, 32.0)
POD_A = 80.0
SECONDARY_A = 150 * 1000 / 3 / 120
PRIMARY_A = 150 * 1000 / 3 / 277


def published_rows(ids: tuple[str, ...]) -> dict[str, tuple[np.ndarray, float]]:
    """Each published limit: complex coefficient of every post, in the order of ``ids``, and its limit [A].

    The limit reads abs(sum(coefficient * current)) <= limit. I3 are the secondary line currents, I2 the primary ones.
    """
    pair = {name: np.array([float(i[3:] in posts) for i in ids]) for name, (_, posts) in PAIRS.items()}
    angle = sum(pair[name] * deg for name, (deg, _) in PAIRS.items())
    turn = np.exp(1j * np.radians(angle))
    i3a, i3b, i3c = pair["AB"] - pair["CA"], pair["BC"] - pair["AB"], pair["CA"] - pair["BC"]
    pods = {name: np.array([float(i[3:] in pod) for i in ids]) for name, pod in (("CC", CC_POD), ("AV", AV_POD))}
    return {
        "CC Pod": (pods["CC"] * turn, POD_A),
        "AV Pod": (pods["AV"] * turn, POD_A),
        "Secondary A": (i3a * turn, SECONDARY_A),
        "Secondary B": (i3b * turn, SECONDARY_A),
        "Secondary C": (i3c * turn, SECONDARY_A),
        "Primary A": ((i3a - i3c) / 4 * turn, PRIMARY_A),
        "Primary B": ((i3b - i3a) / 4 * turn, PRIMARY_A),
        "Primary C": ((i3c - i3b) / 4 * turn, PRIMARY_A),
    }
