"""What came back from an attempt to send something, and what follows from it."""

from dataclasses import dataclass
from enum import StrEnum


class Result(StrEnum):
    """What an answer means for the message that was sent."""

    # The other side has the message.
    TAKEN = "taken"
    # The other side does not want the message. Sending it again would change nothing.
    REFUSED = "refused"
    # The other side may take the message later. The message is given up after a number of such answers.
    AGAIN = "again"
    # The service's own mail server is away or refuses the service itself, which says nothing about the message. The
    # message waits for the server.
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request over HTTP.

    `error` is a few words if there was no complete answer in time. It never names an address. `status_code` may be set
    even then. `body` is the first KiB of the answer's body, unchanged.
    """

    status_code: int | None
    duration_ms: int
    error: str | None = None
    body: bytes | None = None
    retry_after: str | None = None

    @property
    def result(self) -> Result:
        """What the answer means: 2xx is taken, 429, 5xx and no answer are tried again, others are final (SPEC §7)."""
        code = self.status_code
        if self.error is not None or code is None:
            return Result.AGAIN
        if 200 <= code < 300:
            return Result.TAKEN
        return Result.AGAIN if code == 429 or code >= 500 else Result.REFUSED


@dataclass(frozen=True, slots=True)
class OwnAnswer(Answer):
    """An answer whose meaning does not follow from an HTTP status: of a mail server, or of our own code that could not
    make the message.
    """

    means: Result = Result.AGAIN

    @property
    def result(self) -> Result:
        """What the answer means, as the code that made it has decided."""
        return self.means
