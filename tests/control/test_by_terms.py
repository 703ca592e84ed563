"""Terms of users in a tick: they hold those whom they are about, change nothing else, and never end a tick."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from powerd.allocation.allocate import Allocator
from powerd.allocation.user_program import UserProgram
from powerd.allocation.user_terms import Source, UserSite
from powerd.control.by_terms import ByTerms
from powerd.control.decision import Decision
from powerd.errors import UnreadableInput
from tests.allocation.sites import demands, one_limit, posts
from tests.control.garage import Player, site_text

EIGHTS = np.array([0.0, 8.0, 16.0, 24.0, 32.0])


def settled(folder: Path, text: str, terms: str = "", ticks: int = 12) -> tuple[Player, Decision]:
    """A car at each post, some ticks later."""
    if terms:
        (folder / "mine.py").write_text(f"import cvxpy as cp\n{terms}", encoding="utf-8")
        text += f"terms: [mine.py]\n# {folder}\n"  # a compiled site is kept by its text
    player = Player.open(folder, text)
    for controller in range(2):
        player.hello(controller)
    for evse in range(player.site.electrical.evse_count):
        player.plug(evse)
    return player, [player.tick() for _ in range(ticks)][-1]


FAILING = {
    "a file that is gone": "raise OSError('cap.txt gone')",
    "an exit": "raise SystemExit(0)",
    "a bare exception": "raise Exception('no more')",
    "a number that is none": "return float('nan')",
    "nothing": "return None",
    "too many numbers": "return [1.0, 2.0]",
}
BOUND = "cp.sum(site.ceiling) <= cp.CallbackParam(cap)"
BONUS = "cp.CallbackParam(cap, nonneg=True) * site.ceiling[0] / 1000"


@pytest.mark.parametrize("term", [BOUND, BONUS])
@pytest.mark.parametrize("failure", FAILING)
def test_whatever_a_file_does_in_a_tick_the_tick_goes_on(failure: str, term: str, tmp_path: Path) -> None:
    """It goes without terms then, an alarm names the file and what came; when it is over, the terms hold again."""
    flag = tmp_path / "flag"
    text = (
        f"import os\ndef cap():\n    if os.path.exists({str(flag)!r}):\n        {FAILING[failure]}\n    return 20.0\n"
        f"def terms(site):\n    yield {term}\n"
    )
    player, before = settled(tmp_path, site_text(2, 40.0), text)
    assert before.alarms == ()
    assert before.want[1] < 20.0 - 0.1
    flag.touch()
    failed = player.tick()
    assert failed.want.tolist() == [20.0, 20.0]
    raised = re.search(r"raise (\w+)", FAILING[failure])
    place, what = ("mine.py:5", raised[1]) if raised else ("mine.py", "Error: ")
    assert [place in alarm and what in alarm and "left out" in alarm for alarm in failed.alarms] == [True]
    flag.unlink()
    again = player.tick()
    assert again.alarms == ()
    np.testing.assert_allclose(again.want, before.want, atol=1e-3)


@pytest.mark.parametrize(
    "term",
    [
        "cp.sum(site.ceiling) <= 10000",
        "site.ceiling[0] == site.ceiling[3]",
        "cp.norm(site.ceiling) <= 1000",
        "cp.sum(site.ceiling) <= 10000 - cp.Variable(nonneg=True)",
    ],
)
@pytest.mark.parametrize(("limit", "step"), [(40.0, "pilot_steps_a: [0, 8, 16, 24, 32]"), (33.0, "pilot_step_a: 1")])
def test_terms_that_hold_nobody_change_nothing(limit: float, step: str, term: str, tmp_path: Path) -> None:
    """The same ceilings to the last bit, remainders of pilot steps handed out."""
    text = site_text(4, limit).replace("max_current_a: 32,", f"max_current_a: 32, {step},")
    (tmp_path / "free").mkdir()
    _, free = settled(tmp_path / "free", text)
    equal = "==" not in term or free.want[0] == free.want[3]
    _, bounded = settled(tmp_path, text, f"def terms(site):\n    yield {term}\n")
    assert bounded.alarms == ()
    if equal:
        assert bounded.want.tobytes() == free.want.tobytes()
        assert bounded.ceiling.tobytes() == free.ceiling.tobytes()
    else:
        assert bounded.want[0] == bounded.want[3]


def test_a_tick_asks_the_solver_only_where_terms_hold_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of cvxpy costs more than all the rest of a tick: none for 80 A among cars of 48 A, one for 40 A."""
    own, limits, wanted = posts(4), one_limit(4, 48.0), demands(4, 1)
    plain = Allocator(own).allocate(limits, wanted)
    for most, asks in ((80.0, 0), (40.0, 1)):
        terms, asked, solved = ByTerms(own, [Source("all.py", Wing(4, most).terms)], limits), [0], UserProgram._status

        def counting(*arguments: Any, asked: list[int] = asked, solved: Any = solved) -> Any:
            asked[0] += 1
            return solved(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(UserProgram, "_status", counting)
            assert (terms.share(limits, wanted, plain).allocation is plain) == (asks == 0)
        assert asked == [asks]


@dataclass(frozen=True)
class Wing:
    """Terms: the first few posts have a sum."""

    members: int
    most: float

    def terms(self, site: UserSite) -> Iterable[Any]:
        """One constraint."""
        yield cp.sum(site.ceiling[: self.members]) <= self.most


def test_those_beside_a_wing_share_the_remainder_in_steps() -> None:
    """Two of four posts of 8 A steps are held to 20 A: the others have 16 A each of the 48 A, not 8."""
    own, limits, wanted = posts(4, EIGHTS), one_limit(4, 48.0), demands(4, 1)
    plain = Allocator(own).allocate(limits, wanted)
    under = ByTerms(own, [Source("wing.py", Wing(2, 20.0).terms)], limits).share(limits, wanted, plain)
    assert under.alarms == ()
    assert under.allocation.want.tolist() == [8.0, 8.0, 16.0, 16.0]
    np.testing.assert_array_equal(under.demands.upper[2:], wanted.upper[2:])


def test_nobody_rises_in_a_wing_into_what_the_wing_took_from_another() -> None:
    """40 A are 16 A and three times 8 A; with 20 A for the first two the third has the step, and not the second."""
    own, limits, wanted = posts(4, EIGHTS), one_limit(4, 40.0), demands(4, 1)
    plain = Allocator(own).allocate(limits, wanted)
    assert plain.want.tolist() == [16.0, 8.0, 8.0, 8.0]
    under = ByTerms(own, [Source("wing.py", Wing(2, 20.0).terms)], limits).share(limits, wanted, plain)
    assert under.allocation.want.tolist() == [8.0, 8.0, 16.0, 8.0]


def test_who_is_below_his_first_step_by_a_term_has_it_before_others_rise() -> None:
    """46 A for weights 1, 1, 1 and 3 in steps of 8 A: 7.7 A each for three is no step, so the fourth gives way."""
    own, limits, wanted = posts(4, EIGHTS), one_limit(4, 1000.0), demands(4, 1, weight=[1.0, 1.0, 1.0, 3.0])
    plain = Allocator(own).allocate(limits, wanted)
    under = ByTerms(own, [Source("wing.py", Wing(4, 46.0).terms)], limits).share(limits, wanted, plain)
    assert under.allocation.want.tolist() == [8.0, 8.0, 8.0, 16.0]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31))
