"""``python -m powerd.sim.faults``: run seeds, add up what they covered, shrink what fails."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from powerd.compiled import digest_of
from powerd.sim.faults.claims import Broken
from powerd.sim.faults.mutants import MUTANTS, mutated
from powerd.sim.faults.scenario import drawn, read
from powerd.sim.faults.shrink import failure_of, shrunk
from powerd.sim.faults.tally import Tally
from powerd.sim.faults.world import World

CHUNK = 20
"""Seeds in one line of a file of results: those from a multiple of it on."""


def run_seeds(first: int, last: int) -> tuple[Tally, dict[int, str]]:
    """All seeds from ``first`` to before ``last``: what they covered, and what broke in which."""
    tally, broken = Tally(), {}
    for seed in range(first, last):
        world = World(drawn(seed))
        try:
            world.run()
        except Broken as found:
            broken[seed] = str(found)
        tally += world.tally
    return tally, broken


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 = nothing broke, 1 = something did (or a mutant got away, or a floor was missed), 2 = wrong usage."""
    options = _options(arguments)
    if options.scenario is not None:
        return _replay(options.scenario, options.mutant)
    first, _, last = options.seeds.partition(":")
    sources = digest_of_sources()
    done = _done(options.results, sources)
    todo = [start for start in range(int(first), int(last), CHUNK) if start not in done]
    total, failed = Tally(), dict[int, str]()
    for earlier in done.values():
        total += earlier
    for start, tally, broken in _run(todo, int(last), options.jobs, options.mutant):
        total += tally
        failed |= broken
        if options.results is not None and not broken:
            with options.results.open("a", encoding="utf-8") as file:
                file.write(f"{start} {sources} {tally.to_json()}\n")
        sys.stderr.write(f"\r{total.seeds} seeds, {total.steps} steps, {len(failed)} broken ")
        if options.mutant and failed:
            break
    print("\n" + total.table())  # noqa: T201  what was asked for
    missed = [] if options.covered is None else total.missed(options.covered)
    for floor in missed:
        print(f"missed: {floor}")  # noqa: T201
    return max(_verdict(failed, options.mutant), min(1, len(missed)))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m powerd.sim.faults", description=__doc__)
    parser.add_argument("--seeds", default="0:2000", help="FIRST:LAST, LAST not included (default %(default)s)")
    parser.add_argument("--results", type=Path, help="file of results: what these sources played adds up")
    parser.add_argument(
        "--covered",
        type=float,
        metavar="SHARE",
        help="hold what was covered against the floors of the proof: 1 = all of it, 0.03 = three parts in a hundred",
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes (default %(default)s)")
    parser.add_argument("--scenario", type=Path, help="one scenario from a file instead")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break one rule: the run must find it")
    options = parser.parse_args(arguments)
    if options.results is not None and any(int(seed) % CHUNK for seed in options.seeds.split(":")):
        parser.error(f"with --results both ends of --seeds are multiples of {CHUNK}, so that no seed counts twice")
    return options


def digest_of_sources(begun_at: Path = Path(__file__)) -> str:
    """Short digest of a module and all that it imports of powerd: what different sources played does not add up."""
    return digest_of(begun_at)[:12]


def _done(results: Path | None, sources: str) -> dict[int, Tally]:
    """First seed of a line -> its tally; without what other sources played, and what a kill left of a last line."""
    if results is None or not results.exists():
        return {}
    text = results.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        results.write_text(whole, encoding="utf-8")
    lines = [line.split(" ", 2) for line in whole.splitlines()]
    done = {int(start): Tally.of_json(rest) for start, by, rest in lines if by == sources}
    if len(done) < len(lines):
        sys.stderr.write(f"{len(lines) - len(done)} of {len(lines)} lines are of other sources and do not count\n")
    return done


def _run(todo: list[int], last: int, jobs: int, mutant: str | None) -> Iterator[tuple[int, Tally, dict[int, str]]]:
    """(first seed, tally, what broke) of each chunk; few chunks wait at a time, so that a long run stays small."""
    if mutant is not None or jobs == 1:
        with mutated(mutant):
            for start in todo:
                yield start, *run_seeds(start, min(start + CHUNK, last))
        return
    with ProcessPoolExecutor(jobs) as pool:
        for group in _batched(todo, 4 * jobs):
            ends = [min(start + CHUNK, last) for start in group]
            for start, result in zip(group, pool.map(run_seeds, group, ends), strict=True):
                yield start, *result


def _batched(numbers: list[int], size: int) -> Iterator[list[int]]:
    """In groups of ``size``."""
    for first in range(0, len(numbers), size):
        yield numbers[first : first + size]


def _verdict(failed: dict[int, str], mutant: str | None) -> int:
    for seed, why in sorted(failed.items()):
        print(f"seed {seed}: {why}")  # noqa: T201
    if mutant is not None:
        print(f"mutant {mutant} {'caught' if failed else 'GOT AWAY'}")  # noqa: T201
        return 0 if failed else 1
    if failed:
        seed = min(failed)
        print(f"# {failed[seed]}\n{shrunk(drawn(seed))}")  # noqa: T201  ready to be a regression test
    return 1 if failed else 0


def _replay(path: Path, mutant: str | None) -> int:
    with mutated(mutant):
        found = failure_of(read(path.read_text(encoding="utf-8")))
    print(found or "holds")  # noqa: T201
    return 0 if found is None else 1
