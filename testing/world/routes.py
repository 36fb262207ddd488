"""Lists one valid call of every route of the API, for tests that apply to all routes."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pipedai.ids import new_id
from pipedai.sql import database_now
from testing.world.cast import TEST_ACTOR, Cast, bearer, issue_enrollment
from testing.world.runs import WEBHOOK_URL, Runs, allow
from testing.world.users import PASSWORD
from triggers.models import Trigger
from triggers.webhooks.outbox import send_test

Body = dict[str, Any]


@dataclass
class Stage:
    """The cast, and one row of every kind that a URL can name."""

    cast: Cast
    ids: dict[str, UUID]
    runs: dict[str, UUID]


def set_stage(cast: Cast) -> Stage:
    """Makes a queued, a claimed and a running run of the cast's worker, and a row for every other id in URLs."""
    allow(cast.worker.worker_id, 3)
    runs = Runs(cast, cast.trigger_id, now=database_now())
    cast.mint("pwk")
    Trigger.objects.filter(id=cast.trigger_id).update(webhook_url=WEBHOOK_URL)
    return Stage(
        cast,
        {
            "workspace_id": cast.workspace.id,
            "environment_id": cast.environment.id,
            "key_id": cast.environment.api_keys.filter(kind="pwk").latest("id").id,
            "user_id": cast.viewer.id,
            "trigger_id": cast.trigger_id,
            "worker_id": cast.worker.worker_id,
            "enrollment_id": issue_enrollment(cast.environment, cast.owner)[0].id,
            "delivery_id": send_test(trigger_id=cast.trigger_id, actor=TEST_ACTOR),
        },
        {"queued": runs.queue(), "claimed": runs.claimed(), "running": runs.running()},
    )


@dataclass(frozen=True)
class Route:
    """A method and a route in the resolver's spelling, with a valid body, which for a GET is its query.

    `run` is the state of the run for `<uuid:run_id>`.
    """

    method: str
    route: str
    body: Callable[[Cast], Body] | None = None
    run: str = "queued"

    @property
    def key(self) -> tuple[str, str]:
        """The method and the route, as `api_routes` returns them."""
        return self.method, self.route

    def __str__(self) -> str:
        return re.sub(r"<uuid:([a-z]+)_id>", r":\1", f"{self.method} {self.route}")

    @property
    def id_names(self) -> list[str]:
        """The names of the ids in the route."""
        return re.findall(r"<uuid:([a-z_]+)>", self.route)

    def url(self, stage: Stage, **others: UUID) -> str:
        """Returns the route's URL with the ids of this stage, some of which `others` may replace."""
        ids = {**stage.ids, "run_id": stage.runs[self.run], **others}
        return "/api/v1/" + re.sub(r"<uuid:([a-z_]+)>", lambda m: str(ids[m[1]]), self.route)

    def missing_url(self) -> str:
        """Returns the route's URL with ids that do not exist."""
        return "/api/v1/" + re.sub(r"<uuid:[a-z_]+>", lambda _: str(new_id()), self.route)

    @property
    def changes(self) -> bool:
        """Whether the call changes anything."""
        return self.method != "GET" and self.route not in _CHANGE_NOTHING

    @property
    def of_workers(self) -> bool:
        """Whether the route belongs to the worker protocol, which a worker calls with its own token."""
        return self.route.startswith(_RUN) or self.route == f"{_WORKER}/poll"

    @property
    def of_hosts(self) -> bool:
        """Whether the route is for hosts, which a `hos_` key or an admin's `pwk_` key calls."""
        return self.route.startswith(_HOSTED) or self.route == f"{_WORKER}/events/stream"

    def caller(self, cast: Cast) -> Any:
        """Returns a client that may call the route."""
        if self.route == "workers/register":
            return bearer(cast.mint("wrk"))
        if self.of_workers:
            return cast.worker_client()
        return cast.key_client("admin") if self.of_hosts else cast.client(cast.owner)

    def send(self, client: Any, url: str, cast: Cast, **extra: Any) -> Any:
        """Sends the call to this URL and returns the answer."""
        if self.method == "GET":
            query = self.body(cast) if self.body else {}
            return client.get(url, query, **extra)
        data = self.body(cast) if self.body else {}
        return getattr(client, self.method.lower())(url, data, **extra)


def _redeeming(cast: Cast) -> Body:
    """Returns a body with a code that nobody has redeemed yet."""
    return {"code": issue_enrollment(cast.environment, cast.owner)[1], **_machine(cast)}


def _named(_: Cast) -> Body:
    return {"name": "New"}


def _key(_: Cast) -> Body:
    return {"name": "New", "prefix": "pwk"}


def _trigger(cast: Cast) -> Body:
    return {
        "name": "New",
        "prompt": "Work.",
        "mcpUrl": "https://mcp.example/",
        "workerId": cast.worker.worker_id,
    }


def _new_user(_: Cast) -> Body:
    return {"email": "new@example.com", "password": PASSWORD}


def _login(cast: Cast) -> Body:
    return {"email": cast.owner.email, "password": PASSWORD}


def _machine(_: Cast) -> Body:
    return {"hostname": "new-host", "os": "linux", "version": "1.0"}


