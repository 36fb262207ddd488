"""Reads the states of incidents for the streams of their environment."""

from collections.abc import Collection
from uuid import UUID

from notices.models import Incident
from triggers.changes.kinds import Kind, State


def _states(environment_id: UUID, ids: Collection[UUID]) -> list[State]:
    rows = Incident.objects.filter(environment_id=environment_id, id__in=ids)
    return [
        State(id_, "open" if closed_at is None else "closed")
        for id_, closed_at in rows.values_list("id", "closed_at")
    ]


INCIDENTS = Kind("incident", _states)
