"""Defines what an app's `schema.py` tells the schema about an action, beyond what the action's viewset declares."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rest_framework.serializers import Serializer

from pipedai.api.filters import ApiFilterSet
from pipedai.api.serializers import Body
from pipedai.api.views import ApiViewSet

Schema = dict[str, Any]
Answer = type[Serializer[Any]] | None


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One action. `id` is its operationId, which never changes, because generated clients name functions after it.

    `answers` are the successes by status; a list has `items` instead, and answers 200. `partial` means that a body's
    fields may all be absent.
    """

    id: str
    summary: str
    body: type[Body] | None = None
    partial: bool = False
    example: Mapping[str, Any] | None = None
    answers: Mapping[int, Answer] = field(default_factory=dict)
    answer_headers: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    items: Answer = None
    # The media type of the successful answers.
    media_type: str = "application/json"
    filters: type[ApiFilterSet] | None = None
    # Query parameters and request headers, as OpenAPI parameter objects.
    parameters: tuple[Schema, ...] = ()
    # What a success says, by its status, where that is more than "Done."
    says: Mapping[int, str] = field(default_factory=dict)
    # The reason of an error, by its status; "" for the general one in answers.py. Needed for what only the service
    # behind the action knows of: 409, 503, and 404 of what the path does not name. The viewset's declarations tell
    # the others, and a reason given here stands in place of theirs.
    errors: Mapping[int, str] = field(default_factory=dict)
    audit: tuple[str, ...] = ()
    # Security requirements that replace those of the viewset's authentication classes.
    security: tuple[Mapping[str, list[str]], ...] = ()


@dataclass(frozen=True)
class Described:
    """An operation, and the group in which documentation shows it."""

    tag: str
    operation: Operation


_described: dict[tuple[type[ApiViewSet], str], Described] = {}


def describe(viewset: type[ApiViewSet], tag: str, **operations: Operation) -> None:
    """Describes the actions of a viewset for the schema. `tag` is their group in documentation."""
    for action, operation in operations.items():
        _described[viewset, action] = Described(tag, operation)


def described(viewset: type[ApiViewSet], action: str) -> Described:
    """Returns the description of an action. Raises LookupError if there is none."""
    try:
        return _described[viewset, action]
    except KeyError:
        raise LookupError(
            f"No schema.py describes {viewset.__name__}.{action}: see An endpoint in CONTRIBUTING.md."
        ) from None
