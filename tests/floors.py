"""The house as a table, and the inspector that walks every import of ``powerd/`` against it.

Rules: a room imports only rooms on floors below its own; rooms on one floor are strangers unless the table lists them
as ``friends``; every module belongs to a room; some libraries may enter only some rooms; the core reads no clock and
draws no random numbers. Imports count wherever they stand: at the head of a module, under ``TYPE_CHECKING``, inside a
function, or as a string given to ``importlib.import_module`` or ``__import__``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import resolve_name
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Floor:
    """One floor of the drawing."""

    name: str
    """As in the README's drawing."""
    rooms: tuple[str, ...]
    """Modules or packages directly under ``powerd``."""
    friends: tuple[tuple[str, str], ...] = ()
    """(importer, imported) pairs that may meet although they share the floor."""
    core: bool = False
    """Time is an argument here: no clock, no randomness."""


HOUSE = (
    Floor(name="ROOF", rooms=("__main__", "cli", "daemon"), friends=(("__main__", "cli"), ("cli", "daemon"))),
    Floor(name="ANNEX", rooms=("studies", "sim", "reports"), friends=(("studies", "sim"),)),
    Floor(name="DOORS", rooms=("server", "client", "gateways", "journal", "dashboard")),
    Floor(name="THE TICK", rooms=("control",), core=True),
    Floor(name="PLAN", rooms=("schedule",), core=True),
    Floor(name="WORKSHOPS", rooms=("network", "allocation"), core=True),
    Floor(name="PAPER", rooms=("site", "state"), core=True),
    Floor(
        name="WORDS",
        rooms=("units", "errors", "faults", "limits", "compiled", "codec"),
        friends=(
            ("errors", "faults"),
            ("errors", "units"),
            ("limits", "units"),
            ("limits", "compiled"),
            ("codec", "compiled"),
        ),
        core=True,
    ),
)

DOORS = ("powerd.server", "powerd.client", "powerd.gateways", "powerd.journal", "powerd.dashboard")
WIRE = (*DOORS, "powerd.sim", "powerd.daemon")  # sim moves the stepped clock, the daemon wires the doors

#: Library -> the modules (or packages, with all below them) that may import it.
CONFINED = {
    "pandapower": ("powerd.network.load", "powerd.network.build", "powerd.network.flow"),
    "powerd.v1": (*DOORS, "powerd.sim", "powerd.v1"),
    "google.protobuf": (*WIRE, "powerd.v1"),
    "google.rpc": WIRE,
    "grpc": (*WIRE, "powerd.v1"),
    "grpc_health": WIRE,
    "grpc_reflection": WIRE,
}

#: What the core may not touch, by dotted name; a prefix forbids all below it.
IMPURE = (
    *(f"time.{clock}{ns}" for clock in ("time", "monotonic", "perf_counter", "process_time") for ns in ("", "_ns")),
    *(f"time.{clock}" for clock in ("clock_gettime", "clock_gettime_ns", "localtime", "gmtime", "sleep")),
    *(f"datetime.datetime.{clock}" for clock in ("now", "utcnow", "today")),
    "datetime.date.today",
    "random",
    "secrets",
    "numpy.random",
    "os.urandom",
    "uuid.uuid1",
    "uuid.uuid4",
)

IMPORTERS = ("importlib.import_module", "importlib.__import__", "builtins.__import__", "__import__", "runpy.run_module")


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import found in a module."""

    line: int
    """1-based line."""
    target: str
    """Absolute dotted name; of ``from a import b`` it is ``a.b``."""


def offences(root: Path) -> list[str]:
    """All breaches of the house rules under ``root/powerd``, each as ``file:line: what``; empty = the drawing holds."""
    found: list[str] = []
    for path in sorted((root / "powerd").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[:2] == ("powerd", "v1"):
            continue  # generated
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        package = module if parts[-1] == "__init__" else module.rpartition(".")[0]
        found += (f"{path.relative_to(root)}:{line}: {what}" for line, what in _inspect(tree, module, package))
    return found


def _inspect(tree: ast.Module, module: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, breach) for one module."""
    floor = _floor_of(module)
    if floor is None and module != "powerd":
        yield 1, f"{module} belongs to no room of the house (tests/floors.py)"
        return
    names = _aliases(tree, package)
    yield from _dynamic(tree, names)
    for found in _imports(tree, package, names):
        breach = _arrow(module, found.target) or _confinement(module, found.target)
        if breach:
            yield found.line, breach
    if floor is not None and HOUSE[floor].core:
        yield from _impurities(tree, names)


