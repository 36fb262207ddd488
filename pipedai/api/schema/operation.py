"""What the schema has to be told of an action beyond what its viewset declares; each app's `schema.py` tells it."""

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
    """One action. `id` is its operationId, which never changes: generated clients name their functions after it.

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
    # What the successes are made of.
    media_type: str = "application/json"
    filters: type[ApiFilterSet] | None = None
    # Query parameters and request headers, as OpenAPI has them.
    parameters: tuple[Schema, ...] = ()
    # What a success says, by its status, where that is more than "Done."
    says: Mapping[int, str] = field(default_factory=dict)
    # The reason of an error, by its status; "" for the general one in answers.py. Needed for what only the service
    # behind the action knows of: 409, 503, and 404 of what the path does not name. The viewset's declarations tell
    # the others, and a reason given here stands in place of theirs.
    errors: Mapping[int, str] = field(default_factory=dict)
    audit: tuple[str, ...] = ()
    # In place of what the viewset's authentication classes say.
    security: tuple[Mapping[str, list[str]], ...] = ()


@dataclass(frozen=True)
class Described:
    """An operation and the group that documentation shows it in."""

    tag: str
    operation: Operation


_described: dict[tuple[type[ApiViewSet], str], Described] = {}


def describe(viewset: type[ApiViewSet], tag: str, **operations: Operation) -> None:
    """Tells the schema of the actions of a viewset."""
    for action, operation in operations.items():
        _described[viewset, action] = Described(tag, operation)


def described(viewset: type[ApiViewSet], action: str) -> Described:
    """What was told of the action. Raises LookupError if nothing was."""
    try:
        return _described[viewset, action]
    except KeyError:
        raise LookupError(
            f"No schema.py describes {viewset.__name__}.{action}: see An endpoint in CONTRIBUTING.md."
        ) from None
