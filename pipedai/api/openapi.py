"""Serves the OpenAPI schema from the file docs/openapi.json, which each process reads once."""

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
    """Serves the OpenAPI schema to everybody, because the schema holds nothing that API.md does not."""

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
        """Answers GET /openapi.json with the content of docs/openapi.json."""
        return HttpResponse(_document(), content_type="application/json")


@cache
def _document() -> bytes:
    return FILE.read_bytes()
