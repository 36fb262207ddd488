"""What a lane that waits and its endpoint tell each other, through the ASGI scope or the context."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

# The view finds its ticket at `request.META["asgi.scope"][POLL]`; without one, nobody waits.
POLL = "pipedai.poll"
# The same for event streams; without one, the answer ends with what there is to tell now.
STREAM = "pipedai.stream"


@dataclass(slots=True)
class PasswordTicket:
    """One request that may have to hash a password; its lane asks the endpoint again once it has the places for it.

    `accounts.passwords` sets `places`; the lane sets `granted`.
    """

    # How many places the hash takes of those that bound memory; 0 while the endpoint has found nothing to hash.
    places: int = 0
    # Whether the request holds its places. It has been asked before, then, up to the hash.
    granted: bool = False


# Not in the scope, as the tickets of polls and streams are: who hashes sees no request. None where no lane waits.
PASSWORD: ContextVar[PasswordTicket | None] = ContextVar("PASSWORD", default=None)


def is_asked_again() -> bool:
    """Whether this request was put to the endpoint before, so that what is counted of it has been counted."""
    ticket = PASSWORD.get()
    return ticket is not None and ticket.granted


@dataclass(slots=True)
class PollTicket:
    """One waiting poll; the long-poll lane asks the endpoint with it again until there is news.

    The view sets `workspace_id`, `order` (the first time), `wait_seconds`, `empty` and
    `next_due_seconds`; the lane sets the rest.
    """

    worker_id: UUID
    # The worker's, once the endpoint has seen its token: workspaces take turns at asking.
    workspace_id: UUID | None = None
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

    def begin(self) -> None:
        """The endpoint is about to be asked, and what it said before holds no longer."""
        self.asked += 1
        self.empty = False
        self.next_due_seconds = None

    @property
    def is_first_ask(self) -> bool:
        """Whether the view must announce this poll to the older ones."""
        return self.asked == 1


@dataclass(slots=True)
class StreamTicket:
    """One event stream; its lane asks the endpoint with it again whenever there may be something to tell.

    The view keeps in it how far the stream has come.
    """

    # How often the endpoint has been asked.
    asked: int = 0
    # The key that opened the stream, and its workspace.
    key_id: UUID | None = None
    workspace_id: UUID | None = None
    # The last event when the stream began, or that its reader saw before; None until the first ask.
    began_after: int | None = None
    # The events told lately: an event may become visible after one with a larger id.
    told: dict[int, datetime] = field(default_factory=dict)
    # The largest id told.
    newest: int = 0
    # Whether there may be more to tell at once.
    more: bool = False
