"""The `where` clauses and the `fields` by which triggers and channels choose from a JSON document.

Documents hold what `json.loads` returns. A module of the worker compares the values, as its looks have such clauses.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from json import JSONEncoder
from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.fields import TextField, is_finite_number
from pipedai.api.renderers import compact_json
from pipedai.api.serializers import InnerBody
from pipedai_worker.clauses import MISSING, find, holds
from triggers.approvals.rules import MAX_TOOL_NAME

MAX_CLAUSES = 20
MAX_FIELDS = 50
MAX_PATH = 500
_MAX_NAME = 100
# How many bytes of compact JSON all clauses, or all fields, of a list may take together.
_MAX_BYTES = 16 * 1024
# How many bytes of compact JSON the value of one clause may take.
_MAX_VALUE_BYTES = 4 * 1024
_MAX_ARGUMENTS_BYTES = 8 * 1024
# How many characters the clauses about one document may search for `contains`. Python needs up to 3.5 ns for each, and
# an event may meet 20,000 clauses about a text of 256 KiB.
MAX_SEARCHED = 128 * 1024 * 1024
# How many characters of the value that it saw are shown with a clause that does not hold.
_LONGEST_SEEN = 200

# Reference tokens as RFC 6901 §3 writes them: `~` only as `~0` or `~1`.
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*")


class Op(StrEnum):
    EQ = "eq"
    NE = "ne"
    IN = "in"
    EXISTS = "exists"
    CONTAINS = "contains"
    STARTS_WITH = "startsWith"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"


@dataclass(frozen=True, slots=True)
class Clause:
    """A validated clause, prepared for many documents. `members` has what an `in` lists, by JSON type."""

    path: str
    op: str
    value: Any
    members: dict[str, frozenset[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, clause: dict[str, Any]) -> "Clause":
        members = _by_type(clause["value"]) if clause["op"] == Op.IN else {}
        return cls(**clause, members=members)


@lru_cache(maxsize=128)
def clauses_of(text: str) -> tuple[Clause, ...]:
    """Returns the validated clauses of a JSON text. A process prepares each text once, while it is used, and not again
    for each document.
    """
    return tuple(map(Clause.of, json.loads(text)))


@dataclass(frozen=True)
class Failing:
    """The first clause that did not hold. `saw` is the JSON text of the value at its path, cut to 200 characters, or
    None where there was no value.
    """

    path: str
    op: str
    value: Any
    saw: str | None

    def as_json(self) -> dict[str, Any]:
        # `asdict` would copy the value, and an event may have a hundred of them.
        return {"path": self.path, "op": self.op, "value": self.value, "saw": self.saw}


class TooLarge(Exception):  # noqa: N818 - named as what the document is
    """The document is too large for what triggers do with it."""


@dataclass(slots=True)
class Searched:
    """What `contains` has searched in one document: the strings, numbers, booleans and nulls in each list, as `_member`
    returns them, by the `id` of the list, and the number of characters in strings.
    """

    members: dict[int, frozenset[str]] = field(default_factory=dict)
    characters: int = 0


def first_failing(
    clauses: Iterable[Clause], document: Any, searched: Searched | None = None
) -> Failing | None:
    """Returns the first of the clauses that does not hold for the document, or None if all of them hold. All
    calls about one document may share `searched`. Raises TooLarge.
    """
    searched = searched or Searched()
    for clause in clauses:
        seen = find(document, clause.path)
        if not _holds(clause, seen, searched):
            saw = None if seen is MISSING else shown(seen)
            return Failing(clause.path, clause.op, clause.value, saw)
    return None


def _holds(clause: Clause, seen: Any, searched: Searched) -> bool:
    """Returns whether the clause holds for the value at its path. It searches a long list only once for all clauses,
    because an event may meet 20,000 clauses of listeners, and other customers' requests wait meanwhile. Raises TooLarge
    if they search long strings too often.
    """
    op, value = clause.op, clause.value
    if op == Op.IN:
        return (
            seen is not MISSING and _is_scalar(seen) and seen in clause.members.get(_type(seen), ())
        )
    if op == Op.CONTAINS and isinstance(seen, list):
        members = searched.members
        if id(seen) not in members:
            members[id(seen)] = frozenset(_member(item) for item in seen if _is_scalar(item))
        return _member(value) in members[id(seen)]
    if op == Op.CONTAINS and isinstance(seen, str):
        searched.characters += len(seen)
        if searched.characters > MAX_SEARCHED:
            raise TooLarge
    return holds(op, seen, value)


def _member(value: Any) -> str:
    """Returns a text that only equal values of one JSON type share. It is no number, because a sender could choose
    numbers that Python hashes alike, which make a set slow.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{type(value).__name__} {value}"


def _by_type(values: list[Any]) -> dict[str, frozenset[Any]]:
    """Returns the values by their JSON types. They are so few that those which Python hashes alike do no harm."""
    types: defaultdict[str, set[Any]] = defaultdict(set)
    for value in values:
        types[_type(value)].add(value)
    return {name: frozenset(found) for name, found in types.items()}


