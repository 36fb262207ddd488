"""The one error envelope, and the typed errors that services raise (SPEC §2).

A service raises `Conflict`, `NotFound` or `Invalid`; the exception handler turns these, and whatever DRF
or Django raise, into `{ "error": … }` with the right status.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rest_framework import exceptions, status

from pipedai.api.error_codes import ErrorCode

JsonObject = dict[str, Any]
FieldErrors = Mapping[str, Sequence[str]]

VALIDATION_FAILED = "Validation failed"
NOT_FOUND = "Not found"
INTERNAL = "Internal server error"


class ApiError(exceptions.APIException):
    """An error that carries its status, its sentence, its code and what else its body says.

    `extra` holds further top-level keys of the body (`status` of a refused transition, for example), `headers` what the
    answer carries beside it. The class gives the code unless the one who raises it names another.
    """

    status_code: int = status.HTTP_500_INTERNAL_SERVER_ERROR
    code: ErrorCode | None = None

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.headers = dict(headers or {})
        self.message = message
        self.code = code or self.code
        self.extra = extra

    def body(self) -> JsonObject:
        """The JSON object to answer with."""
        return error_body(self.message, code=self.code, **self.extra)


class Conflict(ApiError):  # noqa: N818 - named as the status it answers
    """409: the state machine or an invariant says no."""

    status_code = status.HTTP_409_CONFLICT


class CeilingReached(Conflict):
    """409: one more would be over a ceiling (SPEC §4); `ceiling` names it for programs, the sentence for people."""

    code = ErrorCode.CEILING_REACHED

    def __init__(self, ceiling: str, message: str) -> None:
        super().__init__(message, ceiling=ceiling)


class NotFound(ApiError):  # noqa: N818
    """404: no such thing, or not visible to the caller; always the same sentence."""

    status_code = status.HTTP_404_NOT_FOUND

    def __init__(self) -> None:
        super().__init__(NOT_FOUND)


class Unauthenticated(ApiError):  # noqa: N818
    """401: no credentials, bad ones, or of a kind that is not accepted here."""

    status_code = status.HTTP_401_UNAUTHORIZED


class Forbidden(ApiError):  # noqa: N818
    """403: the caller sees the resource, but may not do this to it."""

    status_code = status.HTTP_403_FORBIDDEN


class Unavailable(ApiError):  # noqa: N818
    """503: it can't be done at this moment; the same request may be sent again after `retry_after` seconds."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class Overloaded(Unavailable):
    """503: the service has too much to do at this moment, and nothing of the request was done."""

    code = ErrorCode.OVERLOADED


class Invalid(ApiError):  # noqa: N818
    """400 with field errors: keys are the request's own (camelCase, dotted when nested)."""

    status_code = status.HTTP_400_BAD_REQUEST

    def __init__(
        self, fields: FieldErrors | None = None, *, form: Sequence[str] | None = None
    ) -> None:
        self.fields = {name: list(messages) for name, messages in (fields or {}).items()}
        self.form = list(form or ())
        super().__init__(
            VALIDATION_FAILED, details={"fieldErrors": self.fields, "formErrors": self.form}
        )


def error_body(message: str, *, code: ErrorCode | None = None, **extra: Any) -> JsonObject:
    """The envelope, also for a caller below the exception handler (the ASGI wrapper, Django's error views)."""
    coded = {} if code is None else {"code": code.value}
    return {"error": message, **coded, **extra}
