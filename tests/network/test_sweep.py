"""What the sweep leaves when it stops, against the same circuit's fixed point found the slow way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from powerd.limits import Floats, Ints
from powerd.network.sweep import TOLERANCE_PU, sweep_balanced

Circuit = tuple[Ints, Ints, Floats, Floats, Floats, Floats]
#: A ratio may still grow a little after the two that were seen; 6 000 circuits left at most 2.1 times the tolerance.
LEFT_PU = 3 * TOLERANCE_PU


def _circuit(rng: np.random.Generator) -> Circuit:
    """A random tree, from chain to star; powers of one sign or of any, with and without currents and shunts."""
    count, reach = int(rng.integers(2, 40)), int(rng.choice([1, 3, 40]))
    parent, size = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    chain = [0]
    for k in range(1, count):
        del chain[max(1, len(chain) - int(rng.integers(0, reach))) :]
        parent[k] = chain[-1]
        chain.append(k)
    for k in range(count - 1, 0, -1):
        size[parent[k]] += size[k]
    z = rng.uniform(0, 1, (2, count)) * rng.choice([0.01, 0.1, 1.0])
    z[:, 0] = 0.0
    y = rng.normal(0, 0.01, (2, count)) * rng.integers(0, 2)
    taken = rng.normal(0, 1, (3, count)) * rng.integers(0, 2, (3, 1))
    taken = np.abs(taken) if rng.integers(0, 2) else taken
    heavy = rng.uniform(0, 0.4) * rng.choice([1, 3, 10])
    taken *= heavy / max(1e-9, np.hypot(*z).sum() * np.abs(taken).sum())
    return parent, np.arange(count) + size, z, y, np.full(count, rng.uniform(0.9, 1.1)), taken


def _settled(circuit: Circuit) -> npt.NDArray[np.complex128] | None:
    """The voltages of the circuit by its impedance matrix, until nothing moves; None where they do not settle soon."""
    parent, _, z, y, emf, taken = circuit
    passed = np.eye(parent.shape[0])
    for k in range(1, parent.shape[0]):
        passed[k] += passed[parent[k]]
    impedance = passed * (z[0] + 1j * z[1]) @ passed.T
    v: npt.NDArray[np.complex128] = emf.astype(np.complex128)
    for _ in range(60):
        current = np.conj((taken[0] + 1j * taken[1]) / v) + taken[2] * v / np.abs(v) + (y[0] + 1j * y[1]) * v
        before, v = v, emf - impedance @ current
        if np.abs(v - before).max() < 1e-14:
            return v
    return None


def test_the_sweeps_that_are_not_made_would_move_nothing() -> None:
    """4 000 random circuits: the voltages are their fixed point's to 3e-9 pu."""
    rng = np.random.default_rng(1)
    judged = 0
    for _ in range(4_000):
        circuit = _circuit(rng)
        count = circuit[0].shape[0]
        truth = _settled(circuit)
        if truth is None:
            continue
        v, j = np.empty((2, count)), np.empty((2, count + 1))
        assert sweep_balanced(*circuit, v, j) > 0
        assert np.abs(v[0] + 1j * v[1] - truth).max() <= LEFT_PU
        judged += 1
    assert judged > 3_000


def test_one_bus_without_a_number_is_told_though_another_supply_settles() -> None:
    """A load that brings its bus to exactly 0 V ends the sweep, also where a healthy tree comes after it."""
    parent, beyond = np.array([0, 0, 2, 2]), np.array([2, 2, 4, 4])
    z, y, emf = np.array([[0.0, 1.0, 0.0, 0.01], np.zeros(4)]), np.zeros((2, 4)), np.ones(4)
    taken = np.array([[0.0, 1.0, 0.0, 0.1], np.zeros(4), np.zeros(4)])
    assert sweep_balanced(parent, beyond, z, y, emf, taken, np.empty((2, 4)), np.empty((2, 5))) == -1
