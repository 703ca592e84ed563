"""What an imported net's rows become: a list of elements of each kind, and the maker that turns a row into one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from powerd.faults import Severity
from powerd.network.drawing import Findings
from powerd.network.netfile import NetFile, Row, number
from powerd.site.codes import Code
from powerd.site.schema import Bus, Element, Feeder, Load, Supply, Switch, Transformer
from powerd.site.tree import Path

E = TypeVar("E", bound=Element)

#: Below this power factor a load is taken as its apparent power at 1.0: the current is the same, and all that matters.
_LOW_FACTOR = 0.1
#: A place in the imported net: anything beyond the user's own.
IN_NET: Path = ("network", 0)


@dataclass(kw_only=True)
class Wires:
    """Elements of an imported net."""

    buses: list[Bus] = field(default_factory=list)
    supplies: list[Supply] = field(default_factory=list)
    transformers: list[Transformer] = field(default_factory=list)
    feeders: list[Feeder] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    auxiliary: dict[str, str] = field(default_factory=dict)
    """Buses between an element and its switch, each with the bus on the switch's other side."""


@dataclass(kw_only=True)
class Maker:
    """Makes elements of rows; a row that cannot be one becomes a fault."""

    net: NetFile
    names: dict[int, str]
    findings: Findings
    moved: dict[tuple[str, Any, Any], str] = field(default_factory=dict)
    """(table, index, bus) of an element's end to the auxiliary bus that it was moved to."""

    def end(self, table: str, index: int, value: Any) -> str:
        """Bus at one end of a line or transformer, behind its switch if it has one."""
        return self.moved.get((table, index, value), self.bus(value)) if isinstance(value, int) else self.bus(value)

    def bus(self, value: Any) -> str:
        """Id of the bus with index ``value``."""
        return self.names.get(value, f"bus:{value}") if isinstance(value, int) else f"bus:{value}"

    def make(self, into: list[E], of: type[E], name: str, row: Row, buses: dict[str, str], **fields: Any) -> None:
        """Append an element ``of`` a kind at ``buses``, with ``fields``; what is None falls to its default."""
        stated = {key: value for key, value in fields.items() if value is not None}
        title = row.get("name")
        whole = {
            "id": name,
            "title": title if isinstance(title, str) else "",
            "in_service": row.get("in_service", True),
            **dict.fromkeys(buses, "bus"),
            **stated,
        }
        try:
            element = of.model_validate(whole)
        except ValidationError as error:
            for one in error.errors(include_url=False):
                key = ".".join(str(step) for step in one["loc"])
                self.bad(name, f"{key}: {one['msg'].lower()}, found {_short(one['input'])}")
            return
        # Bus ids are set afterwards: an auxiliary bus has an id that no person may write.
        into.append(element.model_copy(update=buses))

    def bad(self, name: str, message: str) -> None:
        """A row that cannot be used."""
        mend = f"mend {name} in the net and save it again"
        self.findings.add(Code.NET_BAD_VALUE, IN_NET, name, message, mend)

    def load(self, into: list[Load], name: str, row: Row, p_mw: Any, q_mvar: Any, phases: str) -> None:
        """One uncontrolled load; what the net says is also the worst it can be."""
        scaling = number(row, "scaling")
        factor = 1000.0 * (1.0 if scaling is None else scaling)
        p, q = (number({"x": value}, "x") for value in (p_mw, q_mvar))
        if p is None or q is None:
            self.bad(name, f"p_mw and q_mvar are {p_mw} and {q_mvar}, not numbers")
            return
        kw, kva = p * factor, math.hypot(p, q) * factor
        if kw < 0:
            mend = "model it as sgen, or mend its sign"
            message = f"feeds {-kw:g} kW back, which powerd does not count on"
            self.findings.add(Code.NET_IGNORED, IN_NET, name, message, mend, Severity.WARNING)
        elif kva > 0:
            power = kw / kva
            shown = (kw, power) if power >= _LOW_FACTOR else (kva, 1.0)
            self.make(
                into,
                Load,
                name,
                row,
                {"bus": self.bus(row.get("bus"))},
                typical_kw=shown[0],
                worst_kw=shown[0],
                power_factor=shown[1],
                phases=phases,
            )


def _short(value: Any) -> str:
    return "nothing" if value is None or isinstance(value, dict) else str(value)[:40]
