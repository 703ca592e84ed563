"""Scenarios: what happens when, drawn from a seed or read from a file."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

from powerd.sim.faults.kinds import FAULTS, Kind
from powerd.sim.faults.sites import COUNT, RATING_A, layout

STEPS = 100
"""Steps of a drawn scenario before everything is healed."""
FAULT_RATE = 0.12
"""Chance of a fault in a step."""
TOGETHER = 0.35
"""Chance that another one comes with it."""
RANKED_RATE = 0.4
"""Chance that sessions are of different classes: who of a lower one comes waits for his first grant."""
EXPIRY_RATE = 0.4
"""Chance that a lease is brought to its end while its meter shows little: then nothing but E covers the car."""

LATE_HELLO_RATE = 0.15
"""Chance that a controller connects anew, and that its hello is held up for about as long as a lease lives."""
CALLS_RATE = 0.3
"""Chance that a controller asks by single calls, from the beginning or from some time on, for a while or to the end."""
OF_CALLS = (
    Kind.DROP_UP,
    Kind.DROP_DOWN,
    Kind.COPY_UP,
    Kind.LATE_UP,
    Kind.LATE_DOWN,
    Kind.CUT,
    Kind.OWNER_KILLED,
    Kind.CRASH_LOWERED,
    Kind.JOURNAL_LOST,
    Kind.EPOCH_AHEAD,
    Kind.UNPLUG,
    Kind.PLUG,
)
"""What befalls it then: lost, repeated and late requests and answers, and what a hello would tell of on a stream."""
KEPT_RATE = 0.3
"""Chance that the daemon starts from a tick that the disk refused, and whose cars are no more those that are there."""
LATE_PROCESS_RATE = 0.3
"""Chance that what a process said last is heard when its successor has told of another car."""
NEW_HELLO = (Kind.CRASH_IDLE, Kind.CRASH_LOWERED, Kind.JOURNAL_LOST, Kind.EPOCH_AHEAD, Kind.OWNER_KILLED, Kind.CUT)
"""After these it says hello."""


@dataclass(frozen=True, kw_only=True)
class Happening:
    """One thing that happens."""

    step: int
    """At the beginning of this step."""
    kind: Kind
    target: int = 0
    """EVSE, controller or limit, as the kind says; taken modulo their number."""
    value: float = 0.0
    """Seconds, share or count, as the kind says."""

    def __str__(self) -> str:
        """One line of a scenario file."""
        return f"{self.step} {self.kind} {self.target} {self.value:g}"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A site and what happens there."""

    site: int
    """Number of the site."""
    steps: int
    """Steps of one second before everything is healed."""
    happenings: tuple[Happening, ...]
    """In order of their steps."""

    def __str__(self) -> str:
        """The scenario as a file."""
        return "\n".join((f"site {self.site}", f"steps {self.steps}", *map(str, self.happenings))) + "\n"


def read(text: str) -> Scenario:
    """A scenario from a file; lines that start with # are for people.

    Raises:
        ValueError: a line is no happening.
    """
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    heads = {words[0]: int(words[1]) for words in lines if words[0] in {"site", "steps"}}
    happenings = tuple(
        Happening(step=int(step), kind=Kind(kind), target=int(target), value=float(value))
        for step, kind, target, value in (words for words in lines if words[0] not in {"site", "steps"})
    )
    return Scenario(site=heads["site"], steps=heads["steps"], happenings=happenings)


