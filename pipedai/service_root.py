"""Tells what this service is and where its parts are, at `/` and at `/api/v1` (SPEC §12)."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.permissions import IsPublic
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.views import ApiViewSet
from pipedai.server.headers import API
from pipedai.version import VERSION

_JSON, _HTML = "application/json", "text/html"


def description() -> dict[str, str]:
    """Returns the name and version of the service, and the URLs of its documentation, its schema and its health."""
    site = settings.PUBLIC_URL
    return {
        "name": "PipedAI",
        "version": VERSION,
        "documentation": f"{site}/api/docs",
        "openapi": f"{site}{API}/openapi.json",
        "health": f"{site}{API}/health",
    }


class ServiceRootViewSet(ApiViewSet):
    """Describes the service to a client that knows only the base URL of the API."""

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
        """Answers with `description()`."""
        return Response(description())


@require_safe
def start_page(request: HttpRequest) -> HttpResponse:
    """Answers GET /, which is public: a page with links if the client prefers HTML, as browsers do, else JSON."""
    response: HttpResponse
    if request.get_preferred_type([_JSON, _HTML]) == _HTML:
        response = render(request, "pipedai/start.html", {"version": VERSION})
    else:
        response = JsonResponse(description())
    patch_vary_headers(response, ["Accept"])
    return response
