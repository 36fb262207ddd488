"""Reads the states of runs for the streams of their environment."""

from collections.abc import Collection
from uuid import UUID

from triggers.changes.kinds import Kind, State
from triggers.models import Run


def _states(environment_id: UUID, ids: Collection[UUID]) -> list[State]:
    """Returns the state of each run. A claimed or ended run also changes what its worker does."""
    rows = Run.objects.filter(environment_id=environment_id, id__in=ids)
    return [
        State(id_, status, (("worker", worker_id),) if worker_id else ())
        for id_, status, worker_id in rows.values_list("id", "status", "worker_id")
    ]


RUNS = Kind("run", _states)
