"""Tickets, objects by which a lane and the Django view that it asks again and again for a request exchange facts."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

# The key in the ASGI scope of a poll's ticket. A poll without a ticket does not wait: the view answers it at once.
POLL = "pipedai.poll"
# The key in the ASGI scope of an event stream's ticket. A request without a ticket gets the events that exist now, and
# its answer then ends.
STREAM = "pipedai.stream"


@dataclass(slots=True)
class PermitTicket:
    """The ticket of a request that may need a permit. `Permits` sets `wanted`, and PermitLane `granted`."""

    # Whether the view has come to work that needs a permit.
    wanted: bool = False
    # Whether the request has the permit. If so, the view has already run once, until the point where it needs it.
    granted: bool = False


# The ticket of the request that is being served: for a hash of a password, whose permit is a share of the memory that
# all hashes of the process may use together, and for requests to the issuer, of which few may hold a thread. It is kept
# in a context variable, because the code that does the work does not see the request or its ASGI scope. It is None for
# requests that no PermitLane serves.
PASSWORD: ContextVar[PermitTicket | None] = ContextVar("PASSWORD", default=None)
ISSUER: ContextVar[PermitTicket | None] = ContextVar("ISSUER", default=None)


class Permits:
    """Lets few threads do some work at once. In the web process no thread waits: PermitLane makes whole requests wait,
    and repeats them. Elsewhere, as in a command, the thread waits for at most `patience` seconds.
    """

    def __init__(
        self,
        ticket: ContextVar[PermitTicket | None],
        at_once: int,
        *,
        patience: float,
        refusal: Callable[[], Exception],
    ) -> None:
        self.free = threading.BoundedSemaphore(at_once)
        self._ticket = ticket
        self._patience = patience
        self._refusal = refusal

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wraps the work. Enter it before writing anything, because a request without a permit is repeated later.
        Raises the refusal if the permit does not come in time.
        """
        ticket = self._ticket.get()
        if ticket is None:
            if not self.free.acquire(timeout=self._patience):
                raise self._refusal()
            try:
                yield
            finally:
                self.free.release()
        elif ticket.granted:
            yield
        else:
            ticket.wanted = True
            raise self._refusal()


@dataclass(slots=True)
class AskingTicket:
    """The ticket of a request that waits while a scheduler asks a tenant's server. The view sets `workspace_id` and
    `waits`, and AskingLane sets the rest.
    """

    # The workspace that owns the connection. The view sets it when it has checked the caller.
    workspace_id: UUID | None = None
    # How often AskingLane has asked the view for this request.
    asked: int = 0
    # Whether no scheduler has answered yet. Only then AskingLane waits and asks again.
    waits: bool = False
    # Whether AskingLane asks for the last time, so that the view withdraws a question that no scheduler has begun.
    is_last: bool = False

    def begin(self, *, is_last: bool) -> None:
        self.asked += 1
        self.waits, self.is_last = False, is_last


# The ticket of the request that is being served, in a context variable, since the console's pages ask the API in this
# process. It is None for requests that AskingLane does not serve.
ASKING: ContextVar[AskingTicket | None] = ContextVar("ASKING", default=None)


def is_asked_again() -> bool:
    """Whether the server asks the view again for the same request, which throttles must not count a second time."""
    granted = any(ticket.granted for ticket in (PASSWORD.get(), ISSUER.get()) if ticket)
    asking = ASKING.get()
    return granted or (asking is not None and asking.asked > 1)


