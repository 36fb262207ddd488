"""The public endpoints: what the service is, whether it works, its schema, and the documents at /api/docs."""

# drf-spectacular has types for only a part of its functions, so mypy must allow calls of untyped functions here.
# mypy: disallow-untyped-calls=False

import posixpath
import re
import threading
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_safe
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Unavailable
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.schema.reference import anchor
from pipedai.api.views import ApiViewSet, IsPublic
from pipedai.clocks import EDITION
from pipedai.env import BASE_DIR
from pipedai.replica import is_on
from pipedai.replica.reading import state_of_replica
from pipedai.server.request_scope import API, CONSOLE
from pipedai.sql import database_now, takes_writes
from pipedai.version import VERSION

if TYPE_CHECKING:
    from markdown_it.token import Token

# The documents that are served, below /api/docs under their own paths, so that their links lead from one to another.
# A link to any other file is shown as plain text.
SERVED = (
    "API.md",
    "docs/first-trigger.md",
    "docs/glossary.md",
    "docs/clients.md",
    "docs/hosts.md",
    "docs/notices.md",
    "docs/approvals.md",
    "docs/quiet-triggers.md",
    "docs/connections.md",
    "docs/conformance.md",
)


@require_safe
def docs_page(request: HttpRequest) -> HttpResponse:
    """Answers GET /api/docs: the schema in Swagger UI, with all files from this server."""
    return render(request, "pipedai/docs.html")


@require_safe
def document_page(request: HttpRequest, name: str) -> HttpResponse:
    """Answers GET /api/docs/API.md and the like: one of the documents as a page."""
    if name not in SERVED:
        raise Http404
    title, contents, text = _rendered(name)
    context = {"title": title, "contents": contents, "text": text}
    return render(request, "pipedai/document.html", context)


@cache
def _rendered(name: str) -> tuple[str, list[tuple[str, str]], SafeString]:
    """Returns the title of a document, the anchor and text of each of its chapters, and its HTML."""
    # A process that is never asked for a document doesn't import this.
    from markdown_it import MarkdownIt

    # HTML in the document would be shown as text.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse((BASE_DIR / name).read_text())
    headings = [
        (opening, following.content.replace("`", ""))
        for opening, following in pairwise(tokens)
        if opening.type == "heading_open"
    ]
    for opening, text in headings:
        opening.attrSet("id", anchor(text))
    for token in tokens:
        _hide_links(token.children or [], posixpath.dirname(name))
    for token, following, closing in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token.type == "th_open" and not following.content:
            token.tag = closing.tag = "td"  # A column without a name has no head.
    chapters = [(anchor(text), text) for opening, text in headings if opening.tag == "h2"]
    # The first three tokens are the title, which the template shows itself.
    html = markdown.renderer.render(tokens[3:], markdown.options, {})
    return headings[0][1], chapters, mark_safe(html)  # noqa: S308 - the text is a file of ours


def _hide_links(tokens: "list[Token]", folder: str) -> None:
    """Removes the links to files that are not served, and keeps the text of the links."""
    is_hidden = False
    for token in tokens:
        if token.type == "link_open":
            href = str(token.attrGet("href"))
            file = posixpath.normpath(posixpath.join(folder, href.partition("#")[0]))
            is_hidden = not re.match(r"https?:|#", href) and file not in SERVED
        if token.type in {"link_open", "link_close"}:
            token.hidden = is_hidden


HEALTHY = ("ok",)
# The states of the read replica, which `pipedai.replica.reading` explains.
REPLICA_STATES = ("ok", "behind", "unreachable")
_HEALTH = answer(
    "Health",
    "Alive.",
    status=serializers.ChoiceField(choices=HEALTHY),
    version=serializers.CharField(),
    tzdata=serializers.CharField(),
    replica=serializers.ChoiceField(choices=REPLICA_STATES, required=False),
)
_ALIVE = {"status": "ok", "version": VERSION, "tzdata": EDITION}

_JSON, _HTML = "application/json", "text/html"
_MAKING = threading.Lock()


