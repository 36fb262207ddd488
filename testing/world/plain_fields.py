"""Derives, from how a body declares its plain fields, a value that each takes and the values that it refuses.

A field is plain if its type says all, and no method of the body validates it. A new type of field that more than one
body has belongs here as well.
"""

from typing import Any

from rest_framework import serializers
from rest_framework.fields import empty

from pipedai.api.fields import (
    AmountField,
    NameField,
    SigningSecretField,
    TargetUrlField,
    TextField,
    TimezoneField,
    TrueFalseField,
    UrlField,
    WholeNumberField,
)

_PLAIN = (
    AmountField, NameField, SigningSecretField, TargetUrlField, TextField, TimezoneField, TrueFalseField, UrlField,
    WholeNumberField, serializers.ChoiceField,
)  # fmt: skip
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
    """Returns a value of each plain field that is shown again, other than the field's default."""
    return {name: _sample(name, field) for name, field in _shown(body).items()}


def defaults_of(body: type[serializers.Serializer[Any]]) -> dict[str, Any]:
    """Returns the default of each plain field that is shown again and may be left out."""
    fields = _shown(body).items()
    return {name: field.default for name, field in fields if field.default is not empty}


def _shown(body: type[serializers.Serializer[Any]]) -> dict[str, Any]:
    fields = plain_fields(body).items()
    return {name: field for name, field in fields if type(field) is not SigningSecretField}


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
    if isinstance(field, AmountField):
        least: list[Any] = [0, "0.0", -0.5] if field.above_zero else [-0.5]
        no_amounts: tuple[Any, ...] = (True, [], "1e2", "-1")
        return [
            *null,
            *[(each, "Must be a number or a decimal string.") for each in no_amounts],
            *[
                (each, f"Must be {'more than 0' if field.above_zero else 'at least 0'}.")
                for each in least
            ],
            ("0.0000001", "Must have at most six decimal places."),
            (1e9, "Must be at most 99,999,999."),
        ]
    blank = () if field.allow_blank else ("",) if type(field) is SigningSecretField else ("", "  ")
    longest = field.max_length
    begun = "https://hooks.example/" if isinstance(field, UrlField) else ""
    return [
        *null,
        *[(each, "Must be a string.") for each in _NO_TEXT],
        *[(each, "This field may not be blank.") for each in blank],
        (
            begun.ljust(longest + 1, "x"),
            f"Ensure this field has no more than {longest} characters.",
        ),
        *_REFUSED_TEXTS.get(type(field), ()),
    ]


_URLS = [
    *[
        (each, "Must be an http or https URL with a host.")
        for each in ("hooks.example", "ftp://hooks.example", "https://")
    ],
    ("https://user:pass@hooks.example", "Must not hold a user name or password."),
    ("https://hooks.example/a b", "Must not hold spaces or control characters."),
    ("https://hooks.example:port/", "Not a URL."),
]
_REFUSED_TEXTS = {
    UrlField: _URLS,
    TargetUrlField: [
        *_URLS,
        ("https://hooks.example:8443/", "Its port must be 80 or 443, unless WEBHOOK_ALLOWED_NETWORKS has its address."),
    ],
    SigningSecretField: [
        ("x" * 15, "Ensure this field has at least 16 characters."),
        ("whsec_not base64!!", "After whsec_ it must be base64."),
        ("whsec_abcdefghijk", "After whsec_ it must be base64."),
    ],
    TimezoneField: [
        (each, "Not a time zone of the IANA database, such as Europe/Berlin.") for each in ("Mars/Olympus", "America")
    ],
}  # fmt: skip


def bounds_taken_by(field: Any) -> list[Any]:
    """Returns the values at the bounds of a plain field, which it takes."""
    if isinstance(field, TrueFalseField):
        return [True, False]
    if isinstance(field, serializers.ChoiceField):
        return list(field.choices)
    if isinstance(field, WholeNumberField):
        return [field.min_value, field.max_value]
    most: Any = field.max_length if isinstance(field, TextField) else None
    if isinstance(field, UrlField):
        local = [] if isinstance(field, TargetUrlField) else ["http://127.0.0.1:9000/mcp"]
        return ["https://hooks.example/".ljust(most, "x"), *local]
    if isinstance(field, AmountField):
        return ["0.000001", "99999999"]
    if isinstance(field, TimezoneField):
        return ["America/Argentina/ComodRivadavia"]
    if isinstance(field, SigningSecretField):
        standard = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        return ["x" * field.MIN_LENGTH, "x" * most, standard]
    return ["x" * most, *([""] if field.allow_blank else [])]


def _sample(name: str, field: Any) -> Any:
    if isinstance(field, UrlField):
        return f"https://{name.lower()}.example/new"
    if isinstance(field, TimezoneField | AmountField):
        return "Europe/Berlin" if isinstance(field, TimezoneField) else "2.5"
    if isinstance(field, TextField):
        return f"Some {name}"[: field.max_length]
    if isinstance(field, TrueFalseField):
        return field.default is not True
    return next(each for each in reversed(bounds_taken_by(field)) if each != field.default)
