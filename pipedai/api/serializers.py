"""Base serializers. An unknown field is an error in a body that people send, and is ignored in a worker's body."""

from collections.abc import Callable
from functools import cache
from itertools import islice
from operator import itemgetter
from typing import Any, ClassVar

from rest_framework import serializers
from rest_framework.fields import SkipField
from rest_framework.request import Request

from pipedai.api.declared import Declaring, declare
from pipedai.api.errors import Invalid
from pipedai.api.fields import MoneyField
from pipedai.api.renderers import attribute_name

# A body may have a hundred thousand unknown fields. Nobody reads more errors than this.
_MOST_UNKNOWN = 100


# The validated values of a request's body, under their names in snake_case.
Values = dict[str, Any]


class NamedSerializer(serializers.Serializer[Any]):
    """Finds the value of a field under the field's name in snake_case, unless the field has a `source`.

    The serializer of an answer may name in `of` the models, or the dataclass, that declare its values, and in `shows`
    its fields in order, with spaces between them. It then declares only fields that are no column or attribute.
    Without `shows` it has all attributes of the dataclass.
    """

    # Whether values are found under the fields' own names, because they are stored as the JSON that the API shows.
    keeps_names: ClassVar[bool] = False
    of: ClassVar[Declaring] = ()
    shows: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if {"of", "shows"} & vars(cls).keys():
            cls._declared_fields = declare(cls._declared_fields, cls.of, cls.shows, serializer_of)

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        if not self.keeps_names:
            for name, field in fields.items():
                attribute = attribute_name(name)
                if field.source is None and attribute != name:
                    field.source = attribute
        return fields


@cache
def serializer_of(declaring: type[Any]) -> type[NamedSerializer]:
    """Returns the serializer of a dataclass, which has its name and its docstring in the schema."""
    about = {"__doc__": declaring.__doc__, "of": declaring}
    return type(declaring.__name__, (NamedSerializer,), about)


class Body(NamedSerializer):
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
        given = data if isinstance(data, dict) else {}
        unknown = (name for name in given if name not in self.fields)
        errors |= {name: ["Unknown field."] for name in islice(unknown, _MOST_UNKNOWN)}
        if errors:
            raise serializers.ValidationError(errors)
        return values


class NoBody(StrictBody):
    """The body of an endpoint that takes no fields; an unknown field is an error."""


class InnerBody(StrictBody):
    """An object inside of a body. A PATCH may leave out fields of the body, but no field of such an object."""

    keeps_names = True

    def bind(self, field_name: str, parent: Any) -> None:
        super().bind(field_name, parent)
        # DRF asks the outermost serializer whether fields may be left out.
        self._is_partial = getattr(parent.root, "partial", False)
        self.parent = None  # type: ignore[assignment]

    def get_default(self) -> Any:
        if self._is_partial:
            raise SkipField
        return super().get_default()


def read_body(serializer: type[Body], request: Request, *, partial: bool = False) -> dict[str, Any]:
    """Returns the validated values of the request's body under their snake_case names. Raises for a bad body."""
    if not isinstance(request.data, dict):
        raise Invalid(form=["The body must be a JSON object."])
    return validated(serializer, request.data, partial=partial)


def validated(serializer: type[Body], data: Any, *, partial: bool = False) -> dict[str, Any]:
    """Does what `read_body` does, for an object that did not come in a request. Raises DRF's ValidationError."""
    return dict(_validator(serializer, partial).run_validation(data))


@cache
def _validator(serializer: type[Body], partial: bool) -> Body:
    # All requests share this serializer, because DRF copies all fields for each new one, which takes longer than the
    # validation. It keeps no state of a request. See docs/decisions/fast-paths.md.
    return serializer(partial=partial)


class RowSerializer(NamedSerializer):
    """Makes an answer from one row, which is a dict, in a third of the time of DRF's serializer. Fields convert
    nothing, because the renderer knows all types of rows; only method fields compute. A field that would convert its
    value raises TypeError when the class is defined.
    """

    # This method refuses a subclass whose fields convert values, because RowSerializer does not call such conversions.
    # See docs/decisions/fast-paths.md.
    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        ignored = [name for name, field in cls._declared_fields.items() if _converts(field)]
        if ignored:
            raise TypeError(
                f"{cls.__name__}: RowSerializer would ignore how these fields convert their values: {ignored}."
                " Use SerializerMethodField (docs/decisions/fast-paths.md)."
            )

    def __init__(self, instance: Any = None, **kwargs: Any) -> None:
        # DRF collects the error messages of all parent classes for each instance, and a row has no errors. With `many`
        # the instance is no row, and DRF needs all attributes. See docs/decisions/fast-paths.md.
        if isinstance(instance, dict) and not kwargs:
            self.instance = instance
        else:
            super().__init__(instance, **kwargs)

    @property
    def data(self) -> Any:
        """The answer as a plain dict. DRF would copy it into a dict that knows its serializer."""
        row: Any = self.instance
        return self.to_representation(row)

    def to_representation(self, instance: dict[str, Any]) -> dict[str, Any]:
        return {name: read(self, instance) for name, read in _readers(type(self))}


# The `to_representation` methods of the fields that return a row's value unchanged.
_GIVE_IT_BACK = frozenset(
    kind.to_representation
    for kind in (
        serializers.BooleanField,
        serializers.CharField,
        serializers.ChoiceField,
        serializers.DateField,
        serializers.DateTimeField,
        serializers.DictField,
        serializers.FloatField,
        serializers.IntegerField,
        serializers.JSONField,
        serializers.ListField,
        serializers.UUIDField,
        MoneyField,
    )
)


def _converts(field: Any) -> bool:
    if isinstance(field, serializers.SerializerMethodField | serializers.BaseSerializer):
        return False
    if type(field).to_representation not in _GIVE_IT_BACK or "format" in field._kwargs:
        return True
    holds_others = isinstance(field, serializers.DictField | serializers.ListField)
    return holds_others and _converts(field.child)


@cache
def _readers(serializer: type[RowSerializer]) -> list[tuple[str, Callable[[Any, Any], Any]]]:
    return [(name, _reader(name, field)) for name, field in serializer().fields.items()]


def sources_of(serializer: type[serializers.Serializer[Any]]) -> frozenset[str]:
    """Returns the columns that a query must load for this serializer, except those that its method fields read."""
    fields = serializer().fields.values()
    return frozenset(
        str(field.source)
        for field in fields
        if not isinstance(field, serializers.SerializerMethodField)
    )


def _reader(name: str, field: Any) -> Callable[[Any, Any], Any]:
    """Returns the function that reads one field's value from a row. The function takes the serializer and the row."""
    if isinstance(field, serializers.SerializerMethodField):
        method = f"get_{name}"
        return lambda serializer, row: getattr(serializer, method)(row)
    value_of = itemgetter(field.source)
    if isinstance(field, serializers.BaseSerializer):
        return lambda _, row: None if (v := value_of(row)) is None else field.to_representation(v)
    return lambda _, row: value_of(row)