def _type(value: Any) -> str:
    """Returns the name of a scalar's JSON type. In Python a boolean is a number, in JSON it is not."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if is_number else type(value).__name__


def pick(fields: dict[str, str], document: Any) -> dict[str, Any]:
    """Returns the document's value at each path under the path's name. It is None where there is no value."""
    found = {name: find(document, path) for name, path in fields.items()}
    return {name: None if value is MISSING else value for name, value in found.items()}


def scalar_at(path: str, document: Any) -> str | int | float | bool | None:
    """Returns the string, number or boolean at the path, or None if there is something else or nothing."""
    value = find(document, path)
    return value if isinstance(value, str | int | float) else None


def shown(value: Any) -> str:
    """Returns the value as JSON text. It stops where the text is cut, because an event has up to 100 listeners."""
    if isinstance(value, str):
        value = value[: _LONGEST_SEEN + 1]
    text = ""
    for chunk in JSONEncoder(ensure_ascii=False, separators=(",", ":")).iterencode(value):
        text += chunk
        if len(text) > _LONGEST_SEEN:
            return f"{text[:_LONGEST_SEEN]}…"
    return text


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


# What the value of a clause must be for each operation, and the message for any other.
_SCALAR = (_is_scalar, "Must be a string, a number, a boolean or null.")
_NUMBER = (is_finite_number, "Must be a number.")
_VALUES: dict[Op, tuple[Callable[[Any], bool], str]] = {
    Op.EQ: _SCALAR,
    Op.NE: _SCALAR,
    Op.CONTAINS: _SCALAR,
    Op.IN: (
        lambda value: isinstance(value, list) and bool(value) and all(map(_is_scalar, value)),
        "Must be a list of strings, numbers, booleans and nulls, with at least one of them.",
    ),
    Op.EXISTS: (lambda value: isinstance(value, bool), "Must be true or false."),
    Op.STARTS_WITH: (lambda value: isinstance(value, str), "Must be a string."),
    Op.GT: _NUMBER,
    Op.GTE: _NUMBER,
    Op.LT: _NUMBER,
    Op.LTE: _NUMBER,
}


class PointerField(TextField):
    """A JSON Pointer (RFC 6901), such as `/pull_request/base/ref`. The empty one is the whole document."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_PATH, trim_whitespace=False, allow_blank=True, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if not _POINTER.fullmatch(value):
            raise serializers.ValidationError(
                "Must be a JSON Pointer, such as /action: empty or beginning with /, and ~ only as ~0 or ~1."
            )
        return value


class ClauseBody(InnerBody):
    path = PointerField()
    op = serializers.ChoiceField(choices=[(op.value, op.value) for op in Op])
    value = serializers.JSONField(allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(compact_json(attrs["value"]).encode()) > _MAX_VALUE_BYTES:
            raise serializers.ValidationError({"value": ["Must not be longer than 4 KiB."]})
        accepts, message = _VALUES[Op(attrs["op"])]
        if not accepts(attrs["value"]):
            raise serializers.ValidationError({"value": [message]})
        return dict(attrs)


class WhereField(serializers.ListField):
    """Up to 20 clauses, together at most 16 KiB of JSON. A valid value is a list of dicts for a JSON column."""

    child = ClauseBody()

    def to_internal_value(self, data: Any) -> list[Any]:
        # The number is checked first, so that no long list is validated only to be refused.
        if isinstance(data, list) and len(data) > MAX_CLAUSES:
            raise serializers.ValidationError(f"Must not hold more than {MAX_CLAUSES} clauses.")
        clauses: list[Any] = super().to_internal_value(data)
        _check_size(clauses)
        return clauses


CHANGED: Final = "changed"


_CLAUSES: Final = {
    "type": "array",
    "items": {"type": "object"},
    "minItems": 1,
    "maxItems": MAX_CLAUSES,
}


@extend_schema_field({"oneOf": [{"type": "string", "enum": [CHANGED]}, _CLAUSES]})
class RunIfField(serializers.JSONField):
    """When a look has found something new: `changed`, or the clauses that all have to hold for its result."""

    where = WhereField()

    def to_internal_value(self, data: Any) -> Any:
        if data == CHANGED:
            return data
        if not isinstance(data, list) or not data:
            raise serializers.ValidationError("Must be changed, or a list of clauses.")
        return self.where.run_validation(data)


@extend_schema_field({"type": "object", "additionalProperties": True})
class ArgumentsField(serializers.JSONField):
    """The arguments of a call, at most 8 KiB. They are shown to all members, so they are no place for secrets."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise serializers.ValidationError("Must be an object.")
        if len(compact_json(data).encode()) > _MAX_ARGUMENTS_BYTES:
            raise serializers.ValidationError("Must not be longer than 8 KiB.")
        return data


class LookBody(InnerBody):
    """The call by which a run looks for something new before its agent starts. A change replaces it as a whole."""

    tool = TextField(max_length=MAX_TOOL_NAME, trim_whitespace=False)
    arguments = ArgumentsField(default={})
    runIf = RunIfField(default=CHANGED)  # type: ignore[arg-type]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        return dict(attrs)


@extend_schema_field(
    {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": MAX_FIELDS}
)
class FieldsField(serializers.DictField):
    """Up to 50 names, each with the JSON Pointer of its value, which together take at most 16 KiB."""

    child = PointerField()

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if isinstance(data, dict) and not 1 <= len(data) <= MAX_FIELDS:
            raise serializers.ValidationError(f"Must hold 1 to {MAX_FIELDS} names.")
        fields: dict[str, str] = super().to_internal_value(data)
        if not all(1 <= len(name) <= _MAX_NAME for name in fields):
            raise serializers.ValidationError(f"A name must have 1 to {_MAX_NAME} characters.")
        _check_size(fields)
        return fields


def _check_size(value: Any) -> None:
    if len(compact_json(value).encode()) > _MAX_BYTES:
        raise serializers.ValidationError("Must not be longer than 16 KiB.")
