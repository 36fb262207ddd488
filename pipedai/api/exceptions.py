"""Turns every error that is raised under /api/v1 into the API's JSON error body."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import DisallowedHost, PermissionDenied
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.utils.deprecation import MiddlewareMixin
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.settings import api_settings

from pipedai.api.authentication import CHALLENGE
from pipedai.api.error_codes import ErrorCode, code_of_status
from pipedai.api.errors import (
    INTERNAL,
    NOT_FOUND,
    ApiError,
    Invalid,
    JsonObject,
    NotFound,
    Overloaded,
    Unavailable,
    error_body,
)
from pipedai.ids import current_request_id
from pipedai.logs import get_logger
from pipedai.server.request_scope import CONSOLE, is_console
from pipedai.sql import reason, sqlstate


class UnavailablePages(MiddlewareMixin):
    """A middleware that answers with a page and 503 if a page's view fails because the database is away or busy."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Returns None for other errors, which Django then handles as usual."""
        error = unavailable(exception)
        if error is None:
            return None
        page = problem_page("Unavailable", error.message, request.path)
        headers = {**error.headers, "Cache-Control": "no-store"}
        response = HttpResponse(page, status=error.status_code, headers=headers)
        response._has_been_logged = True  # type: ignore[attr-defined]  # unavailable() has logged it.
        return response


log = get_logger(__name__)

BUSY = "The service is busy: try again."
AWAY = "The database can't do this at the moment: try again."
# The value of `Retry-After`. A database that is just starting needs some seconds, and earlier retries would add to its
# load.
AWAY_RETRY_SECONDS = 5

# lock_not_available and query_canceled: PostgreSQL stopped the statement at a time-out that pipedai.timeouts sets.
_TIMED_OUT = {"55P03", "57014"}
# The SQLSTATEs deadlock_detected and serialization_failure. The client may try again, but the error is logged, because
# our transactions should lock rows in an order that causes no deadlock.
_COLLIDED = {"40P01", "40001"}
# The SQLSTATE classes that mean that the database can't work at present
# (https://www.postgresql.org/docs/current/errcodes-appendix.html): 08 the connection broke, 53 the disk or the memory
# is full or all connections are taken, 57 the server shuts down or starts, 58 the server can't read or write one of its
# own files.
_AWAY_CLASSES = {"08", "53", "57", "58"}
# read_only_sql_transaction: the node is a standby, or an operator made it read-only.
_READ_ONLY = "25006"
# idle_in_transaction_session_timeout and transaction_timeout: the server ended the session, because the request did
# nothing for too long in the middle of a transaction.
_SESSION_ENDED = {"25P03", "25P04"}


@contextmanager
def unless_read_only() -> Iterator[None]:
    """Ends a block of small writes without an error if the database is read-only, as a standby is."""
    try:
        yield
    except DatabaseError as error:
        if sqlstate(error) != _READ_ONLY:
            raise


def unavailable(error: BaseException) -> Unavailable | None:
    """Logs a failure of the database and returns the 503 to answer with, or returns None for any other error."""
    if not isinstance(error, DatabaseError | InterfaceError):
        return None
    state = sqlstate(error)
    cause = type(error.__cause__).__name__
    if state in _TIMED_OUT:
        log.warning("database.timed_out", error=cause)
        return Overloaded(BUSY)
    if state in _COLLIDED:
        log.error("database.collided", error=cause, exc_info=error)
        return Overloaded(BUSY)
    if not _is_away(error, state):
        return None
    if not connection.in_atomic_block:
        # The connection is closed, so that the next query opens a new one. If DATABASE_URL names several hosts, that
        # connection goes to the new primary.
        connection.close()
    log.warning("database.unavailable", error=cause, sqlstate=state, reason=reason(error))
    return Unavailable(AWAY, code=ErrorCode.DATABASE_UNAVAILABLE, retry_after=AWAY_RETRY_SECONDS)


def _is_away(error: DatabaseError | InterfaceError, state: str | None) -> bool:
    if state is None:
        # The error is the driver's own: it could not connect, or the connection is closed. A wrong password is answered
        # like this too, because the driver tells no SQLSTATE when it can't connect. The log line has the reason.
        return isinstance(error, OperationalError | InterfaceError)
    return state == _READ_ONLY or state in _SESSION_ENDED or state[:2] in _AWAY_CLASSES


