"""The real application with a few URLs that do nothing but use the database, for tests."""

import os
import time

from django.conf import settings
from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pipedai.settings")
settings.ROOT_URLCONF = __name__

from pipedai.asgi import application  # noqa: E402

__all__ = ["application"]


def backend(request: HttpRequest) -> JsonResponse:
    """Answer which server process serves this connection, slowly enough that requests spread over the threads."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        row = cursor.fetchone()
    time.sleep(0.02)
    return JsonResponse({"pid": row and row[0]})


def crash(request: HttpRequest) -> JsonResponse:
    """Fail inside a transaction."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        raise RuntimeError


urlpatterns = [path("api/v1/backend", backend), path("api/v1/crash", crash)]
handler500 = "pipedai.api.exceptions.server_error"
