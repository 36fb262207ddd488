"""Base serializers: bodies, strict for configuration and tolerant for the machine protocol (SPEC §2); and rows."""

from collections.abc import Callable
from functools import cache
from operator import itemgetter
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.errors import Invalid


class Body(serializers.Serializer[Any]):
    """A request body that ignores unknown fields, so that newer and older workers interoperate."""


class StrictBody(Body):
    """A request body in which an unknown field is an error, so that a typo is seen."""

    def to_internal_value(self, data: Any) -> Any:
        """The validated values; raises for unknown and for invalid fields together."""
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
    """The validated values of the request's body, by their attribute (snake_case) names. Raises for a bad body."""
    if not isinstance(request.data, dict):
        raise Invalid(form=["The body must be a JSON object."])
    return dict(_validator(serializer, partial).run_validation(request.data))


@cache
def _validator(serializer: type[Body], partial: bool) -> Body:
    # One for all requests, since each new instance copies all its fields, which takes longer than to use them.
    # Validation keeps nothing in it.
    return serializer(partial=partial)


class RowSerializer(serializers.Serializer[Any]):
    """An answer made of one row, a dict: each field is the row's value under its source, as it is.

    The renderer knows all types that rows hold, so no field converts anything; a method field works out its value.
    A third of the time of DRF's own, which copies all fields for each instance and looks for each value in six ways.
    """

    def to_representation(self, instance: dict[str, Any]) -> dict[str, Any]:
        """The row as it goes out."""
        return {name: read(self, instance) for name, read in _readers(type(self))}


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
    """How one field's value is got, from the serializer and the row."""
    if isinstance(field, serializers.SerializerMethodField):
        method = f"get_{name}"
        return lambda serializer, row: getattr(serializer, method)(row)
    value_of = itemgetter(field.source)
    if isinstance(field, serializers.BaseSerializer):
        return lambda _, row: None if (v := value_of(row)) is None else field.to_representation(v)
    return lambda _, row: value_of(row)
