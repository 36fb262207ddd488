"""Serves the OpenAPI schema, which each process makes when it is first asked for."""

import threading
from functools import cache
from typing import Any

from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.permissions import IsPublic
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.views import ApiViewSet

_MAKING = threading.Lock()


class OpenApiViewSet(ApiViewSet):
    """Serves the OpenAPI schema to everybody, because the schema holds nothing that API.md does not."""

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
        says={200: "With this reference as an OpenAPI 3.1 document."},
    )
    def retrieve(self, request: Request) -> HttpResponse:
        """Answers GET /openapi.json."""
        with _MAKING:
            made = document()
        return HttpResponse(made, content_type="application/json")


@cache
def document() -> bytes:
    """Returns the schema as JSON. A process that is never asked for it doesn't import what makes it."""
    from drf_spectacular.generators import SchemaGenerator
    from drf_spectacular.renderers import OpenApiJsonRenderer

    generator: Any = SchemaGenerator
    schema = generator().get_schema(public=True)
    return OpenApiJsonRenderer().render(schema, None, {})
