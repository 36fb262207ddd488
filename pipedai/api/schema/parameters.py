"""Describes the parameters of operations: those of all lists, and those that a filter set reads."""

from typing import Any

import django_filters

from pipedai.api.filters import ApiFilterSet, TimeFilter, WordsFilter
from pipedai.api.pagination import DEFAULT_LIMIT, MAX_LIMIT
from pipedai.api.schema.operation import Schema


def _parameter(
    name: str, place: str, schema: Schema, description: str, *, required: bool, **more: Any
) -> Schema:
    said = {"description": description} if description else {}
    return {"name": name, "in": place, "required": required, **said, "schema": schema, **more}


def query(
    name: str, schema: Schema, *, description: str = "", required: bool = False, **more: Any
) -> Schema:
    """Returns a query parameter as an OpenAPI parameter object."""
    return _parameter(name, "query", schema, description, required=required, **more)


def header(name: str, schema: Schema, *, description: str = "") -> Schema:
    """Returns a request header as an OpenAPI parameter object."""
    return _parameter(name, "header", schema, description, required=False)


PAGE = (
    query(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
        description="How many items a page has at most.",
    ),
    query(
        "cursor",
        {"type": "string"},
        description="The `nextCursor` of the page before. Good for this path with these filters alone.",
    ),
)


def of_filters(filters: type[ApiFilterSet], described: dict[str, str]) -> list[Schema]:
    """Returns the parameters of a filter set. `described` has the description of each."""
    return [
        query(name, description=described.get(name, ""), **_read_by(item))
        for name, item in filters.base_filters.items()
    ]


def _read_by(item: django_filters.Filter) -> dict[str, Any]:
    if isinstance(item, WordsFilter):
        words: Schema = {"type": "string", "enum": list(item.extra["choices"])}
        return {"schema": {"type": "array", "items": words}, "style": "form", "explode": True}
    if isinstance(item, TimeFilter):
        return {"schema": {"type": "string", "format": "date-time"}}
    if isinstance(item, django_filters.UUIDFilter):
        return {"schema": {"type": "string", "format": "uuid"}}
    if isinstance(item, django_filters.ChoiceFilter):
        return {"schema": {"type": "string", "enum": [word for word, _ in item.extra["choices"]]}}
    raise TypeError(f"The schema does not know {type(item).__name__}.")
