"""Defines the tickets by which a waiting lane and its endpoint tell each other what they need to know."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

# The view finds its ticket at `request.META["asgi.scope"][POLL]`. If there is none, no lane waits with this request.
POLL = "pipedai.poll"
# The same for event streams. If there is none, the answer holds the present events and then ends.
STREAM = "pipedai.stream"


@dataclass(slots=True)
class PasswordTicket:
    """One request that may have to hash a password. Its lane asks the endpoint again when it has the places for it.

    `accounts.passwords` sets `places`; the lane sets `granted`.
    """

    # How many places the hash needs. Places bound the memory of all hashes. 0 while the endpoint has nothing to hash.
    places: int = 0
    # Whether the request holds its places. If so, the endpoint has run once before, up to the hash.
    granted: bool = False


# This ticket lies in the context and not in the scope, because the code that hashes sees no request. It is None where
# no lane waits.
PASSWORD: ContextVar[PasswordTicket | None] = ContextVar("PASSWORD", default=None)


def is_asked_again() -> bool:
    """Whether the lane has asked the endpoint with this request before, so that throttles must not count it again."""
    ticket = PASSWORD.get()
    return ticket is not None and ticket.granted


@dataclass(slots=True)
class PollTicket:
    """One waiting poll. The long-poll lane asks the endpoint with it again and again until there is a run.

    The view sets `workspace_id`, `order` (the first time), `wait_seconds`, `empty` and
    `next_due_seconds`; the lane sets the rest.
    """

    worker_id: UUID
    # The worker's workspace, set once the endpoint has checked its token, because workspaces take turns at asking.
    workspace_id: UUID | None = None
    # How often the endpoint has been asked, this time included.
    asked: int = 0
    # The time when the poll began, in microseconds on the database's clock, so that a newer poll has a larger one.
    order: int = 0
    # How long the caller wants to wait in all, validated to be from 0 to 30.
    wait_seconds: float = 0.0
    # Whether this answer is a 200 without runs; anything else ends the wait.
    empty: bool = False
    # Seconds until the next queued run becomes due, or None if none is known.
    next_due_seconds: float | None = None
    # Whether a newer poll of the same worker ended this one.
    superseded: bool = False

    def begin(self) -> None:
        """Reset what the endpoint said before, because the lane is about to ask it again."""
        self.asked += 1
        self.empty = False
        self.next_due_seconds = None

    @property
    def is_first_ask(self) -> bool:
        """Whether this is the first time, when the view must announce this poll to the worker's older polls."""
        return self.asked == 1


@dataclass(slots=True)
class StreamTicket:
    """One event stream. Its lane asks the endpoint with it again whenever there may be new events.

    The view notes in it which events it has sent.
    """

    # How often the endpoint has been asked.
    asked: int = 0
    # The key that opened the stream, and its workspace.
    key_id: UUID | None = None
    workspace_id: UUID | None = None
    # The id of the last event before the stream began, or of the last that its reader has; None until the first ask.
    began_after: int | None = None
    # The events sent recently. We remember them because an event may become visible after one with a larger id.
    told: dict[int, datetime] = field(default_factory=dict)
    # The largest id of an event that was sent.
    newest: int = 0
    # Whether there may be more events to send at once.
    more: bool = False
