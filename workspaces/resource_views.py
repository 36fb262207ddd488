"""The five endpoints that every resource of an environment has: list, make, read, change and delete."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from pipedai.api.filters import ApiFilterSet, IncludeFilter
from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import StrictBody, Values, sources_of
from workspaces.access import IsAdmin, IsViewer, TenantViewSet
from workspaces.resources import Resource


class RecentFilters(ApiFilterSet):
    """The filters of a list that can show recent runs or notices (`include=recent`)."""

    include = IncludeFilter(choices=["recent"])


class ResourceViewSet(TenantViewSet):
    """A subclass names its resource, its body and its serializer. It may have actions of its own, also in place of one
    of the five.
    """

    resource: ClassVar[Resource[Any]]
    body: ClassVar[type[StrictBody]]
    # The body of a change, if it has fields that the body of a new row lacks.
    changing: ClassVar[type[StrictBody] | None] = None
    serializer: ClassVar[type[Serializer[Any]]]
    readers: ClassVar[type[BasePermission]] = IsViewer
    filters: ClassVar[type[ApiFilterSet] | None] = None
    # The serializer of the list, if it shows more than a single row.
    listed: ClassVar[type[Serializer[Any]] | None] = None
    columns: ClassVar[Sequence[str]]
    # Whether the answer to a creation is read in its transaction, so that a caller who gets a 503 leaves no row.
    reads_inside: ClassVar[bool] = False
    # The bodies that the documentation shows for a creation and for a change.
    example: ClassVar[Mapping[str, Any]]
    change: ClassVar[Mapping[str, Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        cls.row = cls.resource.row
        # A column's name is the source of the field that shows it.
        cls.columns = sorted(sources_of(cls.serializer) & cls.resource.columns)
        cls.permissions = {
            "list": cls.readers,
            "create": IsAdmin,
            "retrieve": cls.readers,
            "update": IsAdmin,
            "destroy": IsAdmin,
            **cls.permissions,
        }
        for name, action in _actions(cls).items():
            if name not in vars(cls):
                setattr(cls, name, action)
        super().__init_subclass__(**kwargs)

    def rows(self) -> QuerySet[Any, Any]:
        """Returns the rows that are not deleted, with all that `shown` needs: as dicts of the columns that the
        serializer shows.
        """
        rows: QuerySet[Any, Any] = self.resource.live.values(*self.columns)
        return rows

    def shown(self, rows: list[Any]) -> Any:
        """Returns these rows of `rows()` as the API shows them."""
        return self.serializer(rows, many=True).data

    def with_recent(self, shown: list[Any]) -> Any:
        """Adds `recent` to rows as answers show them, for a list whose filters know `include=recent`."""
        return shown

    def one(self, row_id: UUID) -> Any:
        return self.shown([self.rows().get(id=row_id)])[0]


def _actions(of: type[ResourceViewSet]) -> dict[str, Callable[..., Any]]:
    """Returns the five actions of a viewset, each with its `@Operation`."""
    resource, noun = of.resource, of.resource.noun
    name = noun.capitalize()
    in_environment = f"/environments/{{environmentId}}/{noun}s"
    alone = f"/{noun}s/{{{noun}Id}}"

    @Operation(
        f"GET {in_environment}",
        id=f"list{name}s",
        summary=f"List {noun}s",
        items=of.listed or of.serializer,
        filters=of.filters,
    )
    def list_(self: ResourceViewSet, request: Request, environment_id: UUID) -> Response:
        rows, shown = self.rows().filter(environment_id=environment_id), self.shown
        if self.filters:
            read = self.filters.read(rows, request)
            rows = read.qs
            if "recent" in read.values.get("include", ()):
                return self.page_shown(request, rows, lambda page: self.with_recent(shown(page)))
        return self.page_shown(request, rows, shown)

    @Operation(
        f"POST {in_environment}",
        id=f"create{name}",
        summary=f"Make a {noun}",
        body=of.body,
        example=of.example,
        answers={201: of.serializer},
    )
    def create(
        self: ResourceViewSet, request: Request, environment_id: UUID, body: Values
    ) -> Response:
        with transaction.atomic() if self.reads_inside else nullcontext():
            row_id = resource.create(
                environment_id=environment_id, values=body, actor=actor_of(request)
            )
            shown = self.one(row_id)
        return Response(shown, status=201)

    @Operation(
        f"GET {alone}",
        id=f"get{name}",
        summary=f"Get a {noun}",
        answers={200: of.serializer},
    )
    def retrieve(self: ResourceViewSet, request: Request, **ids: UUID) -> Response:  # noqa: ARG001
        return Response(self.one(ids[self.row[0]]))

    @Operation(
        f"PATCH {alone}",
        id=f"update{name}",
        summary=f"Change a {noun}",
        body=of.changing or of.body,
        partial=True,
        example=of.change,
        answers={200: of.serializer},
    )
    def update(self: ResourceViewSet, request: Request, body: Values, **ids: UUID) -> Response:
        row_id = ids[self.row[0]]
        resource.update(
            row_id,
            environment_id=self.access.environment_id,
            values=body,
            actor=actor_of(request),
        )
        return Response(self.one(row_id))

    @Operation(
        f"DELETE {alone}",
        id=f"delete{name}",
        summary=f"Delete a {noun}",
    )
    def destroy(self: ResourceViewSet, request: Request, **ids: UUID) -> None:
        environment_id = self.access.environment_id
        resource.delete(ids[self.row[0]], environment_id=environment_id, actor=actor_of(request))

    return {
        "list": list_,
        "create": create,
        "retrieve": retrieve,
        "update": update,
        "destroy": destroy,
    }
