"""Serves the OpenAPI schema: the process keeps the checked-in docs/openapi.json in memory."""

from functools import cache

from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.permissions import IsPublic
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.views import ApiViewSet
from pipedai.env import BASE_DIR

FILE = BASE_DIR / "docs" / "openapi.json"


class OpenApiViewSet(ApiViewSet):
    """The OpenAPI schema is public, because it holds nothing that API.md does not."""

    tag = "Service"
    authentication_classes = ()
    permissions = {"retrieve": IsPublic}

    @Operation(
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
        """GET /openapi.json: the schema, as docs/openapi.json has it."""
        return HttpResponse(_document(), content_type="application/json")


@cache
def _document() -> bytes:
    return FILE.read_bytes()
