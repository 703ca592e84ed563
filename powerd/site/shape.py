"""Faults of shape: what pydantic says about one value, told in a site engineer's words.

Every error becomes a located fault, and the offending key (or, where the element cannot do without it, the element) is
taken out of the tree, so that the rest can still be checked in the same pass.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from powerd.faults import Fault
from powerd.site.codes import Code
from powerd.site.schema import SiteFile
from powerd.site.tree import Path, Place, Tree

_CODES = {
    "extra_forbidden": Code.UNKNOWN_KEY,
    "missing": Code.MISSING_KEY,
    "literal_error": Code.UNKNOWN_CHOICE,
    "enum": Code.UNKNOWN_CHOICE,
    "string_pattern_mismatch": Code.BAD_FORM,
    "string_too_long": Code.BAD_FORM,
    "greater_than": Code.OUT_OF_RANGE,
    "greater_than_equal": Code.OUT_OF_RANGE,
    "less_than": Code.OUT_OF_RANGE,
    "less_than_equal": Code.OUT_OF_RANGE,
    "finite_number": Code.OUT_OF_RANGE,
}
_NUMBER_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
_WANTED = {
    "float": "a number without unit",
    "int": "a whole number",
    "bool": "true or false",
    "string": "a word; a number, true or null as a word needs quotes",
    "list": "a list, one element a line, each after a dash",
    "model": "keys and values, one a line",
}
_ABSENT = object()
#: What stands in for a section that cannot be used and has no default.
_STAND_IN: dict[str, Any] = {"site": "unnamed", "controller_classes": [], "controllers": [], "evse_types": []}


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What was taken out of the tree because of its faults."""

    ids: frozenset[str]
    """Ids of whole elements that were taken out: still drawn, only not understood."""
    words: frozenset[str]
    """Every word in what was taken out: buses and other elements it may have referred to."""
    whole: bool
    """True where nothing but single keys was taken out."""


def validate(tree: Tree, file: str) -> tuple[SiteFile | None, list[Fault], Removed]:
    """Make a SiteFile of a parsed file; ``tree.value`` and ``tree.place`` are pruned in place.

    Returns:
        The site (None only where nothing of it is usable), the faults, and what had to be left out.
    """
    faults: list[Fault] = []
    gone: list[tuple[Any, bool]] = []
    for _ in range(3):  # a section may become faulty by what was taken out of it; more than one such round is not known
        try:
            return SiteFile.model_validate(tree.value), faults, _removed(gone)
        except ValidationError as error:
            details = error.errors(include_url=False)
        for path, detail in _by_path(tree.value, details).items():
            faults.append(_fault(tree, file, path, detail))
        gone += _prune(tree, [_existing(tree.value, detail["loc"]) for detail in details])
    return None, faults, _removed(gone)


def _existing(tree: Any, loc: Path) -> Path:
    """The part of pydantic's ``loc`` that is in the tree: branches of unions and missing keys are not."""
    path: list[str | int] = []
    for step in loc:
        inner = _part(tree, step)
        if inner is _ABSENT:
            break
        tree = inner
        path.append(step)
    return tuple(path)


def _part(value: Any, step: str | int) -> Any:
    """One part of plain data, or ``_ABSENT``."""
    if isinstance(value, dict) and isinstance(step, str):
        return value.get(step, _ABSENT)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return _ABSENT


def _by_path(value: Any, details: list[ErrorDetails]) -> dict[Path, ErrorDetails]:
    """One error a place: a value that fits no branch of a union has one error for each."""
    found: dict[Path, ErrorDetails] = {}
    for detail in details:
        loc = detail["loc"]
        found.setdefault(loc if detail["type"] == "missing" else _existing(value, loc), detail)
    return found


def _fault(tree: Tree, file: str, path: Path, detail: ErrorDetails) -> Fault:
    code = _CODES.get(detail["type"], Code.WRONG_TYPE)
    message, mend = _words(code, path, detail)
    return Fault(
        file=file,
        line=tree.place.at(*path),
        code=code,
        element=element_at(tree.value, path),
        message=message,
        mend=mend,
    )


def _words(code: Code, path: Path, detail: ErrorDetails) -> tuple[str, str]:
    """Message and mend for one error."""
    key = str(path[-1]) if path else "the file"
    found = _short(detail["input"])
    if code is Code.UNKNOWN_KEY:
        if key.isdigit():  # 1,1 in braces is 1, and then a key
            return f"there is no key {key}", "write decimals with a point, as in 1.5, or remove it"
        known = _keys_at(path[:-1])
        word, colon, rest = key.partition(":")
        if colon and word in known:
            return f"there is no key {key}", f"write {word}: {rest}, with a space after the colon"
        near = difflib.get_close_matches(key, known, n=1)
        return f"there is no key {key}", f"write {near[0]}" if near else f"remove it; possible: {', '.join(known)}"
    if code is Code.MISSING_KEY:
        return f"{key} is missing", f"add {key} ({_describe(path).rstrip('.')})"
    if code is Code.UNKNOWN_CHOICE:
        expected = str(detail.get("ctx", {}).get("expected", "")).replace("'", "")
        near = difflib.get_close_matches(found, expected.replace(" or ", ", ").split(", "), n=1)
        return f"{key} is {found}", f"write {near[0]}" if near else f"write {expected}"
    if code is Code.BAD_FORM:
        return f"{key} is {found}", f"write {_form(path)}"
    if code is Code.OUT_OF_RANGE:
        bounds = [f"{_NUMBER_BOUNDS[k]} {v:g}" for k, v in detail.get("ctx", {}).items() if k in _NUMBER_BOUNDS]
        return f"{key} is {found}", f"write a number {bounds[0]}" if bounds else "write a finite number"
    kind = detail["type"].split("_")[0]
    return f"{key} is {found}", f"write {_WANTED.get(kind, 'another kind of value')}"


