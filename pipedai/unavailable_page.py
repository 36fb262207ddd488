"""Answers 503 for a page of the admin or `/pair` that the database could not serve, as the API does for its calls."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string

from pipedai.api.database_errors import unavailable


class UnavailablePages:
    """A middleware that answers 503 with a page when a view fails because the database is away or busy.

    The page needs no database. The API's own errors never come here, because DRF answers them in the view.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Returns a page with a 503 if the database could not do what the view asked, else None.

        Django calls this method with the error that the view raised. After None, Django handles the error as any other.
        """
        error = unavailable(exception)
        if error is None:
            return None
        context = {"sentence": error.message, "path": request.path}
        page = render_to_string("pipedai/unavailable.html", context)
        headers = {**error.headers, "Cache-Control": "no-store"}
        response = HttpResponse(page, status=error.status_code, headers=headers)
        response._has_been_logged = True  # type: ignore[attr-defined]  # unavailable() has logged it.
        return response
