"""Serves the OpenAPI schema: docs/openapi.json, which is checked in and held in memory."""

from functools import cache

from django.http import HttpResponse
from rest_framework.request import Request

from pipedai.api.permissions import IsPublic
from pipedai.api.views import ApiViewSet
from pipedai.env import BASE_DIR

FILE = BASE_DIR / "docs" / "openapi.json"


class OpenApiViewSet(ApiViewSet):
    """The contract, for anyone: it holds nothing that API.md does not."""

    authentication_classes = ()
    permissions = {"retrieve": IsPublic}

    def retrieve(self, request: Request) -> HttpResponse:
        """GET /openapi.json"""
        return HttpResponse(_document(), content_type="application/json")


@cache
def _document() -> bytes:
    return FILE.read_bytes()
