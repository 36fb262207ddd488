"""Describes the parameters of operations: those of all lists, and those that a filter set reads."""

from typing import Any

from pipedai.api.filters import ApiFilter, ApiFilterSet
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


# The query parameters of every list.
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
    """Returns the query parameters of a filter set. `described` has a description of each by its name.

    Raises TypeError for a filter that is no ApiFilter, because only those tell how they look in the schema.
    """
    found = []
    for name, item in filters.base_filters.items():
        if not isinstance(item, ApiFilter):
            raise TypeError(
                f"{filters.__name__}.{name} is a {type(item).__name__}, which does not tell how it looks in the "
                "schema: use a filter of pipedai/api/filters.py, or add one there."
            )
        found.append(query(name, description=described.get(name, ""), **item.described))
    return found