SPANS: dict[Kind, tuple[float, float]] = {
    Kind.DROP_DOWN: (1, 4),
    Kind.DROP_UP: (1, 3),
    Kind.COPY_DOWN: (0.5, 12),
    Kind.COPY_UP: (0.5, 6),
    Kind.LATE_DOWN: (1, 16),
    Kind.LATE_UP: (1, 8),
    Kind.HELD_DOWN: (1, 25),
    Kind.HELD_UP: (1, 25),
    Kind.CUT: (0, 6),
    Kind.CALLS: (16, 60),
    Kind.PARTITION: (2, 25),
    Kind.CRASH_IDLE: (0, 8),
    Kind.CRASH_DECIDED: (0, 8),
    Kind.CRASH_LOWERED: (0, 8),
    Kind.CRASH_TORN: (0, 8),
    Kind.CRASH_COMMITTED: (0, 8),
    Kind.CRASH_RAISED: (0, 8),
    Kind.REBOOT: (3, 25),
    Kind.JOURNAL_LOST: (0, 10),
    Kind.SLOW_DISK: (1, 6),
    Kind.DISK_REFUSES: (1, 12),
    Kind.DISK_KEEPS: (1, 12),
    Kind.STALL: (1, 20),
    Kind.UTC_JUMP: (-30, 30),
    Kind.OWNER_STOPPED: (1, 25),
    Kind.OWNER_KILLED: (0, 20),
    Kind.OWNER_LATE: (3, 25),
    Kind.OWNER_TWIN: (2, 20),
    Kind.OWNER_REBOOT: (2, 20),
    Kind.POST_REBOOT: (1, 6),
    Kind.SLOW_ACTUATOR: (0.5, 8),
    Kind.POST_DEAF: (2, 30),
    Kind.EPOCH_AHEAD: (1, 40),
    Kind.LAGGING: (4, 15),
    Kind.DEFIANT: (10, 90),
    Kind.METER_SILENT: (5, 40),
    Kind.METER_LYING: (0.2, 2.5),
    Kind.CURTAIL: (0.55, 0.95),
}
"""Range that a kind's value is drawn from."""


def drawn(seed: int) -> Scenario:
    """The scenario of a seed: cars come and go, limits move, and faults come in bursts."""
    chance = random.Random(seed)  # noqa: S311
    site = chance.randrange(COUNT)
    posts = layout(site).site.electrical.posts.count
    happenings = [
        Happening(step=chance.randrange(4), kind=Kind.PLUG, target=k, value=chance.choice((32.0, 32.0, 32.0, 16.0)))
        for k in range(posts)
        if chance.random() < 0.8
    ]
    for step in range(4, STEPS):
        happenings += _life(chance, step, posts)
        if chance.random() < FAULT_RATE:
            happenings.append(_fault(chance, step))
            while chance.random() < TOGETHER:
                happenings.append(_fault(chance, min(STEPS - 1, step + chance.choice((0, 0, 0, 1, 1, 2, 3)))))
    happenings += _ranks(random.Random(f"ranks {seed}"), posts)  # noqa: S311
    happenings += _expiry(random.Random(f"expiry {seed}"), site)  # noqa: S311
    happenings += _late_hello(random.Random(f"late hello {seed}"), site)  # noqa: S311
    happenings += _calls(random.Random(f"calls {seed}"), site)  # noqa: S311
    happenings += _kept(random.Random(f"kept {seed}"), site)  # noqa: S311
    happenings += _late_process(random.Random(f"late process {seed}"), site)  # noqa: S311
    happenings += couple(random.Random(f"couple {seed}"), site, *couple_of(seed))  # noqa: S311
    return Scenario(site=site, steps=STEPS, happenings=tuple(sorted(happenings, key=lambda one: one.step)))


def _ranks(chance: random.Random, posts: int) -> list[Happening]:
    """Some sessions are of a higher class than the others, early or late in their stay."""
    if chance.random() >= RANKED_RATE:
        return []
    steps = [chance.choice((chance.randrange(4), chance.randrange(STEPS))) for _ in range(posts)]
    return [
        Happening(step=step, kind=Kind.RANK, target=k, value=5.0)
        for k, step in enumerate(steps)
        if chance.random() < 0.5
    ]


