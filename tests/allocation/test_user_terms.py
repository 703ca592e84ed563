"""Terms of users: they bound what is asked for, are checked when built, and never lead beyond a limit."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from itertools import combinations
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.allocation import user_terms as user_terms_module
from powerd.allocation.allocate import Allocator
from powerd.allocation.demands import Demands
from powerd.allocation.user_program import UserProgram
from powerd.allocation.user_terms import Source, UserSite, UserTerms, find_sources, identity_of
from powerd.errors import NotDpp, UnreadableInput
from powerd.limits import Bools, Floats
from tests.allocation.sites import delta_wye, demands, linear, one_limit, posts
from tests.control.garage import Player, site_text

ROOT = Path(__file__).resolve().parents[2]


def _half(site: UserSite) -> Iterable[Any]:
    """The first two posts together get at most 20 A."""
    yield cp.sum(site.ceiling[:2]) <= 20.0


def test_a_constraint_holds_and_the_rest_is_shared_as_before() -> None:
    """Two of four cars under 100 A are held to 20 A together; the others take what they can."""
    own, limits = posts(4), one_limit(4, 70.0)
    asked, alarms = UserTerms(own, [Source("half", _half)]).bound(limits, demands(4, 1))
    want = Allocator(own).allocate(limits, asked).want
    assert alarms == ()
    np.testing.assert_allclose(want, [10.0, 10.0, 25.0, 25.0], atol=1e-3)


def test_a_term_of_utility_counts() -> None:
    """A bonus on the first post's ceiling moves current to it."""

    def bonus(site: UserSite) -> Iterable[Any]:
        yield 0.05 * site.ceiling[0]

    own, limits = posts(2), one_limit(2, 40.0)
    asked, _ = UserTerms(own, [Source("bonus", bonus)]).bound(limits, demands(2, 1))
    assert asked.upper[0] > 24.0
    assert asked.upper.sum() == pytest.approx(40.0, abs=1e-3)


def test_minima_that_do_not_fit_a_term_switch_cars_off_in_order() -> None:
    """Four cars of 6 A under a term of 20 A: three go on, the one served most is off."""

    def tight(site: UserSite) -> Iterable[Any]:
        yield cp.sum(site.ceiling) <= 20.0

    own, limits = posts(4), one_limit(4, 200.0)
    asked, _ = UserTerms(own, [Source("tight", tight)]).bound(limits, demands(4, 1, least_served=[0.0, 9.0, 1.0, 2.0]))
    assert (asked.upper > 0).tolist() == [True, False, True, True]
    assert asked.upper.sum() <= 20.0 + 1e-4


def test_a_higher_class_comes_first() -> None:
    """Under a term of 20 A the higher class takes 14 A beside the other's minimum of 6 A, not half."""

    def tight(site: UserSite) -> Iterable[Any]:
        yield cp.sum(site.ceiling) <= 40.0

    own, limits = posts(2), one_limit(2, 200.0)
    asked, _ = UserTerms(own, [Source("tight", tight)]).bound(limits, demands(2, 1, priority=[0, 5]))
    assert asked.upper == pytest.approx([8.0, 32.0], abs=1e-3)


