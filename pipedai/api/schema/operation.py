"""Defines `@Operation`, by which an action of a viewset tells its URL and its part of the OpenAPI schema.

Web processes import this, so it must not import drf-spectacular.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Field, Serializer

from pipedai.api.filters import ApiFilter, ApiFilterSet
from pipedai.api.pagination import DEFAULT_LIMIT, MAX_LIMIT
from pipedai.api.serializers import Body, NoBody, RowSerializer, read_body

Schema = dict[str, Any]
JSON = "application/json"
# The name of the security scheme whose token registers a worker.
REGISTRATION_TOKEN = "registrationToken"  # noqa: S105
Answer = type[Serializer[Any]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """Decorates an action's method: `@Operation("GET /runs/{runId}", id="getRun", …)`.

    An action with an argument `body` gets the validated values of the request's body. The serializer in `answers` makes
    the answer from the returned value. An action may also return a response itself, for example to add headers.
    """

    # The method, and the path below /api/v1 as the schema has it. Each name in braces stands for a UUID, which the
    # action gets as an argument: `{runId}` as `run_id`.
    endpoint: str = field(kw_only=False)
    # The operationId. It never changes, because generated clients name their functions after it.
    id: str
    # What the action does, in a few words. API.md has the long text, what each status means, and the audit actions.
    summary: str
    # The serializer that reads the request's body, or None if the action takes no body.
    body: type[Body] | None = None
    # Whether every field of the body may be absent. The value of an absent field then does not change.
    partial: bool = False
    # A body that the documentation shows.
    example: Mapping[str, Any] | None = None
    # The serializers of the successes, by status; None for an answer without a body. `answer` makes one for an object
    # that the view puts together itself. The default is for an action that answers 204.
    answers: Mapping[int, Answer | None] = field(default_factory=lambda: {204: None})
    # The headers of a success by its status, in addition to those that every answer has.
    answer_headers: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    # The serializer of one item, for an action that answers 200 with a page of a list. Its `answers` don't count.
    items: Answer | None = None
    # Whether the page has `total` if the caller asks for it with `include=total`.
    total: bool = False
    # The names of the numbers in `counts`, which the page has if the caller asks for them with `include=counts`.
    counts: tuple[str, ...] = ()
    # The media type of the successful answers.
    media_type: str = "application/json"
    # The filter set of a list. The operation's query parameters are made from it.
    filters: type[ApiFilterSet] | None = None
    # Other query parameters, and request headers, as OpenAPI parameter objects.
    parameters: tuple[Schema, ...] = ()
    # Security requirements that replace those of the viewset's authentication classes.
    security: tuple[Mapping[str, list[str]], ...] = ()

    @property
    def method(self) -> str:
        return self.endpoint.partition(" ")[0]

    @property
    def route(self) -> str:
        path = self.endpoint.partition(" /")[2]
        return re.sub(r"{([a-z]+)Id}", r"<uuid:\1_id>", path)

    def __call__(self, action: Callable[..., Any]) -> Callable[..., HttpResponseBase]:
        takes_body = "body" in inspect.signature(action).parameters

        @functools.wraps(action)
        def act(view: Any, request: Request, **arguments: Any) -> HttpResponseBase:
            if self.body is not None and (takes_body or self.body is NoBody):
                values = read_body(self.body, request, partial=self.partial)
                arguments |= {"body": values} if takes_body else {}
            returned = action(view, request, **arguments)
            return returned if isinstance(returned, HttpResponseBase) else self._answer(returned)

        vars(act)["operation"] = self
        return act

    def _answer(self, returned: Any) -> Response:
        ((status, serializer),) = self.answers.items()
        return Response(serializer(returned).data if serializer else None, status=status)


def answer(name: str, description: str, /, **fields: Field[Any, Any, Any, Any]) -> Answer:
    """Returns a serializer class for an object that a view puts together itself, under its names in the API. The schema
    shows it by `name` and `description`. `fields` are its serializer fields by name.
    """
    about = {"__doc__": description, "keeps_names": True}
    return cast("Answer", type(name, (RowSerializer,), {**about, **fields}))


def operation_of(viewset: type, action: str) -> Operation:
    """Returns an action's `@Operation`. Raises LookupError if there is no such action, or if it has none."""
    operation = getattr(getattr(viewset, action, None), "operation", None)
    if not isinstance(operation, Operation):
        raise LookupError(
            f"{viewset.__name__}.{action} in {viewset.__module__} has no @Operation: see An endpoint in CONTRIBUTING.md"
        )
    return operation


def _parameter(
    name: str, place: str, schema: Schema, description: str, *, required: bool, **more: Any
) -> Schema:
    said = {"description": description} if description else {}
    return {"name": name, "in": place, "required": required, **said, "schema": schema, **more}


def query(
    name: str, schema: Schema, *, description: str = "", required: bool = False, **more: Any
) -> Schema:
    return _parameter(name, "query", schema, description, required=required, **more)


def header(name: str, schema: Schema, *, description: str = "") -> Schema:
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
    """Returns query parameters with the texts of `described`. Raises TypeError for a filter that is no ApiFilter."""
    found = []
    for name, item in filters.base_filters.items():
        if not isinstance(item, ApiFilter):
            raise TypeError(
                f"{filters.__name__}.{name} is a {type(item).__name__}, which does not tell how it looks in the "
                "schema: use a filter of pipedai/api/filters.py, or add one there."
            )
        found.append(query(name, description=described.get(name, ""), **item.described))
    return found
