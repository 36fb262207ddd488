"""Reads what the stream of an environment tells next: the changed things, each with the state that it has now."""

from functools import partial
from itertools import islice
from typing import NamedTuple
from uuid import UUID

from pipedai.api.views import announce_stream
from pipedai.server.ticket import EnvironmentStreamTicket
from pipedai.sql import database_now
from triggers.changes.kinds import kinds
from triggers.changes.telling import announce

# How many things one answer tells at most. The stream asks again for the others.
PIECE = 200
# How long the scheduler may take to learn of a new stream. The stream sends its first line afterwards, so that it tells
# everything that changes after that line.
OPENING_SECONDS = 1.1
# The state of a thing that does not exist any more.
DELETED = "deleted"


class Change(NamedTuple):
    """A thing that changed, with the state that it has now."""

    kind: str
    id: UUID
    status: str


def changes_of(ticket: EnvironmentStreamTicket, *, environment_id: UUID) -> list[Change]:
    announce_stream(ticket, partial(announce, environment_id))
    now = database_now()
    since, ticket.asked_at = ticket.asked_at, now
    if since is None:
        ticket.opening_seconds = OPENING_SECONDS
        return []
    for kind in kinds():
        if kind.changed_by_time is not None:
            by_time = kind.changed_by_time(environment_id, since, now)
            ticket.changed.update((kind.name, id_) for id_ in by_time)
    piece = set(islice(ticket.changed, PIECE))
    ticket.changed -= piece
    ticket.more = bool(ticket.changed)
    told = []
    for kind in kinds():
        ids = {id_ for name, id_ in piece if name == kind.name}
        if not ids:
            continue
        states = {state.id: state for state in kind.read(environment_id, ids)}
        for id_ in sorted(ids):
            state = states.get(id_)
            told.append(Change(kind.name, id_, state.status if state else DELETED))
            if state:
                piece.update(state.others)
    return told
