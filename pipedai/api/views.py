"""The base viewset, which makes all checks in a fixed order before an action runs, and what event streams share."""

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpResponse
from django.urls import URLPattern, path
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.permissions import BasePermission
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from pipedai.api.authentication import SAFE_METHODS, RefuseTheRest, check_origin
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Unauthenticated
from pipedai.api.exceptions import unless_read_only
from pipedai.api.pagination import KeysetPaginator
from pipedai.api.parsers import check_encoding
from pipedai.api.principal import Principal, UserPrincipal, principal_of
from pipedai.api.renderers import JSONRenderer
from pipedai.api.schema.operation import header, operation_of
from pipedai.api.throttling import Throttle, admit, check_write
from pipedai.server.memory_budget import RequestLimit
from pipedai.server.ticket import STREAM, StreamTicket
from pipedai.wakeups import ANNOUNCED_EVERY_SECONDS


class IsPublic(BasePermission):
    """Lets anyone call the action, without credentials."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return True


class IsSignedIn(BasePermission):
    """Lets every authenticated principal call the action, whatever its role."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Every caller may: the base viewset has already answered 401 to requests without a principal."""
        return isinstance(request.user, Principal)


class ApiViewSet(ViewSet):
    """Checks credentials, method, origin, throttle, visibility and role, in this order, before each action. Each action
    needs a class in `permissions` and an `@Operation`, and the viewset a `tag`. Without them Python raises TypeError
    when the class is defined.
    """

    # The group in which documentation shows the actions; pipedai/api/schema/auto.py lists the groups.
    tag: ClassVar[str] = ""
    # The permission class of each action, by the action's name.
    permissions: ClassVar[Mapping[str, type[BasePermission]]] = {}
    # Actions that a browser calls to get a cookie. Their origin is checked although there is no session yet.
    browser_entries: ClassVar[frozenset[str]] = frozenset()
    # The throttles of each action, which are checked before any row of a tenant is read.
    throttles: ClassVar[Mapping[str, Sequence[Throttle]]] = {}
    # The actions that don't count as writes, which are limited for each caller. Safe methods such as GET never count.
    unmetered: ClassVar[frozenset[str]] = frozenset()
    # The class by which `page` divides a list.
    pagination_class: ClassVar[type[KeysetPaginator]] = KeysetPaginator
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    format_kwarg = None  # Our URLs have no format suffixes.

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # The actions that the class itself defines: its public methods whose first argument is `request`.
        actions = {
            name
            for name, function in vars(cls).items()
            if inspect.isfunction(function)
            and not name.startswith("_")
            and list(inspect.signature(function).parameters)[1:2] == ["request"]
            and not hasattr(ViewSet, name)
            and not hasattr(ApiViewSet, name)
        }
        lacking = {
            "permission": actions - set(cls.permissions),
            "@Operation": {name for name in actions if not hasattr(vars(cls)[name], "operation")},
            "tag": set() if cls.tag else actions,
        }
        for what, names in lacking.items():
            if names:
                raise TypeError(
                    f"{cls.__name__} declares no {what} for {sorted(names)}: see An endpoint in CONTRIBUTING.md"
                )

    def get_authenticators(self) -> list[BaseAuthentication]:
        """Returns the accepted authentication classes, then RefuseTheRest. Returns none if the viewset is public."""
        if not self.authentication_classes:
            return []
        return [*super().get_authenticators(), RefuseTheRest()]

    def get_permissions(self) -> list[BasePermission]:
        return [self.permissions[self.action]()]

    def initialize_request(self, request: Any, *args: Any, **kwargs: Any) -> Request:
        """Sets `self.action` to the route's action for the method, or to None. DRF would set one for OPTIONS too."""
        initialized = super().initialize_request(request, *args, **kwargs)
        # Without this, each read of `META` goes through DRF's __getattr__, which happens a dozen times a request.
        # See docs/decisions/fast-paths.md.
        initialized.META = request.META
        self.action = self.action_map.get(str(request.method).lower())  # type: ignore[assignment]
        return initialized

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(
            request
        )
        principal: object = request.user
        if not isinstance(principal, Principal) and not self._is_public():
            raise Unauthenticated("Authentication is required.", code=ErrorCode.UNAUTHENTICATED)
        if self.action is None:
            raise MethodNotAllowed(str(request.method))
        if request.method not in SAFE_METHODS and (
            isinstance(principal, UserPrincipal) or self.action in self.browser_entries
        ):
            check_origin(request)
        if isinstance(principal, Principal) and self.is_metered(str(request.method)):
            check_write(principal.id, now=time.monotonic())
        for throttle in self.throttles.get(self.action, ()):
            throttle.check(request)
        self.find_tenant(request, **kwargs)
        self.check_permissions(request)
        check_encoding(request)

    @property
    def filter_names(self) -> tuple[str, ...]:
        """The query parameters on which a list's cursor depends: a cursor is refused if they have other values than in
        the request that made it.
        """
        filters = operation_of(type(self), self.action).filters
        return filters.binding_names() if filters else ()

    def is_metered(self, method: str) -> bool:
        """Whether a call of the action counts as a write, because the number of writes of each caller is limited."""
        return method not in SAFE_METHODS and self.action not in self.unmetered

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Finds the rows that the URL names, and the caller's role. Raises NotFound if the caller can't see them."""

    def page(
        self,
        request: Request,
        rows: QuerySet[Any, Any] | list[QuerySet[Any, Any]],
        serializer: type[Serializer[Any]],
        **context: Any,
    ) -> Response:
        """Answers with a page of a list, whose rows may be in several querysets."""
        return self.page_shown(
            request, rows, lambda found: serializer(found, many=True, context=context).data
        )

    def page_shown(
        self,
        request: Request,
        rows: QuerySet[Any, Any] | list[QuerySet[Any, Any]],
        shown: Callable[[list[Any]], Any],
        *,
        paginator: Callable[[], KeysetPaginator] | None = None,
    ) -> Response:
        """Does what `page` does, but `shown` makes the items of the answer from the rows of the page. `paginator`
        divides a list that has another order than the viewset's other lists.
        """
        pages = (paginator or self.pagination_class)()
        parts = rows if isinstance(rows, list) else [rows]
        return pages.get_paginated_response(
            shown(pages.paginate_parts(parts, request, self.filter_names))
        )

    def _is_public(self) -> bool:
        """Whether anyone may call the action, or all actions of the route if it has none for the method."""
        named = {self.action} if self.action else set(self.action_map.values())
        return all(self.permissions[action] is IsPublic for action in named)


def paths_of(*modules: ModuleType) -> list[URLPattern]:
    """Returns the paths below /api/v1/ of all viewsets that the modules define."""
    urls: dict[tuple[type[ApiViewSet], str], dict[str, Any]] = {}
    for module in modules:
        for viewset in filter(inspect.isclass, vars(module).values()):
            if viewset.__module__ == module.__name__ and issubclass(viewset, ApiViewSet):
                for action in viewset.permissions:
                    operation = operation_of(viewset, action)
                    actions = urls.setdefault((viewset, operation.route), {})
                    actions[operation.method.lower()] = action
    return [
        path(route, viewset.as_view(actions))
        for (viewset, route), actions in urls.items()
        if route  # GET /api/v1 itself is not below it.
    ]


MEDIA_TYPE = "text/event-stream"
LAST_EVENT_ID = header(
    "Last-Event-ID",
    {"type": "string"},
    description="The id of the last event that was read.",
)
# How many event streams one user or key may have open in one web process, as API.md says.
MAX_STREAMS = 20
_STREAMS = RequestLimit(MAX_STREAMS)

T = TypeVar("T", bound=StreamTicket)


class StreamViewMixin(ViewSet):
    """A view of an event stream. It ignores the Accept header: a stream has one format, and errors are JSON."""

    def perform_content_negotiation(
        self, request: Request, force: bool = False
    ) -> tuple[BaseRenderer, str]:
        return JSONRenderer(), JSONRenderer.media_type


def ticket_of(request: Request, kind: type[T], *, group: UUID) -> T:
    """Returns the ticket of the stream's request, or a new ticket if the server gave it none. `group` is the id of a
    workspace or environment. Streams of one group take turns with those of other groups.
    """
    ticket = request.META.get("asgi.scope", {}).get(STREAM)
    if not isinstance(ticket, kind):
        ticket = kind()
    ticket.asked += 1
    ticket.workspace_id = group
    ticket.hears_of = frozenset([principal_of(request).id])
    return ticket


def count_stream(request: Request, ticket: StreamTicket) -> None:
    """Counts a new stream as one of its caller's. Raises TooManyRequests if the caller has MAX_STREAMS open."""
    if ticket.asked == 1:
        refusal = f"You have {MAX_STREAMS} streams open already: close one of them first."
        admit(_STREAMS, principal_of(request).id, request, refusal, retry_after=5)


def announce_stream(ticket: StreamTicket, announce: Callable[[], None]) -> None:
    """Calls `announce` every few seconds, so that all processes know of the stream. A standby can't notify them."""
    now = time.monotonic()
    if now >= ticket.announce_again_at:
        ticket.announce_again_at = now + ANNOUNCED_EVERY_SECONDS
        with unless_read_only():
            announce()


def event_text(data: str, *, id_: int | None = None, event: str | None = None) -> str:
    head = "" if id_ is None else f"id: {id_}\n"
    name = "" if event is None else f"event: {event}\n"
    return f"{head}{name}data: {data}\n\n"


def stream_answer(text: str) -> HttpResponse:
    return HttpResponse(text, content_type=MEDIA_TYPE)
