"""Calls every route that changes something, as whoever does so, on something that can be changed."""

from typing import Any
from uuid import UUID

from audit.models import AuditEntry
from testing.cast import Cast, bearer
from testing.routes import ROUTES, Route, set_stage

CHANGING = {str(route): route for route in ROUTES if route.changes}

# These can be deleted, since nothing hangs on them: what to put in place of which id.
_IDLE = {
    "DELETE environments/:environment": ("environment_id", "strange_environment"),
    "DELETE triggers/:trigger": ("trigger_id", "idle_trigger"),
    "DELETE workers/:worker": ("worker_id", "idle_worker"),
}


class Call:
    """One call; `actor` is who makes it, and `ids` what it may be about."""

    def __init__(self, cast: Cast, name: str) -> None:
        self.cast, self.route = cast, CHANGING[name]
        self.stage = set_stage(cast)
        self.ids: dict[str, UUID] = {
            **self.stage.ids,
            **self.stage.runs,
            "owner": cast.owner.id,
            "strange_environment": cast.strange_environment.id,
            "idle_trigger": cast.add_trigger(),
            "idle_worker": cast.register("host-2").worker_id,
        }
        self.client, self.actor = self._caller(self.route, name)
        others = {
            replaced: self.ids[idle] for replaced, idle in [_IDLE.get(name, ("", ""))] if idle
        }
        self.url = self.route.url(self.stage, **others)

    def send(self, **extra: Any) -> Any:
        """The answer."""
        return self.route.send(self.client, self.url, self.cast, **extra)

    def _caller(self, route: Route, name: str) -> tuple[Any, tuple[str, UUID]]:
        cast = self.cast
        if name == "POST workers/register":
            client = bearer(cast.mint("wrk"))
            return client, ("api_key", cast.environment.api_keys.latest("id").id)
        if name.startswith("POST workers/:worker/runs/"):
            return cast.worker_client(), ("worker", cast.worker.worker_id)
        user = cast.stranger if name == "DELETE environments/:environment" else cast.owner
        return cast.client(user), ("user", user.id)


def entry_ids() -> set[UUID]:
    """The rows that there are."""
    return set(AuditEntry.objects.values_list("id", flat=True))


def entries_since(before: set[UUID]) -> list[AuditEntry]:
    """The rows that were written since, oldest first."""
    return list(AuditEntry.objects.exclude(id__in=before).order_by("created_at", "id"))
