"""Describes the answer to an attempt to send a message, and what the answer means for the message."""

from dataclasses import dataclass
from enum import StrEnum


class Result(StrEnum):
    """What an answer means for the message that was sent."""

    # The receiver has taken the message.
    TAKEN = "taken"
    # The receiver refuses the message. Sending it again would change nothing.
    REFUSED = "refused"
    # The receiver may take the message later. The message is given up after a number of such answers.
    AGAIN = "again"
    # The service's own mail server can't be reached, or refuses the service itself. This says nothing about the
    # message, so the message waits for the server.
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request over HTTP.

    `error` says in a few words why no complete answer came in time, or is None. It never names an address.
    `status_code` may be set beside `error`. `body` is the first KiB of the answer's body, unchanged.
    """

    status_code: int | None
    duration_ms: int
    error: str | None = None
    body: bytes | None = None
    retry_after: str | None = None

    @property
    def result(self) -> Result:
        """The meaning of the answer: 2xx is TAKEN; 429, 5xx and no answer are AGAIN; others are REFUSED (SPEC §7)."""
        code = self.status_code
        if self.error is not None or code is None:
            return Result.AGAIN
        if 200 <= code < 300:
            return Result.TAKEN
        return Result.AGAIN if code == 429 or code >= 500 else Result.REFUSED


@dataclass(frozen=True, slots=True)
class OwnAnswer(Answer):
    """An answer whose result is given, because no HTTP status decides it. It comes from a mail server, or from our own
    code if that could not make the message.
    """

    means: Result = Result.AGAIN

    @property
    def result(self) -> Result:
        """The result that was given when the answer was made."""
        return self.means
