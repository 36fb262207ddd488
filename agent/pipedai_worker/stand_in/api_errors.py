"""Names the failures of the model's API as claude names them."""

from __future__ import annotations

from typing import Any, NamedTuple

CUT = "cut"


class ApiError(NamedTuple):
    """One failure of the model's API.

    `status` is its HTTP status, or None if no answer came. `kind` is what claude's message calls it, and `type` is what
    the API itself calls it.
    """

    status: int | None
    kind: str
    type: str | None
    # The kind of error that the real claude names in its event `api_retry`; None for an error after which it does not
    # call the API again. The field `retries`, below, is how often it does; None means as often as its settings allow.
    retried_as: str | None = None
    retries: int | None = None
    reason: str = "api_error"

    @property
    def fields(self) -> dict[str, Any]:
        """Return the fields that claude's message and result have about the failure, besides its kind."""
        if self.status is None:
            return {"api_error": "connection_failed"}
        return {"api_error_status": self.status, "api_error_type": self.type}


_NAMED = {
    401: ApiError(401, "authentication_failed", "authentication_error", "authentication_failed", 2),
    403: ApiError(403, "authentication_failed", "permission_error"),
    404: ApiError(404, "model_not_found", "not_found_error"),
    413: ApiError(413, "invalid_request", "request_too_large", reason="image_error"),
    429: ApiError(429, "rate_limit", "rate_limit_error", "rate_limit"),
    529: ApiError(529, "server_error", "overloaded_error", "overloaded"),
}


def named(what: str) -> ApiError:
    """Return the failure with this HTTP status, or for `cut` that of a connection that is cut. Raises ValueError."""
    if what == CUT:
        return ApiError(None, "server_error", None, "unknown")
    status = int(what)
    if status in _NAMED:
        return _NAMED[status]
    if status >= 500:
        return ApiError(status, "server_error", "api_error", "server_error")
    return ApiError(status, "unknown", "invalid_request_error")
