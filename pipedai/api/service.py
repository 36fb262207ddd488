"""What the service tells everybody: what it is, whether it works, and its OpenAPI schema (SPEC §5, §12)."""

# drf-spectacular has types for only a part of its functions, so mypy must allow calls of untyped functions here.
# mypy: disallow-untyped-calls=False

import threading
from functools import cache
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Unavailable
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.views import ApiViewSet, IsPublic
from pipedai.replica import is_on
from pipedai.replica.reading import state_of_replica
from pipedai.server.headers import API, CONSOLE
from pipedai.sql import database_now, takes_writes
from pipedai.timezones import EDITION
from pipedai.version import VERSION

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
        """Answers GET /health: 503 if the database can't take writes, which nearly every call does. A replica that is
        away is only told of, because the primary answers in its place.
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
        """Answers requests with an `Origin`, which need Django's headers. `pipedai.server.lanes` answers others."""
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
                info=serializers.DictField(),
                paths=serializers.DictField(),
            )
        },
    )
    def retrieve(self, request: Request) -> HttpResponse:
        return HttpResponse(made_document(), content_type=_JSON)


def made_document() -> bytes:
    """Returns the schema as JSON. Whoever asks while it is made waits, so that it is made once."""
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
