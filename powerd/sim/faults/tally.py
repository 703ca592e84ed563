"""What runs have covered: steps, faults by kind and by pair, rules at work after faults; adds up over files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

from powerd.sim.faults.kinds import FAULTS, Kind, Rule

STEPS, FAULTS_IN_ALL, OF_EACH_KIND, OF_EACH_PAIR = 5_000_000, 250_000, 5_000, 100
"""What the whole proof has at least of each; a part of it has its share."""
BINDING_PERCENT = 30
"""Steps in which a limit holds somebody back, at least [percent]."""


@dataclass(kw_only=True)
class Tally:
    """Counts; two of them add up."""

    seeds: int = 0
    steps: int = 0
    """Steps that were not idle."""
    idle: int = 0
    """Steps with no car, or without a daemon that decides: not counted above."""
    binding: int = 0
    """Counted steps in which a limit held somebody back."""
    faults: Counter[str] = field(default_factory=Counter)
    """Kind -> injected."""
    pairs: Counter[str] = field(default_factory=Counter)
    """"kind+kind" -> the second within one ttl after the first, either order."""
    rules: Counter[str] = field(default_factory=Counter)
    """"rule|kind" -> steps in which the rule worked within one ttl after the fault; "rule|" = at all."""

    def __add__(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            seeds=self.seeds + other.seeds,
            steps=self.steps + other.steps,
            idle=self.idle + other.idle,
            binding=self.binding + other.binding,
            faults=self.faults + other.faults,
            pairs=self.pairs + other.pairs,
            rules=self.rules + other.rules,
        )

    def to_json(self) -> str:
        """One line."""
        return json.dumps(vars(self), sort_keys=True)

    @staticmethod
    def of_json(line: str) -> Tally:
        """The line read again."""
        found = json.loads(line)
        counters = {name: Counter(found[name]) for name in ("faults", "pairs", "rules")}
        return Tally(
            seeds=found["seeds"], steps=found["steps"], idle=found["idle"], binding=found["binding"], **counters
        )

    def table(self) -> str:
        """Rule by fault kind, kinds by their counts, the rarest pair."""
        width = max(len(rule) for rule in Rule)
        lines = [f"{'':>{width}}  " + " ".join(f"{k:>4}" for k in range(len(FAULTS)))]
        for rule in Rule:
            cells = " ".join(f"{_short(self.rules[f'{rule}|{kind}']):>4}" for kind in FAULTS)
            lines.append(f"{rule:>{width}}  {cells}")
        lines.append("")
        lines += [f"{k:>3} {kind:<16} {self.faults[kind]:>9}" for k, kind in enumerate(FAULTS)]
        pairs = self._of_pairs()
        rare = min(pairs, key=lambda pair: pairs[pair])
        counted = f"{self.seeds} seeds, {self.steps} steps ({self.idle} idle ones not counted)"
        lines += [
            "",
            f"{counted}, {self.faults.total()} faults, a limit binds in {self._binding_percent():.0f} % of the steps",
            f"{len(pairs)} pairs of kinds within one ttl, the rarest ({rare}) {pairs[rare]} times",
        ]
        return "\n".join(lines)

    def missed(self, share: float) -> list[str]:
        """Which floors of the proof are missed, with the figures; ``share`` of the whole proof was asked for."""
        kinds, pairs = {str(kind): self.faults[kind] for kind in FAULTS}, self._of_pairs()
        worked = {f"{rule} after {kind}": self.rules[f"{rule}|{kind}"] for rule in Rule for kind in FAULTS}
        checks = (
            ({"steps": self.steps}, share * STEPS),
            ({"faults": self.faults.total()}, share * FAULTS_IN_ALL),
            (kinds, share * OF_EACH_KIND),
            (pairs, share * OF_EACH_PAIR),
            (worked, 1),
            ({"percent of the steps with a binding limit": self._binding_percent()}, BINDING_PERCENT),
        )
        return [
            f"{name}: {count:g} of at least {floor:g}"
            for counts, floor in checks
            for name, count in counts.items()
            if count < floor
        ]

    def _of_pairs(self) -> dict[str, int]:
        return {pair_of(a, b): self.pairs[pair_of(a, b)] for a in FAULTS for b in FAULTS}

    def _binding_percent(self) -> float:
        return 100.0 * self.binding / max(1, self.steps)


def pair_of(one: Kind, other: Kind) -> str:
    """The name of a pair, whichever came first."""
    return "+".join(sorted((one, other)))


def _short(count: int) -> str:
    """At most four characters."""
    if count < 10_000:
        return str(count)
    return f"{count // 1000}k" if count < 1_000_000 else f"{count // 1_000_000}M"
