"""Answers 503 for a page of the admin or of `/pair` if a SQL statement timed out, as the API does for its calls."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string

from pipedai.api.overload import overload


class OverloadedPages:
    """A middleware that turns a time-out of the database into a 503 with a page that needs no database."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Returns the 503 page if the view's error is a time-out of the database, else None.

        Django calls it for every error.
        """
        error = overload(exception)
        if error is None:
            return None
        context = {"sentence": error.message, "path": request.path}
        page = render_to_string("pipedai/overloaded.html", context)
        response = HttpResponse(page, status=error.status_code, headers=error.headers)
        response._has_been_logged = True  # type: ignore[attr-defined]  # overload() has logged it.
        return response
