"""The WSGI application: Django with DRF. The web process runs it inside `pipedai.asgi`."""

import os
from importlib import import_module
from typing import Any

import django
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.exception import convert_exception_to_response
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers

from pipedai.api.principal import Principal
from pipedai.server.access_log import LOG
from pipedai.server.headers import API

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pipedai.settings")
django.setup(set_prefix=False)

_API = f"{API}/"


# Load balancers and scrapers call a process by its address.
_FOR_ANY_HOST = frozenset({f"{API}/health", f"{API}/health/live", "/metrics"})
_LONGEST_HOST = 100


class Request(WSGIRequest):
    """Django's, which lets probes call by any name, and tells the access log which host it refused."""

    def get_host(self) -> str:
        """The host that was called. Raises DisallowedHost if it is not one of ours."""
        if self.path_info in _FOR_ANY_HOST:
            return self._get_raw_host()  # type: ignore[attr-defined,no-any-return]
        try:
            return super().get_host()
        except DisallowedHost:
            if (said := _log_of(self)) is not None:
                host = self._get_raw_host()[:_LONGEST_HOST]  # type: ignore[attr-defined]
                said["refused"] = f"The Host {host!a} is not in ALLOWED_HOSTS."
            raise


class Handler(WSGIHandler):
    """Django's, which also tells the access log which route it was and who called.

    A call of the API that no page of another origin makes passes by the middleware, which has no more to do for it
    than `_answer_directly`, but takes a twentieth of the web process's CPU.
    """

    # See docs/decisions/fast-paths.md.
    request_class = Request

    def load_middleware(self, is_async: bool = False) -> None:
        """Makes both ways to the views."""
        super().load_middleware(is_async)
        self._through_middleware: Any = self._middleware_chain
        self._directly: Any = convert_exception_to_response(self._answer_directly)
        self._middleware_chain: Any = self._answer

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
        request.get_host()  # refuses one that is not ours
        return self._get_response(request)  # type: ignore[attr-defined,no-any-return]

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        response = super().get_response(request)
        if (said := _log_of(request)) is not None:
            if request.resolver_match is not None:
                said["route"] = request.resolver_match.route
            # DRF puts its user here. Asking the type leaves admin's lazy user unread.
            user: Any = getattr(request, "user", None)
            if issubclass(type(user), Principal):
                said["principal"] = user.type
                said["principal_id"] = user.id
        return response


def _log_of(request: HttpRequest) -> dict[str, Any] | None:
    """What the access log will say of the request; None under another server."""
    said: dict[str, Any] | None = request.META.get("asgi.scope", {}).get(LOG)
    return said


application = Handler()
# Django would do it at the first request; a process that can't serve must not start.
import_module(settings.ROOT_URLCONF)