_SENTENCES = {
    status.HTTP_401_UNAUTHORIZED: "Authentication is required.",
    status.HTTP_403_FORBIDDEN: "You may not do this.",
    status.HTTP_406_NOT_ACCEPTABLE: "Only application/json can be answered.",
    status.HTTP_415_UNSUPPORTED_MEDIA_TYPE: "The body must be application/json.",
}


# DRF's message about an unknown choice repeats the choice, which may be as long as the body.
_LONGEST_MESSAGE = 2000


def handle_exception(error: Exception, context: Mapping[str, Any]) -> Response | None:  # noqa: ARG001
    """Returns DRF's response to an error, or None for a crash, which Django's handler500 then answers."""
    if isinstance(error, Http404):
        error = NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    elif isinstance(error, exceptions.ValidationError):
        error = as_invalid(error)
    elif (busy := unavailable(error)) is not None:
        response = Response(busy.body(), status=busy.status_code, headers=busy.headers)
        response._has_been_logged = True  # type: ignore[attr-defined]  # by unavailable()
        return response
    if not isinstance(error, exceptions.APIException):
        return None
    return Response(_body(error), status=error.status_code, headers=_headers(error))


def _body(error: exceptions.APIException) -> JsonObject:
    if isinstance(error, ApiError):
        return error.body()
    if isinstance(error, exceptions.ParseError):
        return error_body(str(error.detail), code=ErrorCode.MALFORMED_BODY)
    sentence = _SENTENCES.get(error.status_code, str(error.detail))
    return error_body(sentence, code=code_of_status(error.status_code))


def _headers(error: exceptions.APIException) -> dict[str, str]:
    headers = dict(error.headers) if isinstance(error, ApiError) else {}
    if error.status_code == status.HTTP_401_UNAUTHORIZED:
        headers["WWW-Authenticate"] = CHALLENGE
    return headers


def as_invalid(error: exceptions.ValidationError) -> Invalid:
    """Returns the errors under dotted field names. An error of a nested field also appears under the outer one."""
    if not isinstance(error.detail, dict):
        return Invalid(form=[str(message) for message in error.detail])
    fields: dict[str, list[str]] = {}
    form: list[str] = []
    for field, detail in error.detail.items():
        for name, message in _flatten(detail, str(field)):
            if name == api_settings.NON_FIELD_ERRORS_KEY:
                form.append(message)
                continue
            if name != field:
                # The outer field gets the message too, because a form that does not know the nested field shows it
                # there.
                within = name.removeprefix(f"{field}.")
                fields.setdefault(str(field), []).append(f"{within}: {message}")
            fields.setdefault(name, []).append(message)
    return Invalid(fields, form=form)


def _flatten(detail: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yields each message of DRF's nested error detail with its field name, whose parts are joined by dots."""
    if isinstance(detail, dict):
        for key, value in detail.items():
            own = name if key == api_settings.NON_FIELD_ERRORS_KEY and name else str(key)
            yield from _flatten(value, own if own == name or not name else f"{name}.{own}")
    elif isinstance(detail, list):
        for value in detail:
            yield from _flatten(value, name)
    else:
        yield name, str(detail)[:_LONGEST_MESSAGE]


def problem_page(title: str, sentence: str, path: str) -> str:
    context = {"title": title, "sentences": [sentence], "path": path}
    return render_to_string("pipedai/problem.html", context)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001
    if is_console(request.path):
        sentence = "There is no such page."
        return HttpResponse(problem_page("Not found", sentence, f"{CONSOLE}/"), status=404)
    return JsonResponse(error_body(NOT_FOUND, code=ErrorCode.NOT_FOUND), status=404)


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:  # noqa: ARG001
    """Django's handler400: answers a request that Django refuses as suspicious, such as one with an unknown Host."""
    foreign = isinstance(exception, DisallowedHost)
    code = ErrorCode.HOST_NOT_ALLOWED if foreign else ErrorCode.MALFORMED_REQUEST
    return JsonResponse(error_body("Bad request", code=code), status=400)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500: answers a request whose view crashed. The traceback is in the log."""
    if is_console(request.path):
        sentence = (
            f"{INTERNAL}. Its number for the people who run the service: {current_request_id.get()}"
        )
        return HttpResponse(problem_page("Something broke", sentence, request.path), status=500)
    body = error_body(INTERNAL, code=ErrorCode.INTERNAL_ERROR, requestId=current_request_id.get())
    return JsonResponse(body, status=500)