def _expiry(chance: random.Random, site: int) -> list[Happening]:
    """A lease that ends in silence, its last reading a small one; often its controller dies just before that.

    A stale reading counts until another one comes, so a car that drew its ceiling hides a lease that ends too early. So
    do renewals, which go on for a ttl: only what a lowering left behind ends when it must, so the limits fall.
    """
    if chance.random() >= EXPIRY_RATE:
        return []
    electrical, terms = layout(site).site.electrical, layout(site).site.terms
    evse = chance.randrange(electrical.posts.count)
    owner, ttl = int(electrical.posts.controller[evse]), int(terms.ttl_s[evse])
    step = chance.randrange(20, 60)
    found = [
        Happening(step=step - 3, kind=Kind.METER_LYING, target=evse, value=0.1),
        Happening(step=step, kind=Kind.PARTITION, target=owner, value=2.0 * ttl + 4.0),
        Happening(step=step + chance.randrange(2), kind=Kind.TRIP),
    ]
    if chance.random() < 0.6:
        dies = step + ttl - chance.randrange(6)
        found.append(Happening(step=dies, kind=Kind.OWNER_KILLED, target=owner, value=10.0))
    return found


def _late_hello(chance: random.Random, site: int) -> list[Happening]:
    """A controller that connects anew says what it holds about when that ends, or later: what it held was lent on."""
    if chance.random() >= LATE_HELLO_RATE:
        return []
    terms, owners = layout(site).site.terms, len(layout(site).site.electrical.controllers.ids)
    life_s = float(terms.ttl_s.max() + terms.reaction_s.max())
    step, owner = chance.randrange(20, 50), chance.randrange(owners)
    return [
        replace(_fault_of(chance, chance.choice(NEW_HELLO), step), target=owner),
        Happening(step=step + chance.randrange(3), kind=Kind.CUT, target=owner, value=0.1),
        Happening(
            step=step + chance.randrange(4),
            kind=Kind.HELD_UP,
            target=owner,
            value=round(chance.uniform(0.5 * life_s, life_s + 8.0), 1),
        ),
    ]


def _calls(chance: random.Random, site: int) -> list[Happening]:
    """A controller that asks by single calls, and what befalls it meanwhile."""
    if chance.random() >= CALLS_RATE:
        return []
    owner = chance.randrange(len(layout(site).site.electrical.controllers.ids))
    step = chance.choice((0, chance.randrange(10, 60)))
    calls = Happening(step=step, kind=Kind.CALLS, target=owner, value=chance.choice((2.0 * STEPS, 20.0, 35.0, 50.0)))
    steps = [chance.randrange(step + 2, min(STEPS, step + 45)) for _ in range(chance.randrange(2, 6))]
    return [calls, *(replace(_fault_of(chance, chance.choice(OF_CALLS), at), target=owner) for at in steps)]


def _kept(chance: random.Random, site: int) -> list[Happening]:
    """A tick in which a car left is refused and kept, another car comes, and the daemon dies: it starts from that."""
    if chance.random() >= KEPT_RATE:
        return []
    evse = chance.randrange(layout(site).site.electrical.posts.count)
    step, lasts = chance.randrange(15, 70), round(chance.uniform(2.0, 6.0), 1)
    crash = chance.choice((Kind.CRASH_IDLE, Kind.CRASH_DECIDED, Kind.CRASH_LOWERED, Kind.CRASH_TORN))
    return [
        Happening(step=step - 10, kind=Kind.PLUG, target=evse, value=RATING_A),  # if none is there
        Happening(step=step, kind=Kind.UNPLUG, target=evse),
        Happening(step=step + 1, kind=Kind.SLOW_DISK, value=round(chance.uniform(0.5, 1.5), 1)),
        Happening(step=step + 2, kind=Kind.PLUG, target=evse, value=RATING_A),
        Happening(step=step + chance.randrange(1, 3), kind=Kind.DISK_KEEPS, value=lasts),
        Happening(step=step + 2 + int(lasts), kind=crash, value=chance.choice((0.0, 1.0, 3.0))),
    ]


