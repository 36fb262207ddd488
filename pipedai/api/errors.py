"""The JSON body of error answers, `{ "error": …, "code": … }`, and the errors that services raise.

The exception handler turns these errors, and all errors of DRF and Django, into that body.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from rest_framework import exceptions, status

from pipedai.api.error_codes import ErrorCode

T = TypeVar("T")
JsonObject = dict[str, Any]
FieldErrors = Mapping[str, Sequence[str]]

VALIDATION_FAILED = "Validation failed"
NOT_FOUND = "Not found"
INTERNAL = "Internal server error"


class ApiError(exceptions.APIException):
    """`extra` holds further keys of the body, such as the current `status` when a transition is refused. `headers` are
    added to the answer.
    """

    status_code: int = status.HTTP_500_INTERNAL_SERVER_ERROR

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.headers = dict(headers or {})
        self.message = message
        self.code = code
        self.extra = extra

    def body(self) -> JsonObject:
        return error_body(self.message, code=self.code, **self.extra)


class Conflict(ApiError):  # noqa: N818 - named as the status it answers
    """409: the state of the resource, or a rule that must always hold, forbids the change."""

    status_code = status.HTTP_409_CONFLICT


class CeilingReached(Conflict):
    """409: one more row would exceed a ceiling.

    A ceiling is the largest number of rows of one kind (workspaces/ceilings.py). The body's key `ceiling` names it.
    """

    def __init__(self, ceiling: str, message: str) -> None:
        super().__init__(message, code=ErrorCode.CEILING_REACHED, ceiling=ceiling)


class NotFound(ApiError):  # noqa: N818
    """404: the resource does not exist, or the caller can't see it. The answer is the same in both cases."""

    status_code = status.HTTP_404_NOT_FOUND

    def __init__(self) -> None:
        super().__init__(NOT_FOUND, code=ErrorCode.NOT_FOUND)


def or_not_found(row: T | None) -> T:
    """Returns the row that a caller looked for. Raises NotFound if it is None."""
    if row is None:
        raise NotFound
    return row


class Unauthenticated(ApiError):  # noqa: N818
    """401: the credentials are missing, bad, or of a kind that is not accepted here."""

    status_code = status.HTTP_401_UNAUTHORIZED


class Forbidden(ApiError):  # noqa: N818
    """403: the caller may see the resource, but may not perform this action on it."""

    status_code = status.HTTP_403_FORBIDDEN

    def __init__(self, message: str, *, code: ErrorCode = ErrorCode.FORBIDDEN) -> None:
        super().__init__(message, code=code)


class Unavailable(ApiError):  # noqa: N818
    """503: the service can't do this now. The client may send the same request again after `retry_after` seconds."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE

    def __init__(self, message: str, *, code: ErrorCode, retry_after: int = 1) -> None:
        super().__init__(message, code=code, headers={"Retry-After": str(retry_after)})


class Overloaded(Unavailable):
    """503: the service has too much to do at this moment, and did nothing for the request."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=ErrorCode.OVERLOADED)


class Invalid(ApiError):  # noqa: N818
    """400 with field errors. Their keys are the names in the request: camelCase, joined by dots when nested."""

    status_code = status.HTTP_400_BAD_REQUEST

    def __init__(
        self, fields: FieldErrors | None = None, *, form: Sequence[str] | None = None
    ) -> None:
        self.fields = {name: list(messages) for name, messages in (fields or {}).items()}
        self.form = list(form or ())
        super().__init__(
            VALIDATION_FAILED,
            code=ErrorCode.VALIDATION_FAILED,
            details={"fieldErrors": self.fields, "formErrors": self.form},
        )


def error_body(message: str, *, code: ErrorCode, **extra: Any) -> JsonObject:
    """Returns the body of an error. Django's 404 page, for example, calls this without an `ApiError`."""
    return {"error": message, "code": code.value, **extra}


class BodyTooLarge(ApiError):  # noqa: N818 - named as what it answers
    """The error for a request whose body is longer than its endpoint allows."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE

    def __init__(self, message: str) -> None:
        super().__init__(message, code=ErrorCode.BODY_TOO_LARGE)
