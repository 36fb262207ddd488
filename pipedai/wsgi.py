"""The WSGI application: Django with DRF. `pipedai.asgi` runs it in the threads of the web process."""

import re
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any
from uuid import UUID

import django
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.exception import convert_exception_to_response
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch
from django.utils.cache import patch_vary_headers

from pipedai.api.principal import Principal
from pipedai.server.outer import LOG
from pipedai.server.request_scope import API, PROBES

django.setup(set_prefix=False)

_API = f"{API}/"
_LONGEST_HOST = 100
# An id as Django's converter `uuid` takes it.
_ID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Request(WSGIRequest):
    """Django's request, with two changes: health checks may use any Host, and the access log shows a refused Host."""

    def get_host(self) -> str:
        if self.path_info in PROBES:
            return self._get_raw_host()  # type: ignore[attr-defined,no-any-return]
        try:
            return super().get_host()
        except DisallowedHost:
            if (said := _log_of(self)) is not None:
                host = self._get_raw_host()[:_LONGEST_HOST]  # type: ignore[attr-defined]
                said["refused"] = f"The Host {host!a} is not in ALLOWED_HOSTS."
            raise


class Handler(WSGIHandler):
    """Django's handler, which also gives the access log the route and the caller. API calls without an `Origin` skip
    the middleware, because `_answer_directly` makes all checks that they need. This saves a twentieth of the CPU time.
    """

    # Every request gets this class, whether it goes through the middleware or not, so that its Host is checked by the
    # same rules. See docs/decisions/fast-paths.md.
    request_class = Request

    def __call__(  # type: ignore[override]
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answers a request. For API calls it does itself what Django does by signals before and after each request."""
        if not environ["PATH_INFO"].startswith(_API):
            return super().__call__(environ, start_response)
        close_old_connections()
        response: Any = self.get_response(self.request_class(environ))
        status = f"{response.status_code} {response.reason_phrase}"
        cookies = (("Set-Cookie", each.output(header="")) for each in response.cookies.values())
        start_response(status, [*response.items(), *cookies])
        if response.streaming:
            # Django reads this attribute when the last piece was sent, and then sends its signals.
            response._handler_class = self.__class__
            return response  # type: ignore[no-any-return]
        for close in response._resource_closers:
            close()
        close_old_connections()
        content: bytes = response.content
        _take_apart(response)
        return [content]

    def load_middleware(self, is_async: bool = False) -> None:
        """Builds two chains of calls to the views: one through all middleware, and one without middleware."""
        super().load_middleware(is_async)
        # The routes of earlier requests, by the path with `*` in place of each id.
        self._routes: dict[str, ResolverMatch] = {}
        self._through_middleware: Any = self._middleware_chain
        self._directly: Any = convert_exception_to_response(self._answer_directly)
        self._middleware_chain: Any = self._answer

    def resolve_request(self, request: HttpRequest) -> ResolverMatch:
        """Returns the route of a path. Paths that differ only in ids have one route, found once. Raises Resolver404."""
        path = request.path_info
        if not path.startswith(_API):
            return super().resolve_request(request)
        ids: list[str] = _ID.findall(path)
        shape = _ID.sub("*", path)
        known: Any = self._routes.get(shape)
        if known is None or len(known.kwargs) != len(ids):
            match: ResolverMatch = super().resolve_request(request)
            if list(match.kwargs.values()) == [UUID(id_) for id_ in ids]:
                self._routes[shape] = match
            return match
        kwargs = dict(zip(known.kwargs, map(UUID, ids), strict=True))
        match = ResolverMatch(
            known.func, (), kwargs, known.url_name, known.app_names, known.namespaces, known.route
        )  # fmt: skip
        request.resolver_match = match
        return match

    def _answer(self, request: HttpRequest) -> HttpResponseBase:
        if (
            not request.path_info.startswith(_API)
            or request.method == "OPTIONS"
            or "HTTP_ORIGIN" in request.META
        ):
            return self._through_middleware(request)  # type: ignore[no-any-return]
        response: HttpResponse = self._directly(request)
        patch_vary_headers(response, ("origin",))
        response["Content-Length"] = str(len(response.content))
        return response

    def _answer_directly(self, request: HttpRequest) -> HttpResponseBase:
        # This raises an error if the request's Host is not in ALLOWED_HOSTS.
        request.get_host()
        return self._get_response(request)  # type: ignore[attr-defined,no-any-return]

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        response = super().get_response(request)
        if (said := _log_of(request)) is not None:
            if request.resolver_match is not None:
                said["route"] = request.resolver_match.route
            # The log line names the caller. DRF sets the request's `user` to it. Under /admin, `user` is Django's lazy
            # object for the session's user instead: only its type may be looked at, because any other use of that
            # object would load the user from the database.
            user: Any = getattr(request, "user", None)
            if issubclass(type(user), Principal):
                said["principal"] = user.type
                said["principal_id"] = user.id
        return response


def _take_apart(response: Any) -> None:
    """Breaks the reference cycles of a response and its request, which hold 5 KB (docs/decisions/fast-paths.md)."""
    context = response.__dict__.pop("renderer_context", None)
    response._resource_closers.clear()
    if context is not None:
        vars(context["view"]).clear()
        if context["request"] is not None:
            context["request"].parser_context.clear()


def _log_of(request: HttpRequest) -> dict[str, Any] | None:
    said: dict[str, Any] | None = request.META.get("asgi.scope", {}).get(LOG)
    return said


application = Handler()
# Django would import the URL configuration, and thus all views, at the first request. It is imported when the process
# starts, so that a process with broken code does not start.
import_module(settings.ROOT_URLCONF)