@dataclass(frozen=True, eq=False)
class Wings:
    """Terms: each wing has a sum, over some cars with a factor each."""

    factor: Floats
    """(wings, n)"""
    most: Floats
    """(wings,)"""

    def terms(self, site: UserSite) -> Iterable[Any]:
        """One constraint a wing."""
        for factor, most in zip(self.factor, self.most, strict=True):
            yield factor @ site.ceiling <= most

    def greedy(self, asked: Demands) -> Bools:
        """Who is on: class after class and in the order of service each one whose minimum fits beside those before."""
        left, on = self.most.copy(), np.zeros(len(asked.weight), dtype=np.bool_)
        for i in np.lexsort((asked.least_served, -asked.priority)):
            needed = self.factor[:, i] * asked.minimum[i]
            on[i] = bool(np.all(needed <= left))
            left -= needed if on[i] else 0.0
        return on


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_who_is_on_follows_the_order_of_service(seed: int) -> None:
    """Random wings over up to nine cars: each minimum that fits beside those before it, as a loop of its own finds."""
    rng = np.random.default_rng(seed)
    count, wings = int(rng.integers(2, 10)), int(rng.integers(1, 4))
    factor = np.where(rng.random((wings, count)) < 0.6, rng.choice([0.5, 1.0, 3.0], (wings, count)), 0.0)
    factor[:, 0] = np.where(factor.any(axis=1), factor[:, 0], 1.0)  # a term about nobody is refused
    terms = Wings(factor, rng.uniform(0.0, 40.0, wings))
    asked = demands(
        count,
        1,
        weight=np.exp(rng.uniform(-2.0, 2.0, count)),
        minimum=rng.choice([6.0, 8.0, 14.0], count),
        least_served=rng.random(count),
    )
    bounded, alarms = UserTerms(posts(count), [Source("wings", terms.terms)]).bound(one_limit(count, 1000.0), asked)
    assert alarms == ()
    np.testing.assert_array_equal(bounded.upper > 0.0, terms.greedy(asked))
    assert np.all((bounded.upper == 0.0) | (bounded.upper >= asked.minimum))
    assert np.all(factor @ bounded.upper <= terms.most + 1e-3)