def _late_process(chance: random.Random, site: int) -> list[Happening]:
    """A car comes or leaves between the last word of a process and the moment in which it is heard, by either way."""
    if chance.random() >= LATE_PROCESS_RATE:
        return []
    owner = chance.randrange(len(layout(site).site.electrical.controllers.ids))
    step, late_s = chance.randrange(20, 60), round(chance.uniform(4.0, 14.0), 1)
    change = chance.choice((Kind.PLUG, Kind.PLUG, Kind.UNPLUG))
    before = Kind.UNPLUG if change is Kind.PLUG else Kind.PLUG
    found = [
        Happening(step=step - 10, kind=before, target=owner, value=RATING_A),  # its first EVSE has its number
        Happening(step=step, kind=Kind.OWNER_LATE, target=owner, value=late_s),
        Happening(step=step + 3, kind=change, target=owner, value=RATING_A),
    ]
    if chance.random() < 0.5:
        calls = step + chance.choice((-15, 1, 2))
        found.append(Happening(step=calls, kind=Kind.CALLS, target=owner, value=40.0))
    return found


PAIRS = tuple(combinations_with_replacement(FAULTS, 2))
"""Each seed plays one of them, so that the rarest is not left to chance."""


def couple_of(seed: int) -> tuple[Kind, Kind]:
    """The pair of kinds that a seed plays whatever chance adds: each in turn, then each the other way round."""
    one, other = PAIRS[seed % len(PAIRS)]
    return (other, one) if seed // len(PAIRS) % 2 else (one, other)


def couple(chance: random.Random, site: int, first: Kind, second: Kind) -> list[Happening]:
    """Two faults within one ttl, the first as short as it may be: whoever is still down cannot suffer the second."""
    ttl = int(layout(site).site.terms.ttl_s.max())
    post = chance.randrange(layout(site).site.electrical.posts.count)
    step, low = chance.randrange(10, STEPS - 20), SPANS.get(first, (0, 0))[0]
    after = step + chance.randint(min(ttl, max(2, math.ceil(low) + 2)), ttl)
    one, other = (replace(_fault_of(chance, k, at), target=post) for k, at in ((first, step), (second, after)))
    car = Happening(step=step - 5, kind=Kind.PLUG, target=post, value=RATING_A)  # if none is there
    return [car, replace(one, value=low), other]


def _life(chance: random.Random, step: int, posts: int) -> list[Happening]:
    """Cars that come and go; what was limited or stopped is freed again."""
    found = []
    if chance.random() < 0.10:
        target = chance.randrange(posts)
        found.append(Happening(step=step, kind=Kind.UNPLUG, target=target))
        if chance.random() < 0.8:
            after = min(STEPS - 1, step + chance.choice((0, 0, 1, 2, 6)))
            found.append(Happening(step=after, kind=Kind.PLUG, target=target, value=32.0))
    if chance.random() < 0.05:
        found.append(Happening(step=step, kind=Kind.RESTORE))
    if chance.random() < 0.05:
        found.append(Happening(step=step, kind=Kind.RELEASE))
    return found


def _fault(chance: random.Random, step: int) -> Happening:
    """One fault of any kind."""
    return _fault_of(chance, chance.choice(FAULTS), step)


def _fault_of(chance: random.Random, kind: Kind, step: int) -> Happening:
    """One of this kind."""
    low, high = SPANS.get(kind, (0, 0))
    value = round(chance.uniform(low, high), 1)
    if kind in {Kind.DROP_DOWN, Kind.DROP_UP, Kind.EPOCH_AHEAD, Kind.UTC_JUMP}:
        value = round(value)
    target = chance.randrange(3 if kind in {Kind.CURTAIL, Kind.TRIP} else 12)
    return Happening(step=step, kind=kind, target=target, value=value)
