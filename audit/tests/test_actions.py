"""Each mutating call writes one audit row: who did what to which object, and from where."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from unittest.mock import ANY

import pytest

from audit.tests.calls import CHANGING, Call, entries_since, entry_ids
from notices.models import AskedAddress
from pipedai.ids import current_request_id
from testing.world.audiences import UNSIGNED
from testing.world.cast import browser
from testing.world.routes import ROUTES
from testing.world.undone import undone
from workers.models import Enrollment
from workspaces.models import Invitation

ADDRESS, REQUEST_ID = "198.51.100.7", "audited-request"


@dataclass
class Row:
    """The audit row that a call must write. `target` is the name of an id, or its place in the answer."""

    action: str
    target_type: str
    target: str
    metadata: dict[str, Any]
    # The actions of further rows.
    besides: tuple[str, ...] = ()


def _moved(status):
    return {"triggerId": ANY, "status": status}


def _ended(status):
    return {**_moved(status), "faultClass": "none"}


ABOUT_DELIVERY = {"triggerId": ANY, "host": "hooks.example"}

# Every route that changes something. None stands for a route that writes no audit row.
ROWS: dict[str, Row | None] = {
    "POST auth/register": Row("user.registered", "user", "user.id", {}),
    "POST auth/login": Row("user.logged-in", "user", "owner", {}),
    "POST auth/logout": Row("user.logged-out", "user", "owner", {}),
    "PATCH auth/me": Row("user.updated", "user", "owner", {"changed": ["name", "timezone"]}),
    "DELETE auth/me": Row("user.deleted", "user", "user_id", {}, besides=("member.removed",)),
    "DELETE auth/me/single-sign-on": Row(
        "user.unlinked", "user", "owner", {"issuer": "https://issuer.example"}
    ),
    "POST auth/undo-link": Row(
        "user.link-undone", "user", "owner", {"issuer": None, "emailChanged": False}
    ),
    "POST auth/change-password": Row("user.password-changed", "user", "owner", {}),
    # This call writes no row: nobody has shown who they are, and the mail has a row of its own.
    "POST auth/forgot-password": None,
    "POST auth/reset-password": Row("user.password-reset", "user", "owner", {}),
    "POST auth/verify-email": Row("user.email-verified", "user", "owner", {}),
    "POST auth/resend-verification": Row("user.verification-requested", "user", "owner", {}),
    "POST auth/change-email": Row("user.email-change-requested", "user", "owner", {}),
    "DELETE auth/sessions/:session": Row("user.session-ended", "user", "owner", {"sessions": 1}),
    "POST auth/sessions/revoke-others": Row(
        "user.session-ended", "user", "owner", {"sessions": 1}
    ),
    "POST environments/:environment/invitations": Row(
        "invitation.created", "invitation", "id", {"role": "viewer"}
    ),
    "DELETE environments/:environment/invitations/:invitation": Row(
        "invitation.revoked", "invitation", "invitation_id", {"role": "viewer"}
    ),
    "POST invitations/accept": Row(
        "invitation.accepted", "user", "userId", {"role": "viewer", "invitationId": ANY}
    ),
    "POST workspaces": Row("workspace.created", "workspace", "id", {"name": "Acme"}),
    "POST workspaces/:workspace/environments": Row(
        "environment.created", "environment", "id", {"name": "New"}
    ),
    "PATCH environments/:environment": Row(
        "environment.updated", "environment", "environment_id", {"name": ["production", "New"]}
    ),
    "DELETE environments/:environment": Row(
        "environment.deleted", "environment", "strange_environment", {}
    ),
    "POST environments/:environment/members": Row(
        "member.added", "user", "userId", {"role": "viewer"}
    ),
    "PATCH environments/:environment/members/:user": Row(
        "member.role-changed", "user", "user_id", {"role": ["viewer", "admin"]}
    ),
    "DELETE environments/:environment/members/:user": Row(
        "member.removed", "user", "user_id", {"role": ["viewer", None], "keysLivingOn": []}
    ),
    "POST environments/:environment/api-keys": Row(
        "api-key.created",
        "api-key",
        "id",
        {"name": "deploy script", "prefix": "pwk", "role": "operator", "lastFour": ANY},
    ),
    "DELETE environments/:environment/api-keys/:key": Row(
        "api-key.revoked", "api-key", "key_id", {}
    ),
    "POST environments/:environment/triggers": Row(
        "trigger.created", "trigger", "id", {"name": "Morning report"}
    ),
    "PATCH triggers/:trigger": Row(
        "trigger.updated", "trigger", "trigger_id", {"enabled": [True, False]}
    ),
    "DELETE triggers/:trigger": Row(
        "trigger.deleted", "trigger", "idle_trigger", {"name": "Nightly report"}
    ),
    "POST triggers/:trigger/rotate-mcp-token": Row(
        "mcp-token.rotated", "trigger", "trigger_id", {}
    ),
    "POST triggers/:trigger/revisions/:revision/restore": Row(
        "trigger.updated",
        "trigger",
        "trigger_id",
        {"prompt": ["Report.", "A former prompt."], "restoredRevisionId": ANY},
    ),
    "POST triggers/:trigger/test-webhook": Row("webhook.tested", "delivery", "id", ABOUT_DELIVERY),
    "POST deliveries/:delivery/redeliver": Row(
        "webhook.redelivered",
        "delivery",
        "id",
        {**ABOUT_DELIVERY, "redeliveryOf": ANY, "runId": None},
    ),
    "POST environments/:environment/budgets": Row("budget.created", "budget", "id", {"name": "Everything"}),
    "PATCH budgets/:budget": Row(
        "budget.updated", "budget", "budget_id", {"limitUsd": [None, "300"]}
    ),
    "DELETE budgets/:budget": Row(
        "budget.deleted", "budget", "budget_id", {"name": "Everything"}
    ),
    "POST environments/:environment/connections": Row(
        "connection.created", "connection", "id", {"name": "Issue tracker", "grant": "headers"}
    ),
    "PATCH connections/:connection": Row(
        "connection.updated", "connection", "connection_id", {"headers": "[redacted]"}
    ),
    "DELETE connections/:connection": Row(
        "connection.deleted", "connection", "connection_id", {"name": "Issue tracker"}
    ),
    "POST environments/:environment/apply": Row(
        "files.applied",
        "environment",
        "environment_id",
        {"managedBy": "acme/agents", "digest": ANY},
    ),
    "POST environments/:environment/sources": Row(
        "source.created", "source", "id", {"name": "Our repository", "scheme": "github"}
    ),
    "PATCH sources/:source": Row(
        "source.updated", "source", "source_id", {"secrets": "[redacted]"}
    ),
    "DELETE sources/:source": Row(
        "source.deleted", "source", "source_id", {"name": "Repository"}
    ),
    "POST events/:event/replay": Row(
        "event.replayed", "event", "id", {"replayOf": ANY, "sourceId": ANY}
    ),
    "POST environments/:environment/channels": Row(
        "channel.created", "channel", "id", {"name": "New", "kind": "slack"}
    ),
    "PATCH channels/:channel": Row(
        "channel.updated", "channel", "channel_id", {"enabled": [True, False]}
    ),
    "DELETE channels/:channel": Row(
        "channel.deleted", "channel", "channel_id", {"name": "On call"}
    ),
    "POST channels/:channel/test": Row(
        "channel.tested", "channel", "channel_id", {"name": "On call"}
    ),
    "POST addresses/confirm": Row("address.confirmed", "address", "asked", {}),
    "POST addresses/refuse": Row("address.refused", "address", "asked", {"everywhere": True}),
    "POST incidents/:incident/acknowledge": Row(
        "incident.acknowledged",
        "incident",
        "incident_id",
        {"kind": "trigger_failing", "subjectType": "trigger", "subjectId": ANY},
    ),
    "POST triggers/:trigger/run": Row(
        "run.created", "run", "id", {**_moved("queued"), "source": "manual"}
    ),
    "POST runs/:run/rerun": Row(
        "run.created", "run", "id", {**_moved("queued"), "source": "manual", "rerunOf": ANY}
    ),
    "POST environments/:environment/triggers/bulk": Row(
        "trigger.updated", "trigger", "trigger_id", {"enabled": [True, False]}
    ),
    "POST environments/:environment/runs/bulk": Row(
        "run.canceled", "run", "queued", _ended("canceled")
    ),
    "POST runs/:run/watch": None,
    "POST runs/:run/cancel": Row("run.canceled", "run", "queued", _ended("canceled")),
    "POST workers/register": Row(
        "worker.registered", "worker", "workerId", {"hostname": "new-host", "version": "1.0"}
    ),
    "POST environments/:environment/enrollments": Row(
        "enrollment.created", "enrollment", "id", {"kind": "code", "label": "build-2", "lastFour": ANY}
    ),
    "DELETE environments/:environment/enrollments/:enrollment": Row(
        "enrollment.revoked", "enrollment", "enrollment_id", {"kind": "code", "label": None}
    ),
    # This call writes no row, because nobody is known yet who could be its actor.
    "POST enrollments/device": None,
    "POST pairings/approve": Row(
        "enrollment.approved", "enrollment", "decided", {"kind": "device", "label": None, "askedFrom": None}
    ),
    "POST pairings/deny": Row(
        "enrollment.denied", "enrollment", "decided", {"kind": "device", "label": None, "askedFrom": None}
    ),
    "POST enrollments/redeem": Row(
        "enrollment.redeemed",
        "enrollment",
        "redeemed",
        {"kind": "code", "label": None, "hostname": "new-host", "version": "1.0", "workerId": ANY, "keyId": ANY},
    ),
    "POST enrollments/key": Row(
        "enrollment.redeemed",
        "enrollment",
        "redeemed",
        {"kind": "key", "label": None, "keyId": ANY},
        besides=("api-key.created",),
    ),
    "POST workspaces/:workspace/workers/registration-token": Row(
        "api-key.created",
        "api-key",
        "id",
        {"name": "build-2", "prefix": "wrk", "role": None, "lastFour": ANY, "parentId": ANY},
    ),
    "POST workspaces/:workspace/workers/:worker/disable": Row(
        "worker.updated", "worker", "hosted", {"disabled": [False, True]}
    ),
    "POST workspaces/:workspace/workers/:worker/enable": Row(
        "worker.updated", "worker", "hosted_disabled", {"disabled": [True, False]}
    ),
    "DELETE workspaces/:workspace/workers/:worker": Row(
        "worker.deregistered", "worker", "hosted", {"hostname": "host-enrolled"}
    ),
    "PATCH workers/:worker": Row(
        "worker.updated", "worker", "worker_id", {"maxConcurrency": [3, 2]}
    ),
    "DELETE workers/:worker": Row(
        "worker.deregistered", "worker", "idle_worker", {"hostname": "host-2"}
    ),
    "POST workers/:worker/revoke-token": Row(
        "worker.token-revoked", "worker", "worker_id", {}
    ),
    "POST workers/:worker/approve": Row(
        "worker.approved", "worker", "unapproved_worker", {"hostname": "host-3"}
    ),
    "POST environments/:environment/pools": Row("pool.created", "pool", "id", {"name": "Build machines"}),
    "PATCH pools/:pool": Row("pool.updated", "pool", "pool_id", {"name": ["Machines", "Build machines"]}),
    "DELETE pools/:pool": Row("pool.deleted", "pool", "pool_id", {"name": "Machines"}),
    "PUT pools/:pool/workers/:worker": Row("pool.worker-added", "pool", "pool_id", {"workerId": ANY}),
    "DELETE pools/:pool/workers/:worker": Row("pool.worker-removed", "pool", "pool_id", {"workerId": ANY}),
    "POST workers/:worker/claim-next": Row("run.claimed", "run", "queued", _moved("claimed")),
    "POST workers/:worker/runs/:run/claim": Row("run.claimed", "run", "queued", _moved("claimed")),
    "POST workers/:worker/runs/:run/start": Row("run.started", "run", "claimed", _moved("running")),
    "POST workers/:worker/runs/:run/heartbeat": None,
    # The first hand-out of headers is in the log alone.
    "POST workers/:worker/runs/:run/credentials": None,
    "POST workers/:worker/runs/:run/events": None,
    "POST workers/:worker/sign-off": None,
    "POST workers/:worker/runs/:run/approvals/:approval/spend": Row(
        "approval.spent",
        "approval",
        "usable",
        {"runId": ANY, "triggerId": ANY, "tool": "send_mail"},
    ),
    "POST approvals/:approval/decide": Row(
        "approval.decided",
        "approval",
        "approval_id",
        {"runId": ANY, "triggerId": ANY, "tool": "send_mail", "decision": "rejected"},
    ),
    "POST workers/:worker/runs/:run/complete": Row("run.completed", "run", "running", _ended("succeeded")),
}  # fmt: skip

# The environment of the rows about these kinds of target. All other rows have the cast's environment.
ENVIRONMENTS = {
    "user": lambda row: None,
    "workspace": lambda row: None,
    "environment": lambda row: row.target_id,
    "invitation": lambda row: Invitation.objects.latest("id").environment_id,
    # Nobody has chosen one for a pairing that is denied.
    "enrollment.denied": lambda row: None,
}


def test_the_table_knows_every_route_that_changes_something():
    assert set(ROWS) == set(CHANGING)


def test_a_call_leaves_one_row(stage, subtests):
    for name, expected in ROWS.items():
        with subtests.test(name), undone():
            _leaves_one_row(stage, name, expected)


def _leaves_one_row(stage, name, expected):
    cast, call = stage.cast, Call(stage, name)
    before, token = entry_ids(), current_request_id.set(REQUEST_ID)
    answer = call.send(REMOTE_ADDR=ADDRESS)
    current_request_id.reset(token)
    assert answer.status_code < 300
    rows = entries_since(before)
    if expected is None:
        assert rows == []
        return
    (row,) = (row for row in rows if row.action not in expected.besides)
    assert (row.action, row.target_type) == (expected.action, expected.target_type)
    if expected.target == "redeemed":
        target = Enrollment.objects.get(
            consumed_at__isnull=False, worker_id=answer.json().get("workerId")
        ).id
    elif expected.target == "decided":
        target = Enrollment.objects.latest("id").id
    elif expected.target == "asked":
        target = AskedAddress.objects.latest("id").id
    else:
        target = call.ids.get(expected.target) or found(answer, expected.target)
    assert str(row.target_id) == str(target)
    # A user who registers, or a host that redeems, is known only after the call.
    actor: tuple[str, Any] = call.actor
    if name == "POST auth/register":
        actor = ("user", row.target_id)
    elif expected.target == "asked":
        actor = ("system", None)
    elif name == "POST enrollments/key":
        actor = ("user", cast.owner.id)
    elif name == "POST enrollments/redeem":
        actor = ("api_key", cast.environment.api_keys.get(kind="hos").id)
    assert (row.actor_type, row.actor_id) == actor
    assert (row.ip, row.request_id) == (ADDRESS, REQUEST_ID)
    assert row.metadata == expected.metadata
    kind = expected.action if expected.action in ENVIRONMENTS else expected.action.partition(".")[0]
    assert row.environment_id == ENVIRONMENTS.get(kind, lambda _: cast.environment.id)(row)


def found(answer, path):
    """Returns the value at a path such as `a.b` in the answer."""
    body = answer.json()
    for part in path.split("."):
        body = body[part]
    return body


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_a_key_is_named_as_the_actor(cast, role):
    key = cast.key_client(role)
    before = entry_ids()
    answer = key.post(f"/api/v1/triggers/{cast.trigger_id}/run", {"payload": 1})
    rows = entries_since(before)
    if role == "viewer":
        assert (answer.status_code, rows) == (403, [])
        return
    (row,) = rows
    assert (row.actor_type, row.actor_id) == ("api_key", cast.environment.api_keys.latest("id").id)
    assert row.metadata["source"] == "api"


# A hook that nobody has signed changes nothing either, but refuses.
READING = [route for route in ROUTES if not route.changes and route.as_ is not UNSIGNED]


def test_reading_leaves_none(stage):
    cast = stage.cast
    for route in READING:
        with undone():
            client = route.caller(cast)
            before = entry_ids()
            assert route.send(client, route.url(stage), cast).status_code == route.answer, route
            # What a body needs is made without a request.
            assert [each for each in entries_since(before) if each.request_id] == [], route


# Whoever is signed in may make these calls, and they read no body in which something could be wrong.
REFUSE_NOBODY = {"POST auth/resend-verification", "POST auth/sessions/revoke-others"}


def test_what_is_refused_leaves_none(stage):
    cast = stage.cast
    stranger, viewer, nobody = cast.client(cast.stranger), cast.client(cast.viewer), browser()
    key, before = cast.key_client("viewer"), entry_ids()
    for name in CHANGING.keys() - REFUSE_NOBODY:
        route = CHANGING[name]
        refused = [
            (stranger, route.missing_url()),
            (viewer, route.url(stage, user_id=cast.admin.id)),
            (nobody, route.url(stage)),
            (key, route.url(stage)),
        ]
        with undone():
            for client, url in refused:
                cookies = deepcopy(client.cookies)
                answer = getattr(client, route.method.lower())(url, {"unknown": 1})
                client.cookies = cookies
                assert answer.status_code >= 400 or name in {
                    "POST auth/logout",
                    "POST enrollments/device",
                }, name
            left = {row.action for row in entries_since(before)}
        assert left <= {"user.logged-out"}, name


class TestARepeat:
    """A repeated call gets the answer of the first, and writes no second row."""

    def test_with_an_idempotency_key(self, cast):
        client, url = cast.key_client(), f"/api/v1/triggers/{cast.trigger_id}/run"
        before = entry_ids()
        statuses = [
            client.post(url, {"payload": 1}, HTTP_IDEMPOTENCY_KEY="once").status_code
            for _ in range(3)
        ]
        assert statuses == [201, 200, 200]
        assert [row.action for row in entries_since(before)] == ["run.created"]

    @pytest.mark.parametrize(
        ("verb", "run", "body", "action"),
        [
            ("claim", "queued", {"claimId": "mine"}, "run.claimed"),
            ("start", "claimed", {}, "run.started"),
            ("complete", "running", {"status": "succeeded"}, "run.completed"),
            ("heartbeat", "running", {}, None),
        ],
    )
    def test_of_a_workers_call(self, stage, verb, run, body, action):
        cast = stage.cast
        url = f"/api/v1/workers/{cast.worker.worker_id}/runs/{stage.runs[run]}/{verb}"
        before = entry_ids()
        statuses = [cast.worker_client().post(url, body).status_code for _ in range(3)]
        assert statuses == [200, 200, 200]
        assert [row.action for row in entries_since(before)] == ([action] if action else [])

    def test_of_a_cancel_that_was_requested(self, stage):
        cast = stage.cast
        url = f"/api/v1/runs/{stage.runs['running']}/cancel"
        before = entry_ids()
        assert [cast.client(cast.owner).post(url).status_code for _ in range(3)] == [200, 200, 200]
        assert [row.action for row in entries_since(before)] == ["run.cancel-requested"]

    @pytest.mark.parametrize(
        ("name", "action"),
        [
            ("DELETE environments/:environment/api-keys/:key", "api-key.revoked"),
            ("POST workers/:worker/revoke-token", "worker.token-revoked"),
            ("POST workers/:worker/approve", "worker.approved"),
            (
                "DELETE environments/:environment/enrollments/:enrollment",
                "enrollment.revoked",
            ),
            ("POST workspaces/:workspace/workers/:worker/disable", "worker.updated"),
            ("POST workspaces/:workspace/workers/:worker/enable", "worker.updated"),
            ("PATCH triggers/:trigger", "trigger.updated"),
            ("PATCH workers/:worker", "worker.updated"),
            ("PATCH environments/:environment", "environment.updated"),
            ("PATCH environments/:environment/members/:user", "member.role-changed"),
            ("POST auth/logout", "user.logged-out"),
        ],
    )
    def test_of_what_is_so_already(self, stage, name, action):
        call = Call(stage, name)
        before = entry_ids()
        assert len({call.send().status_code for _ in range(3)}) == 1
        assert [row.action for row in entries_since(before)] == [action]


def test_a_poll_that_hands_runs_out_leaves_none(stage):
    cast = stage.cast
    before = entry_ids()
    url = f"/api/v1/workers/{cast.worker.worker_id}/poll"
    assert len(cast.worker_client().get(url).json()["runs"]) == 1
    assert entries_since(before) == []
