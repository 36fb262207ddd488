"""Lists the error codes. The `code` of an error body is for programs; its sentence is for people.

We may reword a sentence, but we never change a code (SPEC §12).
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """Every error code of the API. A comment above a code tells when the API sends it, and API.md lists all codes."""

    # 409: the request would add a row beyond a ceiling, which is the largest number of rows of one kind that the
    # settings allow. The body's `ceiling` names it.
    CEILING_REACHED = "ceiling_reached"
    # 503: the database is away, takes no writes, or is full; `Retry-After` says when to ask again.
    DATABASE_UNAVAILABLE = "database_unavailable"
    # 503: the service has too much to do at this moment; `Retry-After` says when to ask again.
    OVERLOADED = "overloaded"
    # 409: the run is in a state that does not allow the call. The body's `status` names the state.
    RUN_STATE = "run_state"
    # 409: the run's trigger has secret headers, and no admin has approved the worker for them yet.
    WORKER_UNAPPROVED = "worker_unapproved"
    # 429: this caller did too much in too short a time; `Retry-After` says when to ask again.
    THROTTLED = "throttled"