def _floor_of(module: str) -> int | None:
    """Index into HOUSE (0 = roof), None where the module is in no room."""
    room = _room_of(module)
    return next((index for index, floor in enumerate(HOUSE) if room in floor.rooms), None)


def _room_of(module: str) -> str:
    """``powerd.network.rows`` -> ``network``; empty for ``powerd`` itself."""
    return module.partition(".")[2].partition(".")[0]


def _arrow(module: str, target: str) -> str | None:
    """The breach of an import between rooms, None where the arrow points down or leaves the house."""
    if not _within(target, "powerd") or _within(target, "powerd.v1"):
        return None
    importer, imported = _room_of(module), _room_of(target)
    if target == "powerd":
        return f"{module} imports powerd as a whole: name the room"
    if importer == imported:
        return None
    here, there = _floor_of(module), _floor_of(target)
    if there is None:
        return f"{module} imports {target}, which is no room of the house"
    if here is None or there < here:
        return f"{module} imports {target}, an arrow up: {HOUSE[there].name} lies above"
    if there == here and (importer, imported) not in HOUSE[here].friends:
        return f"{module} imports {target}, an arrow sideways: rooms of {HOUSE[here].name} are strangers"
    return None


def _confinement(module: str, target: str) -> str | None:
    """The breach of a library that may enter only some rooms."""
    for library, rooms in CONFINED.items():
        if _within(target, library) and not any(_within(module, room) for room in rooms):
            return f"{module} imports {target}: {library} may enter only {', '.join(rooms)}"
    return None


def _within(name: str, prefix: str) -> bool:
    """Whether ``name`` is ``prefix`` or lies below it."""
    return name == prefix or name.startswith(f"{prefix}.")


def _imports(tree: ast.Module, package: str, names: dict[str, str]) -> Iterator[Import]:
    """Every import of the module, with absolute targets."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(line=node.lineno, target=alias.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                base = _base(node, package)
                yield Import(line=node.lineno, target=base if alias.name == "*" else f"{base}.{alias.name}")
        elif isinstance(node, ast.Call) and _dotted(node.func, names) in IMPORTERS:
            target = _constant_target(node)
            if target is not None:
                yield Import(line=node.lineno, target=target)


def _base(node: ast.ImportFrom, package: str) -> str:
    """Absolute name of what stands between ``from`` and ``import``."""
    return resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""


def _constant_target(call: ast.Call) -> str | None:
    """The module a call such as ``import_module(".rows", "powerd.network")`` imports; None where it is computed."""
    values = [argument.value if isinstance(argument, ast.Constant) else None for argument in _name_and_package(call)]
    if not values or not isinstance(values[0], str):
        return None
    name = values[0]
    if not name.startswith("."):
        return name
    anchor = values[1] if len(values) > 1 else None
    return resolve_name(name, anchor) if isinstance(anchor, str) else None


def _name_and_package(call: ast.Call) -> list[ast.expr]:
    """The first two arguments, however they are passed."""
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    return call.args[:2] + [keywords[key] for key in ("name", "mod_name", "package") if key in keywords]


def _dynamic(tree: ast.Module, names: dict[str, str]) -> Iterator[tuple[int, str]]:
    """Imports whose target is computed: nobody can hold those against the drawing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _dotted(node.func, names) in IMPORTERS and _constant_target(node) is None:
            yield node.lineno, "imports a module whose name is computed: write the name"


def _aliases(tree: ast.Module, package: str) -> dict[str, str]:
    """Local name -> dotted name, for all that imports bind anywhere in the module."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            names |= {alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names}
    return names


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """Dotted name of an attribute chain with its first part resolved; empty for anything else."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id if node.id == "__import__" else "")
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value, names)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _impurities(tree: ast.Module, names: dict[str, str]) -> Iterator[tuple[int, str]]:
    """Uses of a clock or of randomness, by import, attribute or imported name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            name = _dotted(node, names)
            if name in IMPURE:
                yield node.lineno, f"the core uses {name}: time and chance are arguments"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
                if any(_within(name, forbidden) for forbidden in IMPURE):
                    yield node.lineno, f"the core imports {name}: time and chance are arguments"
