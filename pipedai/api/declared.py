"""Makes the fields of an answer from the columns of models or from a dataclass, which declare its values already."""

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import partial
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db import models
from rest_framework import serializers

from pipedai.api.fields import MoneyField
from pipedai.api.renderers import api_name, attribute_name

AnyField = serializers.Field[Any, Any, Any, Any]
# The declaration of values: a dataclass, a model, or several models, of which the first that has a column counts.
Declaring = type[Any] | tuple[type[Any], ...]

_OF_TYPES: dict[Any, type[AnyField]] = {
    UUID: serializers.UUIDField,
    datetime: serializers.DateTimeField,
    bool: serializers.BooleanField,
    int: serializers.IntegerField,
    Decimal: MoneyField,
    str: serializers.CharField,
}
_OF_COLUMNS: tuple[tuple[Any, type[AnyField]], ...] = (
    ((models.UUIDField, models.ForeignKey), serializers.UUIDField),
    (models.DateTimeField, serializers.DateTimeField),
    (models.BooleanField, serializers.BooleanField),
    (models.IntegerField, serializers.IntegerField),
    (models.DecimalField, MoneyField),
    ((models.CharField, models.TextField), serializers.CharField),
    (models.JSONField, serializers.JSONField),
)


def declare(
    declared: Mapping[str, AnyField], of: Declaring, shows: str, part: Callable[..., Any]
) -> dict[str, AnyField]:
    """Returns the fields of a serializer: its declared and inherited ones, and those that `shows` names, in that order.
    `part` returns the serializer of a dataclass inside another. Raises KeyError for a name that is declared nowhere.
    """
    if is_dataclass(of):
        hints = get_type_hints(of).items()
        values: Any = {name: partial(_of_type, hint, part) for name, hint in hints}
    else:
        tables = of if isinstance(of, tuple) else (of,)
        columns = [column for model in reversed(tables) for column in model._meta.concrete_fields]
        values = {column.attname: partial(_of_column, column) for column in columns}
    names = shows.split() or [api_name(name) for name in values]
    others = {name: field for name, field in declared.items() if name not in names}
    return others | {name: declared.get(name) or values[attribute_name(name)]() for name in names}


def _of_column(column: Any) -> Any:
    nullable: dict[str, Any] = {"allow_null": True} if column.null else {}
    if isinstance(column, ArrayField):
        return serializers.ListField(child=_of_column(column.base_field), **nullable)
    if column.choices:
        return serializers.ChoiceField(choices=column.choices, **nullable)
    return next(field for kind, field in _OF_COLUMNS if isinstance(column, kind))(**nullable)


def _of_type(hint: Any, part: Callable[..., Any]) -> Any:
    nullable: dict[str, Any] = {}
    if NoneType in get_args(hint):
        nullable = {"allow_null": True}
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) in (list, tuple):
        child = _of_type(get_args(hint)[0], part)
        is_part = isinstance(child, serializers.BaseSerializer)
        several: Any = serializers.ListSerializer if is_part else serializers.ListField
        return several(child=child, **nullable)
    if get_origin(hint) is dict and hint.__args__[1] is str:
        return serializers.DictField(child=serializers.CharField(), **nullable)
    if is_dataclass(hint):
        return part(hint)(**nullable)
    if get_origin(hint) is Literal:
        return serializers.ChoiceField(choices=get_args(hint), **nullable)
    if isinstance(hint, type) and issubclass(hint, Enum):
        choices = hint.choices if issubclass(hint, models.Choices) else [one.value for one in hint]
        return serializers.ChoiceField(choices=choices, **nullable)
    return _OF_TYPES.get(hint, serializers.JSONField)(**nullable)
