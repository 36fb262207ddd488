"""Derives, from how a body declares its plain fields, a value that each takes and the values that it refuses."""

from typing import Any

from rest_framework import serializers
from rest_framework.fields import empty

from pipedai.api.fields import NameField, TextField, TrueFalseField, WholeNumberField

_PLAIN = (NameField, TextField, TrueFalseField, WholeNumberField, serializers.ChoiceField)
# Values of other JSON types than the one that a field takes.
_NO_TEXT: tuple[Any, ...] = (5, ["x"], {})
_NO_NUMBER: tuple[Any, ...] = ("1", 1.5, True, [])
_NOT_TRUE_OR_FALSE: tuple[Any, ...] = (1, 0, "true", [])


def plain_fields(body: type[serializers.Serializer[Any]]) -> dict[str, Any]:
    """Returns the fields of a body by name, without those that the body validates by code of their own."""
    return {
        name: field
        for name, field in body().fields.items()
        if type(field) in _PLAIN and not hasattr(body, f"validate_{name}")
    }


def samples_of(body: type[serializers.Serializer[Any]]) -> dict[str, Any]:
    """Returns a value of each plain field, other than the field's default."""
    return {name: _sample(name, field) for name, field in plain_fields(body).items()}


def defaults_of(body: type[serializers.Serializer[Any]]) -> dict[str, Any]:
    """Returns the default of each plain field that may be left out."""
    fields = plain_fields(body).items()
    return {name: field.default for name, field in fields if field.default is not empty}


def refused_by(field: Any) -> list[tuple[Any, str]]:
    """Returns values that a plain field refuses, each with the message."""
    null = [] if field.allow_null else [(None, "This field may not be null.")]
    if isinstance(field, TrueFalseField):
        return null + [(each, "Must be true or false.") for each in _NOT_TRUE_OR_FALSE]
    if isinstance(field, serializers.ChoiceField):
        wrong = ("", "unheard-of", *map(str.title, field.choices), 1, [*field.choices])
        return null + [(each, f'"{each}" is not a valid choice.') for each in wrong]
    if isinstance(field, WholeNumberField):
        low: Any = field.min_value
        high: Any = field.max_value
        return [
            *null,
            *[(each, "Must be a whole number.") for each in _NO_NUMBER],
            (low - 1, f"Ensure this value is greater than or equal to {low}."),
            (high + 1, f"Ensure this value is less than or equal to {high}."),
        ]
    blank = () if field.allow_blank else ("", "  ")
    longest = field.max_length
    return [
        *null,
        *[(each, "Must be a string.") for each in _NO_TEXT],
        *[(each, "This field may not be blank.") for each in blank],
        ("x" * (longest + 1), f"Ensure this field has no more than {longest} characters."),
    ]


def bounds_taken_by(field: Any) -> list[Any]:
    """Returns the values at the bounds of a plain field, which it takes."""
    if isinstance(field, TrueFalseField):
        return [True, False]
    if isinstance(field, serializers.ChoiceField):
        return list(field.choices)
    if isinstance(field, WholeNumberField):
        return [field.min_value, field.max_value]
    return ["x" * field.max_length, *([""] if field.allow_blank else [])]


def _sample(name: str, field: Any) -> Any:
    if isinstance(field, NameField | TextField):
        return f"Some {name}"[: field.max_length]
    if isinstance(field, TrueFalseField):
        return field.default is not True
    return next(each for each in reversed(bounds_taken_by(field)) if each != field.default)
