"""Lists one valid call of every route of the API, for tests that apply to all routes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from accounts.models import Identity, User
from pipedai.api.schema import reference
from pipedai.ids import new_id
from testing.probes.api_urls import api_routes, operation_of_action
from testing.world.audiences import (
    AUDIENCES,
    BROWSER,
    HOST,
    KEYS,
    REGISTRATION,
    SIGNED_IN,
    UNSIGNED,
    WORKER,
    Audience,
)
from testing.world.cast import TEST_ACTOR, Cast, bearer, issue_enrollment
from testing.world.channels import CHANNEL_URL, asked_token
from testing.world.mails import invite_for_test, issue_token
from testing.world.stage import Stage
from testing.world.users import PASSWORD
from triggers.models import Run
from workers.enrollment.issuing import approve_pairing, begin_pairing
from workers.models import Enrollment
from workspaces.files import changes, planning
from workspaces.roles import Role
from workspaces.services import create_environment

Body = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Route:
    """A method and a route as the resolver has it, and all that tests of every route need to know of it.

    API.md says who may call the route, and the action's `@Operation` what it takes and answers. ROWS has what these do
    not tell. The permission matrix, the counts of statements and the tests of bodies and of what is invisible follow.
    """

    method: str
    route: str
    # A body that the route takes; of a GET, its query.
    body: Callable[[Cast], Body]
    # Who may call it.
    as_: Audience
    # Whether a `pwk_` key may call it, if it may be called by members. If not, a key gets a 401.
    keys: bool
    # The status of the answer to those who may call it.
    answer: int
    # Whether the action reads the request's body.
    reads_body: bool
    # How many SQL statements a read or a worker's call makes: two find out who calls and with which role (or read the
    # key and note its use), and the others read what is answered.
    statements: int | None
    # The exceptions: callers whose status does not follow from `as_`.
    but: Mapping[str, int] = field(default_factory=dict)
    # The state of the run that `<uuid:run_id>` stands for.
    run: str = "queued"
    # Whether a call that is no GET changes something.
    writes: bool = True
    # Whether the action ignores unknown fields of the body. Routes for workers and hosts always ignore them.
    tolerant: bool = False

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

    def with_one_body(self, cast: Cast) -> "Route":
        """Returns the same route with a body that is made once for all calls."""
        body = self.body(cast)
        return replace(self, body=lambda _: body)

    def send(self, client: Any, url: str, cast: Cast, **extra: Any) -> Any:
        """Sends the call to this URL and returns the answer."""
        if self.method == "GET":
            return client.get(url, self.body(cast), **extra)
        return getattr(client, self.method.lower())(url, self.body(cast), **extra)


def _constant(**body: Any) -> Callable[[Cast], Body]:
    return lambda _: body


_NAMED = _constant(name="New")


def _redeeming(cast: Cast) -> Body:
    """Returns a body with a code that nobody has redeemed yet."""
    code = issue_enrollment(cast.environment, cast.owner)[1]
    return {"code": code, "hostname": "new-host", "os": "linux", "version": "1.0"}


def _redeeming_login(cast: Cast) -> Body:
    """Returns a body with the device code of a command line that somebody approved."""
    begun = begin_pairing(label=None, kind=Enrollment.Kind.KEY, address=None, program=None)
    approve_pairing(
        enrollment_id=begun.id,
        environment_id=cast.environment.id,
        role=Role.VIEWER,
        user_id=cast.owner.id,
        actor=TEST_ACTOR,
    )
    return {"deviceCode": begun.device_code}


def _paired(_: Cast) -> Body:
    """Returns a body with the code that a host shows."""
    return {"userCode": begin_pairing(label=None, address=None, program=None).user_code}


def _answering(cast: Cast) -> Body:
    """Returns a body with the token of an address that nobody has answered for yet."""
    return {"token": asked_token(cast)}


def _trigger(cast: Cast) -> Body:
    return {
        "name": "Morning report",
        "prompt": "Work.",
        "mcpUrl": "https://mcp.example/",
        "workerId": cast.worker.worker_id,
    }


def _login(cast: Cast) -> Body:
    return {"email": cast.owner.email, "password": PASSWORD}


def _reset(cast: Cast) -> Body:
    return {
        "token": issue_token("reset", cast.owner.email, cast.owner),
        "newPassword": f"another {PASSWORD}",
    }


def _linked(_: Cast) -> Body:
    """Returns the password of the cast's users, all of whom have a link afterwards."""
    for user in User.objects.filter(identity__isnull=True):
        Identity.objects.create(user=user, issuer="https://issuer.example", sub=str(user.id))
    return {"password": PASSWORD}


