"""``powerd.client.conformance`` finds nothing in our own controller, and what is wrong in broken ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from powerd.client.conformance.scenes import SCENES

CANDIDATE = (sys.executable, str(Path(__file__).with_name("conforming.py")))


def _held(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "powerd.client.conformance", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("scene", [scene.__name__ for scene in SCENES])
def test_our_controller_keeps_every_scene(scene: str) -> None:
    """The library keeps each of them, and the command ends with 0."""
    held = _held("--only", scene, "--", *CANDIDATE)
    assert (held.returncode, held.stdout) == (0, f"kept   {scene}\n1 of 1 scenes kept\n"), held.stderr


@pytest.mark.parametrize(
    ("broken", "scene", "told"),
    [
        ("acks-first", "ack_after_write", "acked before the post took it"),
        ("goes-on", "lease_ends", "no write `A1 8` at the end of the lease"),
        ("goes-on", "renewal", "no write `A1 8` at the end of the lease"),
        ("takes-old", "old_seq", "it wrote `A1 20`, which is to be refused"),
        ("takes-old", "car_comes", "it wrote `A1 20`, which is to be refused"),
        ("takes-all", "old_epoch", "it wrote `A1 20`, which is to be refused"),
        ("takes-all", "old_stamp", "it wrote `A1 21`, which is to be refused"),
        ("takes-all", "foreign_incarnation", "it wrote `A1 20`, which is to be refused"),
        ("keeps-leases", "car_leaves", "told before the post took its order"),
        ("silent", "stamps", "no more stamps"),
    ],
)
def test_a_broken_rule_is_told(broken: str, scene: str, told: str) -> None:
    """The scene that holds the rule says what was wrong, and the command ends with 1."""
    held = _held("--only", scene, "--", *CANDIDATE, broken)
    assert held.returncode == 1, held.stdout
    assert f"BROKEN {scene}: " in held.stdout
    assert told in held.stdout


@pytest.mark.parametrize(
    "command", [(), ("--",), ("--only", "nothing", "--", "true"), ("--", "false"), ("--", "./no-such-program")]
)
def test_a_candidate_that_does_not_start_is_told_apart(command: tuple[str, ...]) -> None:
    """Wrong usage, a program that ends at once and one that is not there: 2, and no verdict."""
    held = _held(*command)
    assert (held.returncode, held.stdout) == (2, "")