@dataclass(slots=True)
class PollTicket:
    """The ticket of a waiting poll. The view sets `workspace_id`, `order` (when first asked), `wait_seconds`, `empty`,
    `next_due_seconds` and `pool_ids`, and LongPoll the rest.
    """

    worker_id: UUID
    # The worker's workspace. The view sets it when it has checked the worker's token. Workspaces take turns when many
    # polls want to ask the view.
    workspace_id: UUID | None = None
    # How often LongPoll has asked the view for this poll.
    asked: int = 0
    # When the poll began, in microseconds on the database's clock. A newer poll of the worker has a larger order.
    order: int = 0
    # How many seconds the worker wants to wait for a run in all, from 0 to 30. The view has validated the number.
    wait_seconds: float = 0.0
    # Whether the view answered 200 without runs. LongPoll waits and asks again only after such an answer.
    empty: bool = False
    # The seconds until the worker's next queued run becomes due, or None if the view knows of none.
    next_due_seconds: float | None = None
    # The pools whose runs the worker could take now. It is empty if the worker has no room for another run.
    pool_ids: Sequence[UUID] = ()
    # Whether the poll ended because a newer poll of the same worker began.
    superseded: bool = False

    def begin(self) -> None:
        self.asked += 1
        self.empty = False
        self.next_due_seconds = None

    @property
    def is_first_ask(self) -> bool:
        """Whether the view is asked for the first time. It then notifies the worker's older polls, so that they end."""
        return self.asked == 1


class Piece(NamedTuple):
    """The next events of a subject, as `text` for all of its streams that have sent the same events so far. `last` is
    the number of the last event in `text`.
    """

    text: bytes
    last: int
    more: bool = False


# Reads the next events of several streams in one statement. Each stream is given by its subject's id and the number of
# the last event that it has sent; a stream for which there is nothing new may be left out of the result.
ReadTogether = Callable[[Sequence[tuple[UUID, int]]], dict[tuple[UUID, int], Piece]]


@dataclass(slots=True)
class StreamTicket:
    """The ticket of an event stream, whose view sets the fields; a subclass notes what it has sent."""

    # How often EventStreams has asked the view for this stream.
    asked: int = 0
    # Further ids whose notifications the stream wants: that of the user or API key that opened it, because their access
    # may end. `workspace_id` is the workspace of the stream's subject.
    hears_of: frozenset[UUID] = frozenset()
    workspace_id: UUID | None = None
    # Whether the view must be asked again at once, because one answer could not hold all news.
    more: bool = False
    # Whether the stream ends after this answer, because there will be no more news.
    is_over: bool = False
    # In how many seconds the view must be asked again at the latest, if that is sooner than usual.
    again_seconds: float | None = None
    # How many seconds the stream waits before it sends its first line.
    opening_seconds: float = 0.0
    # The status of its run that the stream has seen last.
    status: str | None = None
    # When the view must announce again that its subject is streamed, by the monotonic clock.
    announce_again_at: float = 0.0
    # Reads new events for this stream and others together, while only events are new. It is None if only the view can
    # read the news. `sent` is the number of the last event that the stream has sent, or that the client says it has; it
    # is None until the view was asked once.
    read_together: ReadTogether | None = None
    sent: int | None = None


@dataclass(slots=True)
class WorkerStreamTicket(StreamTicket):
    # The stream looks at events with a larger id than this one. It is the id of the last event that the reader had, or
    # of the newest event that was 30 s old when the stream began, whichever is smaller. It is None until the view was
    # asked once.
    began_after: int | None = None
    # The time of each event that was sent recently, or came shortly before the stream began, by the event's id. An
    # event whose transaction commits late appears after events with larger ids. So the view looks for such events, and
    # leaves out those that are listed here.
    told: dict[int, datetime] = field(default_factory=dict)
    # The largest id of all events that the stream has sent, or that its reader had before.
    newest: int = 0


@dataclass(slots=True)
class EnvironmentStreamTicket(StreamTicket):
    # What has changed since the last answer: pairs of a kind, such as `run`, and an id.
    changed: set[tuple[str, UUID]] = field(default_factory=set)
    # Whether changes may have been missed, because notifications were lost or too many came at once.
    missed: bool = False
    # When the view was last asked, by the database's clock.
    asked_at: datetime | None = None


Ticket = PollTicket | StreamTicket | AskingTicket
