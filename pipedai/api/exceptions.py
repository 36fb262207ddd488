"""Turns every error that is raised under /api/v1 into the API's JSON error body (SPEC §2)."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.core.exceptions import DisallowedHost, PermissionDenied
from django.http import Http404, HttpRequest, JsonResponse
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.settings import api_settings

from pipedai.api.authentication import CHALLENGE
from pipedai.api.database_errors import unavailable
from pipedai.api.error_codes import ErrorCode, code_of_status
from pipedai.api.errors import (
    INTERNAL,
    NOT_FOUND,
    ApiError,
    Invalid,
    JsonObject,
    NotFound,
    error_body,
)
from pipedai.api.request_id import current_request_id

_SENTENCES = {
    status.HTTP_401_UNAUTHORIZED: "Authentication is required.",
    status.HTTP_403_FORBIDDEN: "You may not do this.",
    status.HTTP_406_NOT_ACCEPTABLE: "Only application/json can be answered.",
    status.HTTP_415_UNSUPPORTED_MEDIA_TYPE: "The body must be application/json.",
}


def handle_exception(error: Exception, context: Mapping[str, Any]) -> Response | None:  # noqa: ARG001
    """Returns DRF's response to an error, or None for a crash, which Django's handler500 then answers."""
    if isinstance(error, Http404):
        error = NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    elif isinstance(error, exceptions.ValidationError):
        error = _as_invalid(error)
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


def _as_invalid(error: exceptions.ValidationError) -> Invalid:
    """Returns the errors under dotted field names. An error of a nested field also appears under the name of the outer
    field.
    """
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
        yield name, str(detail)


def not_found(request: HttpRequest, exception: Exception) -> JsonResponse:  # noqa: ARG001
    """Answers a URL without a route. It is Django's handler404."""
    return JsonResponse(error_body(NOT_FOUND, code=ErrorCode.NOT_FOUND), status=404)


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:  # noqa: ARG001
    """Answers a request that Django refuses as suspicious, such as one with an unknown Host.

    It is Django's handler400.
    """
    foreign = isinstance(exception, DisallowedHost)
    code = ErrorCode.HOST_NOT_ALLOWED if foreign else ErrorCode.MALFORMED_REQUEST
    return JsonResponse(error_body("Bad request", code=code), status=400)


def server_error(request: HttpRequest) -> JsonResponse:  # noqa: ARG001
    """Answers a crash. The log has the traceback and the request id. It is Django's handler500."""
    body = error_body(INTERNAL, code=ErrorCode.INTERNAL_ERROR, requestId=current_request_id.get())
    return JsonResponse(body, status=500)
