"""The WSGI application: Django with DRF. `pipedai.asgi` runs it in the threads of the web process."""

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import django
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from pipedai.api.principal import Principal
from pipedai.server.access_log import LOG
from pipedai.server.headers import API, PROBES

django.setup(set_prefix=False)

_API = f"{API}/"
_LONGEST_HOST = 100


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
    """Django's handler, which also tells the access log the route and the caller of each request."""

    request_class = Request

    def __call__(  # type: ignore[override]
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answers a request, and lets go of what an answer of the API holds, unless it is streamed."""
        response: Any = super().__call__(environ, start_response)
        if getattr(response, "streaming", True) or not environ["PATH_INFO"].startswith(_API):
            return response  # type: ignore[no-any-return]
        content: bytes = response.content
        response.close()
        _take_apart(response)
        return [content]

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
    """Lets go of what a response holds. It, its view and its request hold each other in circles, which would stay in
    memory, some 5 KB for each request, until Python next collects garbage. See docs/decisions/fast-paths.md.
    """
    context = response.__dict__.pop("renderer_context", None)
    response._resource_closers.clear()
    if context is not None:
        vars(context["view"]).clear()
        if context["request"] is not None:
            context["request"].parser_context.clear()


def _log_of(request: HttpRequest) -> dict[str, Any] | None:
    """Returns the dict that the access log adds to a request's line, or None if another server runs the application."""
    said: dict[str, Any] | None = request.META.get("asgi.scope", {}).get(LOG)
    return said


application = Handler()
# Django would import the URL configuration, and thus all views, at the first request. It is imported when the process
# starts, so that a process with broken code does not start.
import_module(settings.ROOT_URLCONF)