class HealthViewSet(ApiViewSet):
    """Tells whether the service works. Load balancers, supervisors and the host client ask it."""

    tag = "Service"
    authentication_classes = ()
    permissions = {"retrieve": IsPublic, "live": IsPublic}

    @Operation(
        "GET /health",
        id="getHealth",
        summary="Does the process answer, and does its database take writes?",
        answers={200: _HEALTH},
    )
    def retrieve(self, request: Request) -> Response:
        """Answers GET /health: 503 if the database can't take writes, which nearly every call needs. If a replica is
        away, the answer says so and stays 200, because the primary answers in its place.
        """
        try:
            writable = takes_writes()
        except (DatabaseError, InterfaceError):
            raise _unavailable("The database does not answer.") from None
        if not writable:
            raise _unavailable("The database is read-only.")
        if is_on():
            return Response({**_ALIVE, "replica": state_of_replica(database_now())})
        return Response(_ALIVE)

    @Operation(
        "GET /health/live",
        id="getLiveness",
        summary="Does the process answer?",
        answers={200: _HEALTH},
    )
    def live(self, request: Request) -> Response:
        """Answers requests with an `Origin`, which need Django's headers. `pipedai.server.lanes` answers all others."""
        return Response(_ALIVE)


def _unavailable(sentence: str) -> Unavailable:
    return Unavailable(sentence, code=ErrorCode.DATABASE_UNAVAILABLE)


class OpenApiViewSet(ApiViewSet):
    tag = "Service"
    authentication_classes = ()
    permissions = {"retrieve": IsPublic}

    @Operation(
        "GET /openapi.json",
        id="getOpenApi",
        summary="This document",
        answers={
            200: answer(
                "OpenApi",
                "This document.",
                openapi=serializers.CharField(),
                info=serializers.DictField(child=serializers.JSONField()),
                paths=serializers.DictField(child=serializers.JSONField()),
            )
        },
    )
    def retrieve(self, request: Request) -> HttpResponse:
        return HttpResponse(made_document(), content_type=_JSON)


def made_document() -> bytes:
    """Returns the schema as JSON. A request that comes while it is being made waits, so that it is made once."""
    with _MAKING:
        return document()


@cache
def document() -> bytes:
    """Returns the schema as JSON. A process that is never asked for it doesn't import what makes it."""
    from drf_spectacular.generators import SchemaGenerator
    from drf_spectacular.renderers import OpenApiJsonRenderer

    schema = SchemaGenerator().get_schema(public=True)
    return OpenApiJsonRenderer().render(schema, None, {})


class ServiceRootViewSet(ApiViewSet):
    # The OpenAPI schema leaves this viewset out. All paths in the schema follow on /api/v1 with a slash, so none of
    # them can name /api/v1 itself.
    schema: Any = None
    tag = "Service"
    authentication_classes = ()
    permissions = {"retrieve": IsPublic}

    @Operation(
        "GET /",
        id="getService",
        summary="What is this, and where are its documentation and its health?",
        answers={
            200: answer(
                "Service",
                "What this service is.",
                name=serializers.CharField(),
                version=serializers.CharField(),
                documentation=serializers.URLField(),
                openapi=serializers.URLField(),
                health=serializers.URLField(),
            )
        },
    )
    def retrieve(self, request: Request) -> Response:
        return Response(_description())


def _description() -> dict[str, str]:
    site = settings.PUBLIC_URL
    return {
        "name": "PipedAI",
        "version": VERSION,
        "documentation": f"{site}/api/docs",
        "openapi": f"{site}{API}/openapi.json",
        "health": f"{site}{API}/health",
    }


@require_safe
def start_page(request: HttpRequest) -> HttpResponse:
    """Answers GET /, which is public: browsers, which prefer HTML, go on to the console; other clients get JSON."""
    response: HttpResponse
    if request.get_preferred_type([_JSON, _HTML]) == _HTML:
        response = HttpResponseRedirect(f"{CONSOLE}/")
    else:
        response = JsonResponse(_description())
    patch_vary_headers(response, ["Accept"])
    return response
