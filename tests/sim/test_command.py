"""The command: exit codes, one JSON object on stdout, messages with a mend on stderr."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, get_args

import pytest

from powerd.cli import BatteryName, EdgeName, PolicyName
from powerd.network.curves import Edge
from powerd.sim.cars import Battery
from powerd.sim.command import BROKEN, OK, USAGE, Options, simulate
from powerd.sim.policies import Policy
from tests.sim.scenes import GARAGE, busy_morning


@pytest.fixture(scope="module", name="options")
def _options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    morning = busy_morning(tmp_path_factory.mktemp("sessions"), until="08:50")
    return Options(site=GARAGE, sessions=morning, policy=Policy.EQUAL_SHARE)


def test_json_is_one_object_and_nothing_else(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    """stdout carries the summary alone, the progress bar goes to stderr."""
    assert simulate(options, as_json=True) == OK
    out, err = capsys.readouterr()
    assert json.loads(out)["policy"] == "equal-share"
    assert out.count("\n") == 1
    assert "simulated seconds" in err


def test_a_broken_limit_is_exit_1_with_the_names(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    """Uncontrolled cars break pod and transformer; the table says which."""
    code = simulate(replace(options, policy=Policy.UNCONTROLLED, cap_kw=10.0), quiet=True)
    assert code == BROKEN
    out, err = capsys.readouterr()
    assert "transformer T1" in out
    assert not err


def test_a_plot_is_drawn_and_the_power_flow_asked(
    options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--plot and --verify-ac do what they say."""
    wanted = replace(options, cap_kw=10.0, plot=tmp_path / "run.png", verify_ac=True)
    simulate(wanted, as_json=True, quiet=True)
    verdict = json.loads(capsys.readouterr().out)["verify_ac"]
    assert verdict["loads_checked"] >= 3
    assert (tmp_path / "run.png").stat().st_size > 10_000


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no file": ({"sessions": Path("none.csv")}, "none.csv: cannot be read"),
    "no such day": ({"first": date(2030, 1, 1)}, "--from"),
    "no days": ({"days": 0}, "--days 0"),
    "more days than there are": ({"first": date(9999, 12, 31), "days": 10**10}, "--from"),
    "no transformer": ({"cap_kw": 0.0}, "--cap-kw 0"),
    "a journal without a daemon": ({"policy": Policy.EQUAL_SHARE, "journal": Path("j")}, "--journal j"),
    "strange plot": ({"plot": Path("a.gif")}, "--plot a.gif"),
    "plot nowhere": ({"plot": Path("no/such/folder/a.png")}, "make it first"),
    "other site": ({"site": GARAGE.parent / "mega_hub"}, "where they were recorded"),
    "no site": ({"site": Path("nowhere")}, "nowhere"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_exit_2_with_a_mend(case: str, options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    """One message on stderr, and the same as the one object on stdout."""
    change, said = WRONG[case]
    assert simulate(replace(options, **change), as_json=True) == USAGE
    out, err = capsys.readouterr()
    (fault,) = json.loads(out)["faults"]
    assert fault["code"] == "unreadable"
    assert fault["mend"] in err.replace("\n", " ")
    assert said in err.replace("\n", " ")


def test_a_cap_that_cannot_be_is_named(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    """A transformer of nothing."""
    assert simulate(replace(options, cap_kw=-5.0), as_json=True) != OK
    assert "--cap-kw" in capsys.readouterr().err


def test_what_help_lists_is_what_the_simulator_knows() -> None:
    """The command line writes the choices down once more, so as not to import the simulator for them."""
    assert get_args(PolicyName) == tuple(Policy)
    assert get_args(BatteryName) == tuple(Battery)
    assert get_args(EdgeName) == tuple(Edge)