def _form(path: Path) -> str:
    if path[:1] == ("station_groups",):
        return 'letters and digits with one {n}, e.g. "P{n:03}" (quoted)'
    if path[-1:] == ("vector_group",):
        return "a vector group with its clock number, e.g. Dyn11"
    return "letters, digits and _ . : / -, at most 64, starting with a letter or digit"


def _short(value: Any) -> str:
    text = "nothing" if value in (None, "") else "a mapping" if isinstance(value, dict) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def element_at(value: Any, path: Path) -> str:
    """Id of the innermost element around ``path``, or the path itself, dotted."""
    name = ".".join(str(step) for step in path) or "site"
    for step in path:
        name = _id_of(value) or name
        value = _part(value, step)
    return _id_of(value) or name


def _id_of(value: Any) -> str:
    """The id of an element, "" where it has none that is a word."""
    name = value.get("id") if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""


def _model_at(path: Path) -> type[BaseModel] | None:
    """The class that describes the mapping at ``path``."""
    model: type[BaseModel] | None = SiteFile
    for step in path:
        if isinstance(step, int) or model is None:
            continue
        model = _model_in(_annotation(model, step))
    return model


def _annotation(model: type[BaseModel], key: str) -> Any:
    for name, field in model.model_fields.items():
        if key in (name, field.alias):
            return field.annotation
    return None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part)) is not None), None)


def _keys_at(path: Path) -> list[str]:
    model = _model_at(path)
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def _describe(path: Path) -> str:
    """The docstring of the field at ``path``."""
    model = _model_at(path[:-1])
    for name, field in model.model_fields.items() if model is not None else ():
        if path[-1] in (name, field.alias):
            return field.description or ""
    return ""


def _required(model: type[BaseModel], key: str) -> bool:
    return any(key in (name, field.alias) and field.is_required() for name, field in model.model_fields.items())


def _prune(tree: Tree, paths: list[Path]) -> list[tuple[Any, bool]]:
    """Take out what is faulty: a key that has a default, else the element in its list, else put in a stand-in.

    Returns:
        What was taken out, each with True where it was a whole element.
    """
    gone: list[tuple[Any, bool]] = []
    # Inner before outer, later before earlier: no index shifts before it is used.
    for target in sorted({_removable(path) for path in paths}, key=_indices, reverse=True):
        gone += _take_out(tree, target)
    for key, stand_in in _STAND_IN.items():
        if isinstance(tree.value, dict) and key not in tree.value:
            tree.value[key] = stand_in
    return gone


def _indices(path: Path) -> list[int]:
    return [step if isinstance(step, int) else -1 for step in path]


def _removable(path: Path) -> Path:
    """The smallest thing around ``path`` that can be taken out."""
    while path:
        model = _model_at(path[:-1])
        if isinstance(path[-1], int):
            if _model_at(path) is not None and _is_element_list(path[:-1]):
                return path
        elif len(path) == 1 or (model is not None and not _required(model, path[-1])):
            return path
        path = path[:-1]
    return path


def _is_element_list(path: Path) -> bool:
    """Whether the list at ``path`` holds elements, not plain values."""
    model = _model_at(path[:-1])
    if model is None or not isinstance(path[-1], str):
        return False
    return _model_in(_annotation(model, path[-1])) is not None


def _take_out(tree: Tree, path: Path) -> list[tuple[Any, bool]]:
    if not path:
        return []
    value: Any = tree.value
    place: Place | None = tree.place
    for step in path[:-1]:
        value, place = _part(value, step), place.part(step) if place is not None else None
    if place is None:
        return []
    step = path[-1]
    if isinstance(value, list) and isinstance(step, int) and isinstance(place.inside, list):
        place.inside.pop(step)
        return [(value.pop(step), True)]
    if isinstance(value, dict) and isinstance(step, str) and step in value and isinstance(place.inside, dict):
        place.inside.pop(step, None)
        return [(value.pop(step), len(path) == 1 and _model_in(_annotation(SiteFile, step)) is not None)]
    return []


def _removed(gone: list[tuple[Any, bool]]) -> Removed:
    words = frozenset(word for value, _ in gone for word in _words_in(value))
    ids = frozenset(v["id"] for v, whole in gone if whole and isinstance(v, dict) and isinstance(v.get("id"), str))
    return Removed(ids=ids, words=words, whole=not any(whole for _, whole in gone))


def _words_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [word for part in parts for word in _words_in(part)]
