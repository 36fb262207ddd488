"""Lists one valid call of every route of the API, for tests that apply to all routes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models.functions import Now

from accounts.models import Session
from accounts.session_tokens import LIFETIME
from pipedai.ids import new_id
from pipedai.sql import database_now
from testing.world.audiences import (
    ADMIN,
    ANY_CREDENTIAL,
    BROWSER,
    HOST,
    KEYS,
    OPERATOR,
    OWNER,
    PUBLIC,
    REGISTRATION,
    SIGNED_IN,
    VIEWER,
    WORKER,
    Audience,
)
from testing.world.budgets import add_budget
from testing.world.cast import TEST_ACTOR, Cast, bearer, issue_enrollment
from testing.world.channels import CHANNEL_SECRET, CHANNEL_URL, add_channel, asked_token
from testing.world.incidents import open_incident
from testing.world.mails import invite_for_test, issue_token
from testing.world.pools import add_pool
from testing.world.runs import WEBHOOK_URL, Runs, allow
from testing.world.users import PASSWORD
from triggers.models import Trigger
from triggers.webhooks.outbox import send_test
from workspaces.services import create_environment

Body = dict[str, Any]


@dataclass
class Stage:
    """The cast, and one row of every kind that a URL can name."""

    cast: Cast
    ids: dict[str, UUID]
    runs: dict[str, UUID]


def set_stage(cast: Cast) -> Stage:
    """Makes a queued, a claimed, a running and an ended run, and a row for every other id in URLs."""
    allow(cast.worker.worker_id, 3)
    runs = Runs(cast, cast.trigger_id, now=database_now())
    cast.mint("pwk")
    ended = runs.queue()
    runs.cancel(ended)
    Trigger.objects.filter(id=cast.trigger_id).update(webhook_url=WEBHOOK_URL, record_events=True)
    return Stage(
        cast,
        {
            "workspace_id": cast.workspace.id,
            "environment_id": cast.environment.id,
            "key_id": cast.environment.api_keys.filter(kind="pwk").latest("id").id,
            "user_id": cast.viewer.id,
            "session_id": Session.objects.create(user=cast.owner, expires_at=Now() + LIFETIME).id,
            "invitation_id": _open_invitation(cast),
            "trigger_id": cast.trigger_id,
            "worker_id": cast.worker.worker_id,
            "pool_id": add_pool(cast, cast.worker.worker_id, name="Machines"),
            "enrollment_id": issue_enrollment(cast.environment, cast.owner)[0].id,
            "delivery_id": send_test(trigger_id=cast.trigger_id, actor=TEST_ACTOR),
            "incident_id": open_incident(cast),
            # No run of the stage is of this trigger, so that the budget does not change how runs are claimed.
            "budget_id": add_budget(cast, trigger_id=cast.add_trigger(worker_id=None)).id,
            "channel_id": add_channel(cast, "webhook", secret=CHANNEL_SECRET).id,
        },
        {
            "ended": ended,
            "queued": runs.queue(),
            "claimed": runs.claimed(),
            "running": runs.running(),
        },
    )


def _open_invitation(cast: Cast) -> UUID:
    invite_for_test(cast.environment, cast.owner, "invited@example.com")
    return cast.environment.invitations.latest("id").id


@dataclass(frozen=True)
class Route:
    """A method and a route as the resolver spells it, and all that tests of every route need to know of it.

    The permission matrix, the counts of statements and the tests of bodies, of what is invisible and of API.md
    follow from this row.
    """

    method: str
    route: str
    # A body that the route takes; of a GET, its query.
    body: Callable[[Cast], Body] | None = None
    # Who may call it.
    as_: Audience = field(kw_only=True)
    # Whether a `pwk_` key may call it. A route for members may be for sessions alone: then a key gets a 401.
    keys: bool = field(default=True, kw_only=True)
    # The status of the answer to those who may call it.
    answer: int = field(default=200, kw_only=True)
    # The exceptions: callers whose status does not follow from `as_`.
    but: Mapping[str, int] = field(default_factory=dict, kw_only=True)
    # How many SQL statements a read or a worker's call makes: two find out who calls and with which role (or read the
    # key and note its use), and the others read what is answered.
    statements: int | None = field(default=None, kw_only=True)
    # The state of the run that `<uuid:run_id>` stands for.
    run: str = field(default="queued", kw_only=True)
    # Whether a call that is no GET changes something.
    writes: bool = field(default=True, kw_only=True)
    # Whether the action reads the request's body.
    reads_body: bool = field(default=True, kw_only=True)
    # Whether the action ignores unknown fields of the body. Routes for workers and hosts always ignore them.
    tolerant: bool = field(default=False, kw_only=True)

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
    def statuses(self) -> dict[str, int]:
        """The expected status of each kind of caller."""
        without_keys = {} if self.keys else dict.fromkeys((*KEYS, "pwk elsewhere"), 401)
        return {**self.as_.statuses(self.answer), **without_keys, **self.but}

    @property
    def changes(self) -> bool:
        """Whether it is made to change something."""
        return self.method != "GET" and self.writes

    @property
    def of_workers(self) -> bool:
        """Whether it is the worker protocol's: a worker's own token calls it."""
        return self.as_ is WORKER

    @property
    def of_hosts(self) -> bool:
        """Whether it is a host's: a `hos_` key calls it, or an admin's `pwk_`."""
        return self.as_ is HOST

    @property
    def ignores_unknown_fields(self) -> bool:
        """Whether a body may have fields that this version does not know."""
        return self.tolerant or self.as_ in (WORKER, HOST, REGISTRATION)

    def caller(self, cast: Cast) -> Any:
        """Somebody whose call is answered."""
        if self.as_ is REGISTRATION:
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


def _channel(_: Cast) -> Body:
    return {"name": "New", "kind": "slack", "url": CHANNEL_URL}


def _budget(_: Cast) -> Body:
    return {"name": "New", "period": "day", "limitUsd": "1"}


def _answering(cast: Cast) -> Body:
    """Returns a body with the token of an address that nobody has answered for yet."""
    return {"token": asked_token(cast)}


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


def _reset(cast: Cast) -> Body:
    return {
        "token": issue_token("reset", cast.owner.email, cast.owner),
        "newPassword": f"another {PASSWORD}",
    }


def _proof(cast: Cast) -> Body:
    return {"token": issue_token("verify", cast.owner.email, cast.owner)}


def _new_address(_: Cast) -> Body:
    return {"newEmail": "new@example.com", "currentPassword": PASSWORD}


def _invited(_: Cast) -> Body:
    return {"email": f"{new_id()}@example.com", "role": "viewer"}


def _invitation(cast: Cast) -> Body:
    """Returns the token of an invitation of the owner into a new environment."""
    environment = create_environment(
        workspace_id=cast.strange_environment.workspace_id,
        name=str(new_id()),
        user_id=cast.stranger.id,
        actor=TEST_ACTOR,
    )
    return {"token": invite_for_test(environment, cast.stranger, cast.owner.email)}


def _owners_address(cast: Cast) -> Body:
    return {"email": cast.owner.email}


def _member(cast: Cast) -> Body:
    return {"userId": cast.stranger.id, "role": "viewer"}


def _headers(_: Cast) -> Body:
    return {"mcpHeaders": {"x-api-key": "a-rotated-secret"}}


def _schedule(_: Cast) -> Body:
    return {"schedule": "0 9 * * *"}


def _next_claim(_: Cast) -> Body:
    """Returns a body with which the worker takes its next run: that of the stage which is queued."""
    return {"claimId": "next"}


def _run_events(_: Cast) -> Body:
    """Returns a body with the first event of a run."""
    return {"events": [{"seq": 1, "at": "2026-05-09T00:00:00Z", "type": "text"}]}


_WORKSPACE = "workspaces/<uuid:workspace_id>"
_ENVIRONMENT = "environments/<uuid:environment_id>"
_TRIGGER = "triggers/<uuid:trigger_id>"
_BUDGET = "budgets/<uuid:budget_id>"
_CHANNEL = "channels/<uuid:channel_id>"
_POOL = "pools/<uuid:pool_id>"
_WORKER = "workers/<uuid:worker_id>"
_HOSTED = f"{_WORKSPACE}/workers"
_RUN = f"{_WORKER}/runs/<uuid:run_id>"

# Calls with a token of the owner's, or about a session of theirs. Others who are signed in can't make them.
_OF_THE_OWNER = dict.fromkeys(("stranger", "viewer", "operator", "admin"), 409)

ROUTES = (
    Route("GET", "health", as_=PUBLIC, statements=1),
    Route("GET", "health/live", as_=PUBLIC, statements=0),
    Route("GET", "openapi.json", as_=PUBLIC, statements=0),
    Route("POST", "auth/register", _new_user, as_=BROWSER, answer=201),
    Route("POST", "auth/login", _login, as_=BROWSER),
    Route("POST", "auth/logout", as_=BROWSER, answer=204, reads_body=False),
    Route("GET", "whoami", as_=ANY_CREDENTIAL, statements=2),
    Route("GET", "auth/me", as_=SIGNED_IN, statements=2),
    Route("POST", "auth/change-password", _new_password, as_=SIGNED_IN, answer=204),
    Route("POST", "auth/forgot-password", _owners_address, as_=BROWSER, answer=202),
    Route("POST", "auth/reset-password", _reset, as_=BROWSER, answer=204),
    Route("POST", "auth/verify-email", _proof, as_=SIGNED_IN, but=_OF_THE_OWNER),
    Route("POST", "auth/resend-verification", as_=SIGNED_IN, answer=202, reads_body=False),
    Route("POST", "auth/change-email", _new_address, as_=SIGNED_IN, answer=202),
    Route("GET", "auth/sessions", as_=SIGNED_IN, statements=2),
    Route(
        "DELETE",
        "auth/sessions/<uuid:session_id>",
        as_=SIGNED_IN,
        keys=False,
        answer=204,
        but=dict.fromkeys(_OF_THE_OWNER, 404),
    ),
    Route("POST", "auth/sessions/revoke-others", as_=SIGNED_IN, answer=204, reads_body=False),
    Route("GET", "users/lookup", _owners_address, as_=SIGNED_IN, statements=4),
    Route("GET", "workspaces", as_=SIGNED_IN, statements=2),
    Route("POST", "workspaces", _named, as_=SIGNED_IN, answer=201),
    Route("GET", f"{_WORKSPACE}/environments", as_=VIEWER, keys=False, statements=3),
    Route("POST", f"{_WORKSPACE}/environments", _named, as_=OWNER, keys=False, answer=201),
    Route("GET", _ENVIRONMENT, as_=VIEWER, statements=3),
    Route("PATCH", _ENVIRONMENT, _named, as_=ADMIN),
    Route("DELETE", _ENVIRONMENT, as_=OWNER, answer=409),
    Route("GET", f"{_ENVIRONMENT}/members", as_=VIEWER, keys=False, statements=3),
    Route("POST", f"{_ENVIRONMENT}/members", _member, as_=ADMIN, keys=False, answer=201),
    Route(
        "PATCH",
        f"{_ENVIRONMENT}/members/<uuid:user_id>",
        lambda _: {"role": "operator"},
        as_=ADMIN,
        keys=False,
    ),
    Route(
        "DELETE",
        f"{_ENVIRONMENT}/members/<uuid:user_id>",
        as_=ADMIN,
        keys=False,
        answer=204,
        but={"viewer": 204},  # the member is the viewer, who may leave
    ),
    Route("GET", f"{_ENVIRONMENT}/invitations", as_=ADMIN, keys=False, statements=3),
    Route("POST", f"{_ENVIRONMENT}/invitations", _invited, as_=ADMIN, keys=False, answer=201),
    Route(
        "DELETE",
        f"{_ENVIRONMENT}/invitations/<uuid:invitation_id>",
        as_=ADMIN,
        keys=False,
        answer=204,
    ),
    Route("POST", "invitations/accept", _invitation, as_=SIGNED_IN, but=_OF_THE_OWNER),
    Route("GET", f"{_ENVIRONMENT}/audit-log", as_=ADMIN, statements=6),
    Route("GET", f"{_ENVIRONMENT}/api-keys", as_=VIEWER, keys=False, statements=3),
    Route("POST", f"{_ENVIRONMENT}/api-keys", _key, as_=ADMIN, keys=False, answer=201),
    Route("DELETE", f"{_ENVIRONMENT}/api-keys/<uuid:key_id>", as_=ADMIN, keys=False, answer=204),
    Route("GET", f"{_ENVIRONMENT}/triggers", as_=VIEWER, statements=5),
    Route("POST", f"{_ENVIRONMENT}/triggers", _trigger, as_=ADMIN, answer=201),
    Route("GET", f"{_ENVIRONMENT}/runs", as_=VIEWER, statements=3),
    Route("POST", f"{_ENVIRONMENT}/schedule-preview", _schedule, as_=VIEWER, writes=False),
    Route("GET", _TRIGGER, as_=VIEWER, statements=4),
    Route("PATCH", _TRIGGER, _named, as_=ADMIN),
    Route("DELETE", _TRIGGER, as_=ADMIN, answer=409),
    Route("POST", f"{_TRIGGER}/rotate-mcp-token", _headers, as_=ADMIN),
    Route("GET", f"{_TRIGGER}/deliveries", as_=VIEWER, statements=4),
    Route("POST", f"{_TRIGGER}/test-webhook", as_=ADMIN, answer=201),
    Route("POST", "deliveries/<uuid:delivery_id>/redeliver", as_=ADMIN, answer=201),
    Route("GET", f"{_ENVIRONMENT}/incidents", as_=VIEWER, statements=3),
    Route(
        "POST",
        "incidents/<uuid:incident_id>/acknowledge",
        as_=OPERATOR,
        reads_body=False,
    ),
    Route("GET", f"{_ENVIRONMENT}/budgets", as_=VIEWER, statements=3),
    Route("POST", f"{_ENVIRONMENT}/budgets", _budget, as_=ADMIN, answer=201),
    Route("GET", _BUDGET, as_=VIEWER, statements=3),
    Route("PATCH", _BUDGET, _named, as_=ADMIN),
    Route("DELETE", _BUDGET, as_=ADMIN, answer=204),
    Route("GET", f"{_ENVIRONMENT}/channels", as_=ADMIN, statements=4),
    Route("POST", f"{_ENVIRONMENT}/channels", _channel, as_=ADMIN, answer=201),
    Route("GET", _CHANNEL, as_=ADMIN, statements=3),
    Route("PATCH", _CHANNEL, _named, as_=ADMIN),
    Route("DELETE", _CHANNEL, as_=ADMIN, answer=204),
    Route("POST", f"{_CHANNEL}/test", as_=ADMIN, answer=201),
    Route("GET", f"{_CHANNEL}/notices", as_=ADMIN, statements=4),
    Route("POST", "addresses/confirm", _answering, as_=PUBLIC, answer=204),
    Route("POST", "addresses/refuse", _answering, as_=PUBLIC, answer=204),
    Route("GET", f"{_TRIGGER}/ticks", as_=VIEWER, statements=3),
    # The time is given, so that two answers are the same.
    Route(
        "GET",
        f"{_TRIGGER}/explain",
        lambda _: {"at": "2026-05-09T00:00:00Z"},
        as_=VIEWER,
        statements=6,
    ),
    Route("POST", f"{_TRIGGER}/run", as_=OPERATOR, answer=201),
    Route("GET", f"{_TRIGGER}/runs", as_=VIEWER, statements=3),
    Route("GET", "runs/<uuid:run_id>", as_=VIEWER, statements=3),
    Route("GET", "runs/<uuid:run_id>/tool-calls", as_=VIEWER, statements=3),
    Route("GET", "runs/<uuid:run_id>/events", as_=OPERATOR, statements=3),
    Route("GET", "runs/<uuid:run_id>/events/stream", as_=OPERATOR, statements=4),
    Route("GET", f"{_ENVIRONMENT}/events/stream", as_=VIEWER, statements=5),
    Route("GET", "runs/<uuid:run_id>/explain", as_=VIEWER, statements=5),
    Route("POST", "runs/<uuid:run_id>/cancel", as_=OPERATOR, reads_body=False),
    Route("POST", "runs/<uuid:run_id>/rerun", as_=OPERATOR, answer=201, run="ended"),
    Route("POST", "workers/register", _machine, as_=REGISTRATION, answer=201),
    Route("GET", f"{_ENVIRONMENT}/enrollments", as_=ADMIN, keys=False, statements=3),
    Route(
        "POST",
        f"{_ENVIRONMENT}/enrollments",
        lambda _: {"label": "New"},
        as_=ADMIN,
        keys=False,
        answer=201,
    ),
    Route(
        "DELETE",
        f"{_ENVIRONMENT}/enrollments/<uuid:enrollment_id>",
        as_=ADMIN,
        keys=False,
        answer=204,
    ),
    Route(
        "POST",
        "enrollments/device",
        lambda _: {"label": "New"},
        as_=PUBLIC,
        answer=201,
        tolerant=True,
    ),
    Route("POST", "enrollments/redeem", _redeeming, as_=PUBLIC, answer=201, tolerant=True),
    Route("GET", "releases/latest", as_=PUBLIC, statements=0),
    Route("GET", _HOSTED, as_=HOST, statements=4),
    Route(
        "POST", f"{_HOSTED}/registration-token", lambda _: {"label": "New"}, as_=HOST, answer=201
    ),
    # The key of a host sees only the workers that the host brought in, and this worker came by itself.
    Route("POST", f"{_HOSTED}/<uuid:worker_id>/disable", as_=HOST, but={"hos": 404}),
    Route("POST", f"{_HOSTED}/<uuid:worker_id>/enable", as_=HOST, but={"hos": 404}),
    Route("DELETE", f"{_HOSTED}/<uuid:worker_id>", as_=HOST, answer=409, but={"hos": 404}),
    Route("GET", f"{_WORKER}/events/stream", as_=HOST, but={"hos": 404}, statements=7),
    Route("GET", f"{_ENVIRONMENT}/workers", as_=VIEWER, statements=3),
    Route("GET", f"{_ENVIRONMENT}/pools", as_=VIEWER, statements=4),
    Route("POST", f"{_ENVIRONMENT}/pools", _named, as_=ADMIN, answer=201),
    Route("GET", _POOL, as_=VIEWER, statements=4),
    Route("PATCH", _POOL, _named, as_=ADMIN),
    Route("DELETE", _POOL, as_=ADMIN, answer=204),
    Route("PUT", f"{_POOL}/workers/<uuid:worker_id>", as_=ADMIN, answer=204, reads_body=False),
    Route("DELETE", f"{_POOL}/workers/<uuid:worker_id>", as_=ADMIN, answer=204),
    Route("GET", f"{_ENVIRONMENT}/dashboard/overview", as_=VIEWER, statements=5),
    Route(
        "GET",
        f"{_ENVIRONMENT}/stats",
        # The end is given, so that two answers are the same.
        lambda _: {"groupBy": "trigger", "to": "2026-05-09T00:00:00Z"},
        as_=VIEWER,
        statements=3,
    ),
    Route("GET", _WORKER, as_=VIEWER, statements=3),
    Route("PATCH", _WORKER, lambda _: {"label": "New"}, as_=ADMIN),
    Route("DELETE", _WORKER, as_=ADMIN, answer=409),
    Route("POST", f"{_WORKER}/revoke-token", as_=ADMIN, answer=204, reads_body=False),
    Route("POST", f"{_WORKER}/approve", as_=ADMIN, keys=False, reads_body=False),
    Route("GET", f"{_WORKER}/poll", as_=WORKER),
    Route("POST", f"{_WORKER}/claim-next", _next_claim, as_=WORKER, statements=6),
    Route("POST", f"{_RUN}/claim", as_=WORKER, statements=4),
    Route("POST", f"{_RUN}/start", as_=WORKER, statements=3, run="claimed"),
    Route("POST", f"{_RUN}/heartbeat", as_=WORKER, statements=2, run="running"),
    Route(
        "POST",
        f"{_RUN}/events",
        _run_events,
        as_=WORKER,
        # The first events of a run need four statements more than the others.
        statements=6,
        run="running",
    ),
    Route(
        "POST",
        f"{_RUN}/complete",
        lambda _: {"status": "succeeded"},
        as_=WORKER,
        statements=5,
        run="running",
    ),
)
