"""Defines tickets, in which a waiting lane and the endpoint that it asks tell each other what they need to know."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

# The key in the ASGI scope of a poll's ticket. If a request has no ticket, no lane waits with it.
POLL = "pipedai.poll"
# The key in the ASGI scope of an event stream's ticket. If a request has no ticket, the answer holds the present events
# and ends.
STREAM = "pipedai.stream"


@dataclass(slots=True)
class PasswordTicket:
    """Belongs to one request that may have to hash a password. Its lane asks the endpoint again when it has places.

    The code in `accounts.passwords` sets `places`, and the lane sets `granted`.
    """

    # How many places the hash needs. The places of a process bound the memory of all its hashes. 0 means that the
    # endpoint has nothing to hash yet.
    places: int = 0
    # Whether the request has its places. If so, the endpoint has run once before, up to the hash.
    granted: bool = False


# The ticket of the present request. It is kept in the context and not in the scope, because the code that hashes sees
# no request. It is None if no lane waits with the request.
PASSWORD: ContextVar[PasswordTicket | None] = ContextVar("PASSWORD", default=None)


def is_asked_again() -> bool:
    """Whether the lane asks the endpoint a second time with the same request, which throttles must not count again."""
    ticket = PASSWORD.get()
    return ticket is not None and ticket.granted


@dataclass(slots=True)
class PollTicket:
    """Belongs to one waiting poll. The long-poll lane asks the endpoint again and again until there is a run.

    The view sets `workspace_id`, `order` (the first time), `wait_seconds`, `empty` and `next_due_seconds`. The lane
    sets the rest.
    """

    worker_id: UUID
    # The worker's workspace, which is set when the endpoint has checked the worker's token. Workspaces take turns at
    # asking.
    workspace_id: UUID | None = None
    # How often the lane has asked the endpoint, with the present ask.
    asked: int = 0
    # When the poll began, in microseconds on the database's clock. A newer poll has a larger order.
    order: int = 0
    # How many seconds the caller wants to wait in all, from 0 to 30. The endpoint has validated the number.
    wait_seconds: float = 0.0
    # Whether the endpoint's answer is a 200 without runs. The lane waits only after such an answer.
    empty: bool = False
    # Seconds until the next queued run becomes due, or None if no run is known.
    next_due_seconds: float | None = None
    # Whether the poll ended because a newer poll of the same worker began.
    superseded: bool = False

    def begin(self) -> None:
        """Forget the endpoint's last answer, because the lane is about to ask again."""
        self.asked += 1
        self.empty = False
        self.next_due_seconds = None

    @property
    def is_first_ask(self) -> bool:
        """Whether the endpoint is asked for the first time.

        The view then announces this poll to older polls of the worker.
        """
        return self.asked == 1


@dataclass(slots=True)
class StreamTicket:
    """Belongs to one event stream. The stream's lane asks the endpoint again whenever there may be new events.

    The view notes in the ticket which events it has sent.
    """

    # How often the lane has asked the endpoint.
    asked: int = 0
    # The key that opened the stream. Its workspace is `workspace_id`.
    key_id: UUID | None = None
    workspace_id: UUID | None = None
    # The id of the last event that the reader had when the stream began, or else of the last event before that time. It
    # is None until the endpoint was asked once.
    began_after: int | None = None
    # The ids and times of the events sent recently. They are remembered because an event may become visible after one
    # with a larger id.
    told: dict[int, datetime] = field(default_factory=dict)
    # The largest id of an event that the stream has sent.
    newest: int = 0
    # Whether to ask again at once, because one answer did not hold all events.
    more: bool = False