def _undoing(cast: Cast) -> Body:
    return {"token": issue_token("link_notice", cast.owner.email, cast.owner)}


def _proof(cast: Cast) -> Body:
    return {"token": issue_token("verify", cast.owner.email, cast.owner)}


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


def _queued_runs(cast: Cast) -> Body:
    queued = Run.objects.filter(environment=cast.environment, status="queued").order_by("id")
    return {"ids": [str(each.id) for each in queued[:1]] or [str(new_id())], "action": "cancel"}


def _applied(cast: Cast) -> Body:
    """Returns the plan of files that describe nothing."""
    planned = planning.plan(
        environment_id=cast.environment.id,
        request=changes.Request("acme/agents", []),
        actor=TEST_ACTOR,
        role=Role.ADMIN,
    )
    return {"managedBy": "acme/agents", "resources": [], "digest": planned["digest"]}


# Calls with a token of the owner's, or about a session of theirs. Others who are signed in can't make them.
_OF_THE_OWNER = dict.fromkeys(("stranger", "viewer", "operator", "admin"), 409)
# The key of a host sees only the workers that the host brought in, and the stage's worker came by itself.
_OF_A_HOST = {"hos": 404}
# The time is given, so that two answers are the same.
_THEN = "2026-05-09T00:00:00Z"

