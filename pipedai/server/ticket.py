"""What a waiting poll and the poll endpoint tell each other, through the ASGI scope."""

from dataclasses import dataclass
from uuid import UUID

# The view finds its ticket at `request.META["asgi.scope"][POLL]`; without one, nobody waits.
POLL = "pipedai.poll"


@dataclass(slots=True)
class PollTicket:
    """One waiting poll; the long-poll lane asks the endpoint with it again until there is news.

    The view sets `order` (the first time), `wait_seconds`, `empty` and `next_due_seconds`; the
    lane sets the rest.
    """

    worker_id: UUID
    # How often the endpoint has been asked, this time included.
    asked: int = 0
    # The database's clock in microseconds when the poll began: a larger one is a newer poll.
    order: int = 0
    # How long the caller wants to wait in all, validated: 0 to 30.
    wait_seconds: float = 0.0
    # Whether this answer is a 200 without runs; anything else ends the wait.
    empty: bool = False
    # Until the next queued run becomes due; None if none is known.
    next_due_seconds: float | None = None
    # Whether a newer poll of the same worker ended this one.
    superseded: bool = False

    @property
    def is_first_ask(self) -> bool:
        """Whether the view must announce this poll to the older ones."""
        return self.asked == 1
