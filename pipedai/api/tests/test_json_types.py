"""No field of any body converts one JSON type into another: `5` is no text, `"5"` no number, and `1` is not true."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, is_dataclass
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from rest_framework import serializers

from pipedai.api.fields import MoneyField
from pipedai.api.serializers import Body
from testing.probes.api_urls import api_routes, operation_of_action
from triggers.runs.outcome import UNREADABLE

# Values of each JSON type, and texts and numbers that a careless field would convert.
VALUES: list[Any] = [
    *(0, 1, 5, 60, -1, 1.0, 2.5, 1e300, True, False),
    *("", "0", "1", "5", "60", "1.0", "true", "false", "on", "null", "[]", "{}", "[1]", '{"a": 1}'),
    *([], [1], ["a"], [[]], [None], {}, {"a": 1}, {"a": "b"}, {"a": None}, {"0": "a"}),
]
# What a value may become, by its JSON type. Ids and times are texts.
BECOMES: dict[type, tuple[type, ...]] = {
    bool: (bool,),
    int: (int, float),
    float: (int, float),
    str: (str, UUID, date),
    list: (list,),
    dict: (dict,),
}
A_TIME, A_HASH = "2100-01-01T00:00:00Z", "0" * 64
# A valid value of each field that itself reads what is inside an object or a list.
READ_INSIDE: dict[str, Any] = {
    "EventsField": [
        {"seq": 1, "at": A_TIME, "type": "message", "text": "Hello.", "data": {"a": 1}}
    ],
    "FieldsField": {"ref": "/ref"},
    "McpHeadersField": {"x-api-key": "an-example"},
    "WhenField": [{"path": "/status", "op": "eq", "value": "failed"}],
    "FeaturesField": ["approvals"],
    "ProblemsField": [{"code": "no_claude", "message": "There is none."}],
    "ToolCallsField": {"total": 3, "effects": 2, "unknown": 1},
    "ToolCallListField": [
        {"at": A_TIME, "tool": "send", "durationMs": 3, "outcome": "ok", "effect": "possible"}
    ],
    "RetryAfterField": 3,
    "UsageLimitField": {"resetsAt": A_TIME, "kind": "five_hour"},
    "OutputField": {"text": "a", "number": 1, "truth": True},
    "QuestionField": {
        "tool": "send",
        "arguments": {"to": "a", "copies": 1},
        "argumentsHash": A_HASH,
        "toolSchemaHash": A_HASH,
    },
    "LookedField": {"digest": A_HASH, "lookedAt": A_TIME, "nothingNew": True},
    "DenialsField": {"total": 2, "tools": ["send"]},
    "NullField": None,
    "ToolsField": ["send"],
}
# Fields that read one value, and those whose inner fields are looked at by themselves.
_PLAIN = (
    serializers.BooleanField,
    serializers.CharField,
    serializers.ChoiceField,
    serializers.DateTimeField,
    serializers.IntegerField,
    serializers.UUIDField,
    serializers.BaseSerializer,
    serializers.DictField,
    serializers.ListField,
    MoneyField,
)
# A number that no sample has, and what stands for it as a text.
MARK = 7310


def bodies(of: type[Body] = Body) -> Iterator[type[Body]]:
    """Yields every body of the service, also those inside of other bodies and those that files describe."""
    for body in of.__subclasses__():
        if ".tests." not in body.__module__:
            yield body
        yield from bodies(body)


def fields(name: str, holder: Any) -> Iterator[tuple[str, Any]]:
    """Yields the fields of a body or a list, at any depth, with their dotted names."""
    inner = dict(holder.fields) if isinstance(holder, serializers.Serializer) else {}
    child = getattr(holder, "child", None)
    for key, field in ({**inner, "*": child} if child is not None else inner).items():
        yield f"{name}.{key}", field
        yield from fields(f"{name}.{key}", field)


def all_fields() -> dict[str, Any]:
    # All bodies are subclasses of Body as soon as the URLs are loaded.
    asked = {operation_of_action(*route).body for route in api_routes()} - {None, Body}
    found = set(bodies())
    assert len(asked) > 40
    assert asked <= found
    return {name: field for body in found for name, field in fields(body.__name__, body())}


def converted(field: Any) -> list[tuple[Any, Any]]:
    """Returns each value of which the field makes one of another type, with what it makes."""
    found = []
    for value in VALUES:
        becomes = BECOMES[type(value)]
        if isinstance(field, MoneyField) and type(value) in {int, float, str}:
            # API.md allows a decimal string for an amount.
            becomes = (Decimal,)
        try:
            # The bounds of a number would refuse a converted one as well, so they are left out.
            made = field.to_internal_value(value)
        except serializers.ValidationError:
            continue
        # Reports of workers forgive what is wrong, and keep nothing of it.
        forgiven = made in (None, [], "[]", UNREADABLE)
        if not (forgiven or isinstance(made, becomes)) or isinstance(made, bool) > (
            bool in becomes
        ):
            found.append((value, made))
    return found


def test_no_field_converts_a_value() -> None:
    wrong = {name: converted(field) for name, field in all_fields().items()}
    assert {name: found for name, found in wrong.items() if found} == {}


def changed(sample: Any) -> Iterator[tuple[Any, Any]]:
    """Yields the sample with each of its leaves as a value of another type, and what that would be if converted."""
    if isinstance(sample, dict | list):
        for key in sample if isinstance(sample, dict) else range(len(sample)):
            for other, forbidden in changed(sample[key]):
                copy = deepcopy(sample)
                copy[key] = other
                yield copy, forbidden
    elif isinstance(sample, bool):
        yield "true", True
    elif isinstance(sample, int | float):
        yield str(MARK), MARK
    elif isinstance(sample, str):
        yield MARK, str(MARK)


def leaves(value: Any) -> Iterator[Any]:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from leaves(each)
    else:
        yield value


def test_no_field_converts_what_is_inside_of_its_value() -> None:
    names = set()
    for name, field in all_fields().items():
        if (kind := type(field).__name__) not in READ_INSIDE:
            # Any JSON is kept as it is. Another field that reads what is inside needs a sample above.
            as_it_is = isinstance(field, serializers.JSONField) or kind == "_UnvalidatedField"
            assert as_it_is or isinstance(field, _PLAIN), name
            continue
        names.add(kind)
        sample = READ_INSIDE[kind]
        if sample is not None:
            assert field.run_validation(sample), name
        for value, forbidden in changed(sample):
            try:
                made = field.run_validation(value)
            except serializers.ValidationError:
                continue
            same = [each for each in leaves(made) if each == forbidden]
            assert [each for each in same if type(each) is type(forbidden)] == [], (name, value)
    assert names == set(READ_INSIDE)
