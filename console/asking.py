"""Calls the API in this process, as the visitor of a page would over HTTP. The console has no other way to data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import urlencode

from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest
from django.http.cookie import SimpleCookie
from django.urls import resolve

from pipedai.api.schema.operation import operation_of
from pipedai.api.serializers import Body
from pipedai.server.request_scope import API

Json = dict[str, Any]

# The headers that a page's request passes on to the API: who calls, from where, and from which page. Its body, language
# and Authorization header are not passed on.
_PASSED_ON = (
    "HTTP_COOKIE",
    "HTTP_HOST",
    "HTTP_ORIGIN",
    "HTTP_SEC_FETCH_SITE",
    "HTTP_USER_AGENT",
    "REMOTE_ADDR",
    "SERVER_NAME",
    "SERVER_PORT",
    "asgi.scope",
    "wsgi.url_scheme",
)


# The key under which a page's request keeps the API's last refusal, for the header of a page that shows it.
REFUSED = "console.refused"


# It has no `repr`, because both the body and a cookie may hold a token.
@dataclass(frozen=True, repr=False)
class Answer:
    """What the API answered: its status, the JSON of its body (an empty object without one), and the cookies it set."""

    status: int
    data: Json
    cookies: SimpleCookie


class Refused(Exception):  # noqa: N818 - named as what the API did
    """The exception for an API error. `fields` has the messages by field, and `form` those about no single field."""

    def __init__(
        self,
        status: int,
        body: Json,
        retry_after: str | None = None,
        cookies: SimpleCookie | None = None,
    ) -> None:
        super().__init__(body["error"])
        self.status = status
        self.body = body
        self.cookies = cookies or SimpleCookie()
        self.code: str = body["code"]
        self.retry_after = retry_after
        details: Json = body.get("details") or {}
        self.fields: dict[str, list[str]] = details.get("fieldErrors", {})
        self.form: list[str] = details.get("formErrors", []) if details else [body["error"]]

    @property
    def sentences(self) -> list[str]:
        """Returns all messages of the error, for a page without a form that could show each at its field."""
        return [*self.form, *(f"{name}: {' '.join(said)}" for name, said in self.fields.items())]


def ask(
    request: HttpRequest,
    method: str,
    path: str,
    *,
    query: Mapping[str, Any] | None = None,
    body: Json | None = None,
    key: str = "",
    changes: bool = True,
) -> Answer:
    """Calls an endpoint with the visitor's cookie, origin and address, and returns its answer.

    `path` is the path below /api/v1, such as `f"triggers/{trigger_id}"`. A value of `query` may be a list. `key`
    becomes the Idempotency-Key, so that a form that is sent twice acts once. With `changes=False` the call is allowed
    whatever its method, for a page that was opened by a link on another site. Raises Refused for each status from 400
    on.
    """
    sent = b"" if body is None else json.dumps(body).encode()
    environ = {name: request.META[name] for name in _PASSED_ON if name in request.META}
    if not changes:
        environ.pop("HTTP_SEC_FETCH_SITE", None)
    environ |= {
        "REQUEST_METHOD": method,
        # WSGI requires a path's bytes as Latin-1 characters (PEP 3333). An id from a form may be any text.
        "PATH_INFO": f"{API}/{path}".encode().decode("latin-1"),
        "QUERY_STRING": urlencode(query or {}, doseq=True),
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(sent)),
        "wsgi.input": BytesIO(sent),
    }
    if key:
        environ["HTTP_IDEMPOTENCY_KEY"] = key
    inner = WSGIRequest(environ)
    match = inner.resolver_match = resolve(inner.path_info)
    response: Any = match.func(inner, **match.kwargs)
    # The access log names the caller of the page's request. Only the API's request has authenticated them.
    request.user = getattr(inner, "user", None)  # type: ignore[assignment]
    if hasattr(response, "render"):  # A list of events comes as text that needs no rendering.
        response.render()
    data: Json = json.loads(response.content) if response.content else {}
    if response.status_code >= 400:
        retry_after = response.get("Retry-After")
        refused = Refused(response.status_code, data, retry_after, response.cookies)
        request.META[REFUSED] = refused
        raise refused
    return Answer(response.status_code, data, response.cookies)


def ask_if_free(request: HttpRequest, method: str, path: str, **more: Any) -> Json:
    """Calls an endpoint whose answer a page can do without. Returns its JSON; empty if the API is too busy."""
    try:
        return ask(request, method, path, **more).data
    except Refused as refused:
        if refused.status not in {429, 503}:
            raise
        return {}


def if_there(request: HttpRequest, path: str) -> Json:
    """Returns data that a page can do without, or nothing if the row was deleted or the API is too busy."""
    try:
        return ask_if_free(request, "GET", path)
    except Refused as refused:
        if refused.status != 404:
            raise
        return {}


def body_of(method: str, path: str) -> type[Body]:
    """Returns the serializer that reads an endpoint's body, so that a form has the body's fields."""
    view: Any = resolve(f"{API}/{path}").func
    body = operation_of(view.cls, view.actions[method.lower()]).body
    assert body is not None, f"{method} {path} has no body"
    return body


def role_of(method: str, path: str) -> str:
    """Returns the role that an endpoint requires in its environment, or an empty text if it requires none."""
    view: Any = resolve(f"{API}/{path}").func
    return str(getattr(view.cls.permissions[view.actions[method.lower()]], "role", ""))


def words_of(path: str, name: str) -> list[str]:
    """Returns the values that a filter of a list accepts."""
    view: Any = resolve(f"{API}/{path}").func
    filters = operation_of(view.cls, view.actions["get"]).filters
    assert filters is not None, f"{path} has no filters"
    return list(filters.base_filters[name].extra["choices"])
