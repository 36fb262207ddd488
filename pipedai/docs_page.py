"""Serves the page that shows the OpenAPI schema: Swagger UI, of files of our own alone (SPEC §5)."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe


@require_safe
def docs_page(request: HttpRequest) -> HttpResponse:
    """GET /api/docs, for anyone. What it may load is in pipedai.server.headers."""
    return render(request, "pipedai/docs.html")
