"""The bare view: the least that a handler of any Django project does."""

from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.urls import path


def health(_: HttpRequest) -> JsonResponse:
    """Answers, so that the benchmark knows that the process serves."""
    return JsonResponse({"status": "ok"})


def touch(_: HttpRequest, number: int) -> JsonResponse:
    """Reads a row and changes it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT touched FROM bench_floor WHERE n = %s", [number])
        (touched,) = cursor.fetchone()
        cursor.execute("UPDATE bench_floor SET touched = touched + 1 WHERE n = %s", [number])
    return JsonResponse({"touched": touched})


urlpatterns = [
    path("api/v1/health", health),
    path("api/v1/touch/<int:number>", touch),
]