def _new_password(_: Cast) -> Body:
    return {"currentPassword": PASSWORD, "newPassword": f"another {PASSWORD}"}


def _owners_address(cast: Cast) -> Body:
    return {"email": cast.owner.email}


def _member(cast: Cast) -> Body:
    return {"userId": cast.stranger.id, "role": "viewer"}


def _headers(_: Cast) -> Body:
    return {"mcpHeaders": {"x-api-key": "a-rotated-secret"}}


def _schedule(_: Cast) -> Body:
    return {"schedule": "0 9 * * *"}


_WORKSPACE = "workspaces/<uuid:workspace_id>"
_ENVIRONMENT = "environments/<uuid:environment_id>"
_TRIGGER = "triggers/<uuid:trigger_id>"
_WORKER = "workers/<uuid:worker_id>"
_HOSTED = f"{_WORKSPACE}/workers"
_RUN = f"{_WORKER}/runs/<uuid:run_id>"

_CHANGE_NOTHING = {f"{_ENVIRONMENT}/schedule-preview"}

ROUTES = (
    Route("GET", "health"),
    Route("GET", "health/live"),
    Route("GET", "openapi.json"),
    Route("POST", "auth/register", _new_user),
    Route("POST", "auth/login", _login),
    Route("POST", "auth/logout"),
    Route("GET", "auth/me"),
    Route("POST", "auth/change-password", _new_password),
    Route("GET", "users/lookup", _owners_address),
    Route("GET", "workspaces"),
    Route("POST", "workspaces", _named),
    Route("GET", f"{_WORKSPACE}/environments"),
    Route("POST", f"{_WORKSPACE}/environments", _named),
    Route("GET", _ENVIRONMENT),
    Route("PATCH", _ENVIRONMENT, _named),
    Route("DELETE", _ENVIRONMENT),
    Route("GET", f"{_ENVIRONMENT}/members"),
    Route("POST", f"{_ENVIRONMENT}/members", _member),
    Route("PATCH", f"{_ENVIRONMENT}/members/<uuid:user_id>", lambda _: {"role": "operator"}),
    Route("DELETE", f"{_ENVIRONMENT}/members/<uuid:user_id>"),
    Route("GET", f"{_ENVIRONMENT}/audit-log"),
    Route("GET", f"{_ENVIRONMENT}/api-keys"),
    Route("POST", f"{_ENVIRONMENT}/api-keys", _key),
    Route("DELETE", f"{_ENVIRONMENT}/api-keys/<uuid:key_id>"),
    Route("GET", f"{_ENVIRONMENT}/triggers"),
    Route("POST", f"{_ENVIRONMENT}/triggers", _trigger),
    Route("GET", f"{_ENVIRONMENT}/runs"),
    Route("POST", f"{_ENVIRONMENT}/schedule-preview", _schedule),
    Route("GET", _TRIGGER),
    Route("PATCH", _TRIGGER, _named),
    Route("DELETE", _TRIGGER),
    Route("POST", f"{_TRIGGER}/rotate-mcp-token", _headers),
    Route("GET", f"{_TRIGGER}/deliveries"),
    Route("POST", f"{_TRIGGER}/test-webhook"),
    Route("POST", "deliveries/<uuid:delivery_id>/redeliver"),
    Route("GET", f"{_TRIGGER}/ticks"),
    Route("POST", f"{_TRIGGER}/run"),
    Route("GET", f"{_TRIGGER}/runs"),
    Route("GET", "runs/<uuid:run_id>"),
    Route("POST", "runs/<uuid:run_id>/cancel"),
    Route("POST", "workers/register", _machine),
    Route("GET", f"{_ENVIRONMENT}/enrollments"),
    Route("POST", f"{_ENVIRONMENT}/enrollments", lambda _: {"label": "New"}),
    Route("DELETE", f"{_ENVIRONMENT}/enrollments/<uuid:enrollment_id>"),
    Route("POST", "enrollments/device", lambda _: {"label": "New"}),
    Route("POST", "enrollments/redeem", _redeeming),
    Route("GET", "releases/latest"),
    Route("GET", _HOSTED),
    Route("POST", f"{_HOSTED}/registration-token", lambda _: {"label": "New"}),
    Route("POST", f"{_HOSTED}/<uuid:worker_id>/disable"),
    Route("POST", f"{_HOSTED}/<uuid:worker_id>/enable"),
    Route("DELETE", f"{_HOSTED}/<uuid:worker_id>"),
    Route("GET", f"{_WORKER}/events/stream"),
    Route("GET", f"{_ENVIRONMENT}/workers"),
    Route("GET", f"{_ENVIRONMENT}/dashboard/overview"),
    Route("GET", _WORKER),
    Route("PATCH", _WORKER, lambda _: {"label": "New"}),
    Route("DELETE", _WORKER),
    Route("POST", f"{_WORKER}/revoke-token"),
    Route("POST", f"{_WORKER}/approve"),
    Route("GET", f"{_WORKER}/poll"),
    Route("POST", f"{_RUN}/claim"),
    Route("POST", f"{_RUN}/start", run="claimed"),
    Route("POST", f"{_RUN}/heartbeat", run="running"),
    Route("POST", f"{_RUN}/complete", lambda _: {"status": "succeeded"}, run="running"),
)