# What is to be known of a route and stands neither in API.md nor in `@Operation`, by the operation's id. A route that
# differs in nothing from the others needs no row.
ROWS: dict[str, dict[str, Any]] = {
    "getHealth": {"statements": 1},
    "getLiveness": {"statements": 0},
    "getOpenApi": {"statements": 0},
    "register": {"as_": BROWSER},
    "login": {"body": _login, "as_": BROWSER},
    "logout": {"as_": BROWSER},
    # There is no issuer: accounts/tests/test_single_sign_on.py calls them with one.
    **{
        name: {"as_": BROWSER, "answer": 404, "reads_body": False, "writes": False}
        for name in ("beginSignIn", "finishSignIn", "linkAccount", "mailLink", "linkByMail")
    },
    # The stranger alone owns an environment.
    "deleteMe": {"body": _constant(password=PASSWORD), "but": {"stranger": 409}},
    "unlinkMe": {"body": _linked},
    "undoLink": {"body": _undoing, "as_": BROWSER},
    "changePassword": {
        "body": _constant(currentPassword=PASSWORD, newPassword=f"another {PASSWORD}")
    },
    "forgotPassword": {"body": _owners_address, "as_": BROWSER},
    "resetPassword": {"body": _reset, "as_": BROWSER},
    "verifyEmail": {"body": _proof, "but": _OF_THE_OWNER},
    "changeEmail": {"body": _constant(newEmail="new@example.com", currentPassword=PASSWORD)},
    "endSession": {"but": dict.fromkeys(_OF_THE_OWNER, 404)},
    "lookUpUser": {"body": _owners_address, "statements": 4},
    # A pause, which the example shows, would keep runs from workers.
    "renameEnvironment": {"body": _NAMED},
    # The environment of the cast has the name that the example shows.
    "createEnvironment": {"body": _NAMED},
    "deleteEnvironment": {"answer": 409},
    "addMember": {"body": _member},
    # The member is the viewer, who may leave.
    "removeMember": {"but": {"viewer": 204}},
    "createInvitation": {"body": _invited},
    "lookAtInvitation": {"body": _invitation, "as_": BROWSER, "writes": False},
    "acceptInvitation": {"body": _invitation, "but": _OF_THE_OWNER},
    "listAuditLog": {"statements": 7},
    "listTriggers": {"statements": 5},
    "changeTriggers": {"body": lambda cast: {"ids": [str(cast.trigger_id)], "action": "pause"}},
    "changeRuns": {"body": _queued_runs},
    "createTrigger": {"body": _trigger},
    "previewSchedule": {"writes": False},
    "getTrigger": {"statements": 4},
    "listRevisions": {"statements": 5},
    "deleteTrigger": {"answer": 409},
    "listDeliveries": {"statements": 4},
    "planFiles": {"writes": False},
    "applyFiles": {"body": _applied},
    # It reads each kind of rows, and the hostnames of workers.
    "exportFiles": {"statements": 10},
    "listIncidents": {"statements": 4},
    "getAttention": {"statements": 13},
    # The stage's connection has headers, so that no server is asked. What begins can be seen nowhere.
    "authorizeConnection": {"answer": 409, "writes": False},
    "listChannels": {"statements": 4},
    "listSources": {"statements": 5},
    "getSource": {"statements": 6},
    "listEnvironmentEvents": {"statements": 4},
    "listEvents": {"statements": 4},
    "getEvent": {"statements": 4},
    "receiveEvent": {"as_": UNSIGNED, "answer": 401, "writes": False, "reads_body": False},
    "createChannel": {"body": _constant(name="New", kind="slack", url=CHANNEL_URL)},
    "listNotices": {"statements": 4},
    "confirmAddress": {"body": _answering},
    "refuseAddress": {"body": _answering},
    "explainTrigger": {"body": _constant(at=_THEN), "statements": 7},
    "streamRunEvents": {"statements": 4},
    "streamEnvironmentEvents": {"statements": 5},
    "explainRun": {"statements": 6},
    "listRuns": {"statements": 4},
    "listTriggerRuns": {"statements": 4},
    "rerunRun": {"run": "ended"},
    "registerWorker": {
        "body": _constant(hostname="new-host", os="linux", version="1.0"),
        "as_": REGISTRATION,
    },
    "beginPairing": {"tolerant": True},
    "redeemEnrollment": {"body": _redeeming, "tolerant": True},
    "lookAtPairing": {"body": _paired, "writes": False},
    "approvePairing": {
        "body": lambda cast: {**_paired(cast), "environmentId": cast.environment.id},
        "but": {"stranger": 404, "viewer": 403, "operator": 403},
    },
    "denyPairing": {"body": _paired},
    "redeemLogin": {"body": _redeeming_login, "tolerant": True},
    "getLatestReleases": {"statements": 0},
    "listHostWorkers": {"statements": 4},
    "disableHostWorker": {"but": _OF_A_HOST},
    "enableHostWorker": {"but": _OF_A_HOST},
    "deregisterHostWorker": {"answer": 409, "but": _OF_A_HOST},
    "streamWorkerEvents": {"but": _OF_A_HOST, "statements": 7},
    "listPools": {"statements": 4},
    "getPool": {"statements": 4},
    "getOverview": {"statements": 7},
    "search": {"body": _constant(q="0123456789ab"), "statements": 4},
    "getStats": {"body": _constant(groupBy="trigger", to=_THEN)},
    "deregisterWorker": {"answer": 409},
    "claimNextRun": {"body": _constant(claimId="next"), "statements": 6},
    "claimRun": {"statements": 4},
    "startRun": {"run": "claimed", "statements": 3},
    "heartbeatRun": {"run": "running", "statements": 2},
    # A statement more for the first headers that its worker gets, as here.
    "renewRunCredentials": {"run": "running", "statements": 4},
    # The first events of a run need four statements more than the others.
    "sendRunEvents": {"run": "running", "statements": 6},
    "signOffWorker": {"statements": 4},
    "listApprovals": {"statements": 3},
    "getApproval": {"statements": 3},
    # The run waits, so that its worker does not hold it.
    "spendApproval": {"run": "asking", "answer": 409, "statements": 4},
    "completeRun": {"run": "running", "statements": 5},
}


def _route(method: str, route: str) -> Route:
    """Returns the row of a route. Raises LookupError if API.md does not say who may call it."""
    operation = operation_of_action(method, route)
    section = reference.endpoint(*operation.endpoint.split(" ")).text.strip()
    audience = next((each for each in AUDIENCES if section.startswith(each.name)), None)
    if audience is None:
        names = ", ".join(each.name for each in AUDIENCES)
        raise LookupError(
            f"the section of {operation.endpoint} in API.md must begin with who may call it, with one of: {names}."
            " See An endpoint in CONTRIBUTING.md."
        )
    # Whoever names a row has a role in its environment, which is read first. A worker's poll is counted elsewhere.
    statements = 3 if "<uuid:" in route else 2
    told: dict[str, Any] = {
        "body": _constant(**(operation.example or {})),
        "as_": audience,
        "keys": audience is not SIGNED_IN and "sessions alone" not in section.partition(".")[0],
        "answer": 200 if operation.items else next(iter(operation.answers)),
        "reads_body": operation.body is not None,
        "statements": statements if method == "GET" and audience is not WORKER else None,
    }
    return Route(method=method, route=route, **{**told, **ROWS.get(operation.id, {})})


ROUTES = tuple(_route(*each) for each in sorted(api_routes()))
