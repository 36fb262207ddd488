"""The registry of error codes: the `code` of an error body, which programs read where people read the sentence.

A sentence may be reworded, a code never (SPEC §12).
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """Every code, with the case that it names. API.md lists them."""

    # 409: the row would be one more than a ceiling allows; `ceiling` says which.
    CEILING_REACHED = "ceiling_reached"
    # 503: the service has too much to do at this moment; `Retry-After` says when to ask again.
    OVERLOADED = "overloaded"
    # 409: the run's trigger has headers, and no admin has approved the worker yet.
    WORKER_UNAPPROVED = "worker_unapproved"
    # 429: this caller did too much in too short a time; `Retry-After` says when to ask again.
    THROTTLED = "throttled"