@example(607222631)
def test_wings_and_limits_hold_and_those_beside_them_leave_no_step(seed: int) -> None:
    """Random wings, limits, weights and classes: sums hold, and no post beside the wing could rise by a step."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 9))
    members, most = int(rng.integers(1, count)), float(rng.uniform(8.0, 32.0 * count / 2))
    capacity = float(rng.uniform(8.0 * count, 32.0 * count))
    own, limits = posts(count, EIGHTS), one_limit(count, capacity)
    wanted = demands(count, 1, weight=rng.choice([1.0, 3.0], count), priority=rng.choice([0, 0, 1], count))
    plain = Allocator(own).allocate(limits, wanted)
    under = ByTerms(own, [Source("wing.py", Wing(members, most).terms)], limits).share(limits, wanted, plain)
    want = under.allocation.want
    assert under.alarms == ()
    assert want[:members].sum() <= most + 1e-2
    assert want.sum() <= capacity + 1e-6
    if plain.want[:members].sum() <= most:
        assert want.tobytes() == plain.want.tobytes()
    assert np.all((want[members:] >= 32.0) | (want.sum() + 8.0 > capacity))


def test_terms_are_refused_beside_max_min(tmp_path: Path) -> None:
    """The program of the terms is about proportional fairness: sharing by it unsaid would be worse than to refuse."""
    with pytest.raises(UnreadableInput, match=r"mine\.py: .* fairness: max_min: take one of the two out"):
        settled(
            tmp_path, site_text(2, 40.0) + "fairness: max_min\n", "def terms(site):\n    yield site.ceiling <= 40\n"
        )