@pytest.mark.parametrize(("count", "room", "term"), [(45, 60.0, 1e4), (100, 1000.0, 60.0), (100, 66.0, 60.0)])
def test_ever_so_many_cars_too_many_do_not_turn_all_off(
    count: int, room: float, term: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten cars charge, those served least, whether the feeder or a term is what is short; in 20 solves at most."""
    asks = 0
    solved = UserProgram._solved

    def counting(*arguments: Any) -> Any:
        nonlocal asks
        asks += 1
        return solved(*arguments)

    monkeypatch.setattr(UserProgram, "_solved", counting)
    terms = Wings(np.ones((1, count)), np.array([term]))
    asked = demands(count, 1, least_served=np.arange(count)[::-1].astype(np.float64))
    own, limits = posts(count), one_limit(count, room)
    bounded, alarms = UserTerms(own, [Source("all", terms.terms)]).bound(limits, asked)
    assert alarms == ()
    assert np.flatnonzero(bounded.upper > 0.0).tolist() == list(range(count - 10, count))
    assert Allocator(own).allocate(limits, bounded).want.sum() == pytest.approx(60.0, abs=1e-3)
    assert asks <= 20


def test_cars_whose_minimum_a_term_never_admits_do_not_keep_others_off() -> None:
    """The first 30 of 60 in the order get 4 A at most, below their minimum: the other 30 charge."""

    def low(site: UserSite) -> Iterable[Any]:
        yield site.ceiling[:30] <= 4.0

    bounded, alarms = UserTerms(posts(60), [Source("low", low)]).bound(one_limit(60, 1000.0), demands(60, 1))
    assert alarms == ()
    assert (bounded.upper > 0.0).tolist() == [False] * 30 + [True] * 30


def test_the_weight_decides_who_gets_more_and_not_who_charges() -> None:
    """22 A for two cars of weight 1 and 10: 6 A and 16 A, for 2 A and 20 A would leave the first at 0."""
    asked = demands(2, 1, weight=[1.0, 10.0])
    terms = Wings(np.ones((1, 2)), np.array([22.0]))
    bounded, _ = UserTerms(posts(2), [Source("all", terms.terms)]).bound(one_limit(2, 200.0), asked)
    np.testing.assert_allclose(bounded.upper, [6.0, 16.0], atol=1e-3)


def test_nobody_on_is_told_unless_it_is_proven_that_nobody_can_be() -> None:
    """Any two cars 8 A together and the first ten 4 A each: more tries than a tick has. 5 A for all: nobody fits."""

    def pairs(site: UserSite) -> Iterable[Any]:
        yield site.ceiling[:10] <= 4.0
        for i, j in combinations(range(12), 2):
            yield site.ceiling[i] + site.ceiling[j] <= 8.0

    bounded, alarms = UserTerms(posts(12), [Source("pairs.py", pairs)]).bound(one_limit(12, 1000.0), demands(12, 1))
    assert not bounded.upper.any()
    assert "pairs.py" in alarms[0]
    few = Wings(np.ones((1, 12)), np.array([5.0]))
    bounded, alarms = UserTerms(posts(12), [Source("few", few.terms)]).bound(one_limit(12, 1000.0), demands(12, 1))
    assert not bounded.upper.any()
    assert alarms == ()


def test_phasor_rows_hold_too() -> None:
    """A term beside cones."""
    own, limits = posts(6), delta_wye(6, 1, 40.0)
    asked, _ = UserTerms(own, [Source("half", _half)]).bound(limits, demands(6, 3))
    assert asked.upper[:2].sum() <= 20.0 + 1e-4
    assert np.all(limits.limit_flow(asked.upper) <= 40.0 + 1e-3)


def _never(site: UserSite) -> Iterable[Any]:
    """More than a post can ever give, and 10 A for another."""
    yield site.ceiling[0] >= 1000.0
    yield site.ceiling[1] <= 10.0


def test_a_term_without_an_answer_is_left_out_and_told() -> None:
    """Nobody is stranded by a contradiction, and the other term holds."""
    asked, alarms = UserTerms(posts(2), [Source("never.py", _never)]).bound(one_limit(2, 40.0), demands(2, 1))
    np.testing.assert_allclose(asked.upper, [30.0, 10.0], atol=1e-3)
    assert len(alarms) == 1
    assert alarms[0].startswith("never.py:")
    assert "term 1: no ceilings meet it" in alarms[0]


def test_terms_that_cannot_be_loosened_are_left_out_together() -> None:
    """A cone that no ceilings meet: all are as free as without terms, and told so."""

    def cone(site: UserSite) -> Iterable[Any]:
        yield cp.SOC(site.ceiling[0] - 40.0, site.ceiling[1:])

    wanted = demands(2, 1)
    asked, alarms = UserTerms(posts(2), [Source("cone.py", cone)]).bound(one_limit(2, 40.0), wanted)
    assert asked is wanted
    assert alarms == ("no ceilings meet the terms of cone.py: they are left out",)


def _first_sixteen(site: UserSite) -> Iterable[Any]:
    """16 A at least for the first post, 20 A together for the others."""
    yield site.ceiling[0] >= 16.0
    yield cp.sum(site.ceiling[1:]) <= 20.0


FIRST_SIXTEEN = [
    ("together", {}, [32.0, 10.0, 10.0], 0),
    ("the second of a higher class", {"priority": [0, 1, 0]}, [32.0, 20.0, 0.0], 0),
    ("all of other classes", {"priority": [0, 1, 2]}, [32.0, 0.0, 20.0], 0),
    ("nobody at the first", {"upper": [0.0, 32.0, 32.0]}, [0.0, 10.0, 10.0], 0),
    ("a car of 10 A at the first", {"upper": [10.0, 32.0, 32.0]}, [10.0, 10.0, 10.0], 1),
]


@pytest.mark.parametrize(("columns", "expected", "alarms"), [case[1:] for case in FIRST_SIXTEEN])
def test_terms_are_kept_as_far_as_they_can_be(columns: dict[str, Any], expected: list[float], alarms: int) -> None:
    """What is asked of a lower class is no contradiction, of an empty post it says nothing, else it alone goes."""
    asked = demands(3, 1, **columns)
    bounded, told = UserTerms(posts(3), [Source("a.py", _first_sixteen)]).bound(one_limit(3, 200.0), asked)
    np.testing.assert_allclose(bounded.upper, expected, atol=1e-3)
    assert [line.split(": ")[1] for line in told] == ["term 1"] * alarms


def test_a_car_that_its_feeder_keeps_off_does_not_keep_all_others_off() -> None:
    """The first post's feeder has 5 A, so that nobody gives it its 16 A: that is left out and told, the rest holds."""
    limits = linear([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], [5.0, 200.0])
    bounded, told = UserTerms(posts(3), [Source("a.py", _first_sixteen)]).bound(limits, demands(3, 2))
    np.testing.assert_allclose(bounded.upper, [0.0, 10.0, 10.0], atol=1e-3)
    assert ["term 1" in line for line in told] == [True]


def test_a_car_that_terms_alone_keep_off_does_not_keep_all_others_off() -> None:
    """3 to 4 A for a post whose car needs 6 A: it is off, the 3 A are left out and told, and the other charges."""

    def narrow(site: UserSite) -> Iterable[Any]:
        yield site.ceiling[0] >= 3.0
        yield site.ceiling[0] <= 4.0

    bounded, told = UserTerms(posts(2), [Source("a.py", narrow)]).bound(one_limit(2, 200.0), demands(2, 1))
    np.testing.assert_allclose(bounded.upper, [0.0, 32.0], atol=1e-3)
    assert ["term 1" in line for line in told] == [True]


def test_a_bound_that_the_solver_misses_by_a_rounding_is_not_a_step_less() -> None:
    """Equal cars under a term whose equal share is a pilot step of 1 A get the step, each of them."""
    steps = np.array([0.0, *range(6, 33)])
    for count, each in ((2, 10.0), (3, 10.0), (3, 16.0), (5, 12.0), (7, 9.0), (9, 21.0)):
        terms = Wings(np.ones((1, count)), np.array([count * each]))
        own, limits = posts(count, steps), one_limit(count, 1000.0)
        bounded, _ = UserTerms(own, [Source("all", terms.terms)]).bound(limits, demands(count, 1))
        assert Allocator(own).allocate(limits, bounded).want.tolist() == [each] * count


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("yield cp.sqrt(site.ceiling[0]) <= 3", "term 1 is not a convex constraint"),
        (
            "p = cp.Parameter(nonneg=True)\n    yield site.ceiling[0] <= 1\n    yield p * p * site.ceiling[0] <= 3",
            "term 2",
        ),
        ("yield cp.square(site.ceiling[0])", "mine.py:3: term 1 is not a concave number"),
        ("yield 7", "neither a cvxpy constraint nor an expression"),
        ("yield cp.sum(site.ceiling[[]]) <= 40", "mine.py:3: term 1 is about no post"),
        ("yield site.ceiling <= 40\n    yield site.ceiling[[]] <= 40", "mine.py:4: term 2 is about no post"),
        ("yield site.ceiling[0] <= cp.Parameter(name='cap')", "term 1 has a parameter without a value, cap"),
        ("yield site.ceiling[0] <= float('nan')", "mine.py:3: term 1 has a number that is none"),
        ("yield site.ceiling[0] <= 32 * cp.Variable(boolean=True)", "term 1 has a variable of whole numbers"),
        ("yield site.ceiling[0] <= 32 * cp.Variable(integer=True)", "term 1 has a variable of whole numbers"),
        ("yield cp.Variable()", "the expressions grow without end"),
        ("yield site.ceiling[0] >= 1000", "no ceilings up to the posts' ratings meet all terms"),
        ("yield site.ceiling[0] >= 20\n    yield site.ceiling[0] <= 10", "no ceilings up to the posts' ratings"),
    ],
)
def test_a_term_that_is_not_convex_is_refused_at_build(text: str, told: str, tmp_path: Path) -> None:
    """With the file and the number of the term, before any tick."""
    file = tmp_path / "mine.py"
    file.write_text(f"import cvxpy as cp\ndef terms(site):\n    {text}\n", encoding="utf-8")
    with pytest.raises(NotDpp) as refused:
        UserTerms(posts(2), find_sources([str(file)])).compile(one_limit(2, 40.0))
    assert "mine.py" in str(refused.value)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "def terms(site:\n",
        "x = 1\n",
        "import there_is_no_such_module\n",
        "y = x\n",
        "1 / 0\n",
        "raise SystemExit(0)\n",
        "raise Exception\n",
        "next(iter(()))\n",
    ],
)
def test_a_file_that_cannot_be_used_is_named(text: str, tmp_path: Path) -> None:
    """A syntax error, no function, a missing import, a missing name, a sum that cannot be, an exit; with the line."""
    file = tmp_path / "mine.py"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UnreadableInput, match=r"mine\.py: has no function" if text == "x = 1\n" else r"mine\.py:1: "):
        find_sources([str(file)])


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    """``docs/allocation.md``: its file beside a site file holds on the whole tick, guard last."""
    page = (ROOT / "docs" / "allocation.md").read_text(encoding="utf-8")
    example = page.split("```python\n", maxsplit=1)[1].split("```", maxsplit=1)[0]
    (tmp_path / "fair_wings.py").write_text(example, encoding="utf-8")
    player = Player.open(tmp_path, site_text(4, 100.0) + "terms: [fair_wings.py]\n")
    for evse in range(4):
        player.plug(evse)
    for controller in range(2):
        player.hello(controller)
    for _ in range(4):
        decision = player.tick()
    assert decision.ceiling[:2].sum() <= 40.0 + 1e-4
    assert decision.ceiling.sum() > 90.0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("return None", 2),
        ("yield site.ceiling[99] <= 4", 3),
        ("yield unknown", 3),
        ("yield 0 <= site.ceiling <= 40", 3),
        ("x = site.ceiling\n    if x[0] <= 4:\n        yield x[1] <= 4", 4),
        ("raise cp.error.DCPError('no')", 3),
        ("next(iter(()))\n    return []", 3),
        ("raise SystemExit(0)", 3),
        ("yield site.ceiling[0] <= cp.CallbackParam(lambda: 1 / 0)", 3),
    ],
)
def test_a_function_that_fails_is_named_before_any_tick(text: str, line: int, tmp_path: Path) -> None:
    """Whatever it raises, and what cvxpy raises for it: the file and the line, not a traceback, and no exit."""
    file = tmp_path / "mine.py"
    file.write_text(f"import cvxpy as cp\ndef terms(site):\n    {text}\n", encoding="utf-8")
    with pytest.raises(UnreadableInput, match=rf"mine\.py:{line}: (terms\(site\) fails|term 1 cannot be used)"):
        UserTerms(posts(2), find_sources([str(file)])).compile(one_limit(2, 40.0))


def test_terms_are_named_with_what_they_are_and_not_with_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file or a package that was edited is another one to a replay; the same in another folder is the same."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint(name="wing", value="wing_terms:terms", group="powerd.terms")
    monkeypatch.setattr(user_terms_module, "entry_points", lambda group: [point] if group == "powerd.terms" else [])
    found = []
    for folder, amps in (("a", 20), ("b", 20), ("b", 14)):
        text = f"def terms(site):\n    yield sum(site.ceiling) <= {amps}\n"
        (tmp_path / folder).mkdir(exist_ok=True)
        for file in (tmp_path / folder / "mine.py", tmp_path / "wing_terms.py"):
            file.write_text(text, encoding="utf-8")
        sys.modules.pop("wing_terms", None)
        importlib.invalidate_caches()
        found.append(identity_of(find_sources([str(tmp_path / folder / "mine.py")])))
    assert found[0] == found[1]
    mine, wing = (set(names) for names in zip(*(one.split(", ") for one in found), strict=True))
    assert [len(mine), len(wing)] == [2, 2]
    assert re.fullmatch(r"mine\.py \w{16}, wing \(wing_terms:terms\) \w{16}", found[0])
    assert identity_of([]) == ""
