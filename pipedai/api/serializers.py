"""Base serializers for request bodies and for rows.

Bodies are strict for configuration and tolerant for the machine protocol (SPEC §2).
"""

from collections.abc import Callable
from functools import cache
from operator import itemgetter
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.errors import Invalid
from pipedai.api.fields import MoneyField


class Body(serializers.Serializer[Any]):
    """A request body that ignores unknown fields, so that the service can talk to newer and older workers."""


class StrictBody(Body):
    """A request body in which an unknown field is an error, so that the caller notices a typo."""

    def to_internal_value(self, data: Any) -> Any:
        """Returns the validated values. Raises one error for all unknown and invalid fields together."""
        errors: dict[str, Any] = {}
        try:
            values = super().to_internal_value(data)
        except serializers.ValidationError as error:
            errors = dict(error.detail) if isinstance(error.detail, dict) else {}
            values = {}
        errors |= {name: ["Unknown field."] for name in data if name not in self.fields}
        if errors:
            raise serializers.ValidationError(errors)
        return values


def read_body(serializer: type[Body], request: Request, *, partial: bool = False) -> dict[str, Any]:
    """Returns the validated values of the request's body under their snake_case names. Raises for a bad body."""
    if not isinstance(request.data, dict):
        raise Invalid(form=["The body must be a JSON object."])
    return dict(_validator(serializer, partial).run_validation(request.data))


@cache
def _validator(serializer: type[Body], partial: bool) -> Body:
    # One for all requests, since each new instance copies all its fields, which takes longer than to use them.
    # Validation keeps nothing in it. See docs/decisions/fast-paths.md.
    return serializer(partial=partial)


class RowSerializer(serializers.Serializer[Any]):
    """Makes an answer from one row, which is a dict. Each field is the row's value under its source, unchanged.

    The renderer knows all types that rows hold, so no field converts anything; a method field works out its value.
    This takes a third of the time of DRF's own, which copies all fields for each instance and looks for each value in
    six ways. A class with a field that converts its value is refused when it is created, by a TypeError.
    """

    # See docs/decisions/fast-paths.md.
    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        ignored = [name for name, field in cls._declared_fields.items() if _converts(field)]
        if ignored:
            raise TypeError(
                f"{cls.__name__}: RowSerializer would ignore how these fields convert their values: {ignored}."
                " Use SerializerMethodField (docs/decisions/fast-paths.md)."
            )

    def to_representation(self, instance: dict[str, Any]) -> dict[str, Any]:
        """Returns the fields of the answer by name."""
        return {name: read(self, instance) for name, read in _readers(type(self))}


# What these give back for the value of a row, or of its JSON, is that value.
_GIVE_IT_BACK = frozenset(
    kind.to_representation
    for kind in (
        serializers.BooleanField,
        serializers.CharField,
        serializers.ChoiceField,
        serializers.DateTimeField,
        serializers.DictField,
        serializers.IntegerField,
        serializers.JSONField,
        serializers.ListField,
        serializers.UUIDField,
        MoneyField,
    )
)


def _converts(field: Any) -> bool:
    """Whether a field's `to_representation` would change a value, and RowSerializer does not call it."""
    if isinstance(field, serializers.SerializerMethodField | serializers.BaseSerializer):
        return False
    if type(field).to_representation not in _GIVE_IT_BACK or "format" in field._kwargs:
        return True
    holds_others = isinstance(field, serializers.DictField | serializers.ListField)
    return holds_others and _converts(field.child)


@cache
def _readers(serializer: type[RowSerializer]) -> list[tuple[str, Callable[[Any, Any], Any]]]:
    return [(name, _reader(name, field)) for name, field in serializer().fields.items()]


def sources_of(serializer: type[RowSerializer]) -> frozenset[str]:
    """The columns that a query must load for this serializer. Those that its method fields read are not among them."""
    fields = serializer().fields.values()
    return frozenset(
        str(field.source)
        for field in fields
        if not isinstance(field, serializers.SerializerMethodField)
    )


def _reader(name: str, field: Any) -> Callable[[Any, Any], Any]:
    """Returns a function that gets the field's value from the serializer and the row."""
    if isinstance(field, serializers.SerializerMethodField):
        method = f"get_{name}"
        return lambda serializer, row: getattr(serializer, method)(row)
    value_of = itemgetter(field.source)
    if isinstance(field, serializers.BaseSerializer):
        return lambda _, row: None if (v := value_of(row)) is None else field.to_representation(v)
    return lambda _, row: value_of(row)
