"""Serves the page that shows the OpenAPI schema in Swagger UI, with all files from this server (SPEC §5)."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe


@require_safe
def docs_page(request: HttpRequest) -> HttpResponse:
    """Answers GET /api/docs, which is public. pipedai.server.headers says what the page may load."""
    return render(request, "pipedai/docs.html")
