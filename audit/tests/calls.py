"""Calls every route that changes something, as a principal who may do so, on an object that allows it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models.functions import Now

from audit.models import AuditEntry
from pipedai.sql import database_now
from testing.world.cast import Cast, bearer, browser
from testing.world.routes import ROUTES, Route
from testing.world.runs import Runs
from testing.world.stage import Stage
from workers.models import Worker

CHANGING = {str(route): route for route in ROUTES if route.changes}

# These calls need another object than the cast's, one that can be deleted, for example, because no other
# row refers to it. Each entry names the parameter of the URL and the id to use for it.
_HOSTED = "workspaces/:workspace/workers"
_IDLE = {
    f"POST {_HOSTED}/:worker/disable": ("worker_id", "hosted"),
    f"POST {_HOSTED}/:worker/enable": ("worker_id", "hosted_disabled"),
    f"DELETE {_HOSTED}/:worker": ("worker_id", "hosted"),
    "DELETE environments/:environment": ("environment_id", "strange_environment"),
    "DELETE triggers/:trigger": ("trigger_id", "idle_trigger"),
    "DELETE workers/:worker": ("worker_id", "idle_worker"),
    "PUT pools/:pool/workers/:worker": ("worker_id", "idle_worker"),
    "POST workers/:worker/approve": ("worker_id", "unapproved_worker"),
}

# What makes those of the objects that only these calls need.
_MADE: dict[str, Callable[[Cast], UUID]] = {
    "idle_trigger": lambda cast: cast.add_trigger(),
    "idle_worker": lambda cast: cast.register("host-2").worker_id,
    "unapproved_worker": lambda cast: cast.register_by_key("host-3").worker_id,
}


class Call:
    """One call. `actor` is the principal who makes it, and `ids` are those of the objects it may concern."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage, self.cast = stage, stage.cast
        cast = stage.cast
        route = CHANGING[name]
        # The body is made now, so that the rows which it needs exist before the call.
        body = route.body(cast)
        self.route = replace(route, body=lambda _: body)
        self.ids: dict[str, UUID] = {
            **self.stage.ids,
            **self.stage.runs,
            "owner": cast.owner.id,
            "strange_environment": cast.strange_environment.id,
        }
        if _HOSTED in name:
            self._enroll(name)
        self.client, self.actor = self._caller(self.route, name)
        others: dict[str, UUID] = self._approved() if name.endswith("/spend") else {}
        if name in _IDLE:
            replaced, idle = _IDLE[name]
            if idle in _MADE:
                self.ids[idle] = _MADE[idle](cast)
            others[replaced] = self.ids[idle]
        self.url = self.route.url(self.stage, **others)

    def send(self, **extra: Any) -> Any:
        """Makes the call and returns the answer."""
        return self.route.send(self.client, self.url, self.cast, **extra)

    def _approved(self) -> dict[str, UUID]:
        """Makes a run that its worker holds after an approval, and returns the ids of both."""
        runs = Runs(self.cast, self.cast.add_trigger(), now=database_now())
        run_id = runs.decided()
        runs.claim(run_id)
        self.ids["usable"] = runs.approval_of(run_id)["id"]
        return {"run_id": run_id, "approval_id": self.ids["usable"]}

    def _enroll(self, name: str) -> None:
        self.host = self.cast.host()
        # The key counts as just used, so that the call itself does not write its `last_used_at`.
        hosts = self.cast.environment.api_keys.filter(kind="hos")
        hosts.update(last_used_at=Now() + timedelta(hours=1))
        hosted = "hosted_disabled" if name.endswith("/enable") else "hosted"
        self.ids[hosted] = self.host.worker_id
        if hosted == "hosted_disabled":
            Worker.objects.filter(id=self.host.worker_id).update(disabled_at=Now())

    def _caller(self, route: Route, name: str) -> tuple[Any, tuple[str, UUID]]:
        cast = self.cast
        if name == "POST workers/register":
            client = bearer(cast.mint("wrk"))
            return client, ("api_key", cast.environment.api_keys.latest("id").id)
        if route.of_workers:
            return cast.worker_client(), ("worker", cast.worker.worker_id)
        if _HOSTED in name:
            return bearer(self.host.operator_token), ("api_key", _newest_key(cast, "hos"))
        if name == "POST enrollments/redeem":
            return browser(), ("api_key", cast.owner.id)  # a placeholder: the call makes the key
        others = {"DELETE environments/:environment": cast.stranger, "DELETE auth/me": cast.viewer}
        user = others.get(name, cast.owner)
        return cast.client(user), ("user", user.id)


def _newest_key(cast: Cast, kind: str) -> UUID:
    key_id: UUID = cast.environment.api_keys.filter(kind=kind).latest("id").id
    return key_id


def entry_ids() -> set[UUID]:
    """Returns the ids of all audit rows."""
    return set(AuditEntry.objects.values_list("id", flat=True))


def entries_since(before: set[UUID]) -> list[AuditEntry]:
    """Returns the audit rows that were written since, oldest first."""
    return list(AuditEntry.objects.exclude(id__in=before).order_by("created_at", "id"))
