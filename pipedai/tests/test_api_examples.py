"""Makes the calls of every JSON example in API.md as one story, and compares each value with the real answers.

Ids, times and tokens are compared by their form. Each id in the examples stands for one id of the story.
"""

import json
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.test import override_settings
from rest_framework.test import APIClient

from accounts.models import User
from pipedai.env import BASE_DIR
from pipedai.ids import current_request_id, new_id
from pipedai.outgoing.oauth import Tokens
from pipedai.server.ticket import STREAM, EnvironmentStreamTicket
from pipedai.sql import database_now
from testing.probes.shapes import A_TIME, AN_ID, a_token
from testing.processes.worker_calls import WorkerCalls
from testing.world.cast import TEST_ACTOR, bearer, browser, session_cookie
from testing.world.connections import give_tokens
from testing.world.events import add_source, github, listen
from testing.world.mails import token_to
from testing.world.users import PASSWORD, UserFactory
from triggers.models import Delivery, DeliveryAttempt, Run
from triggers.schedules import views
from triggers.schedules.firing import fire_due_ticks
from workers.enrollment.issuing import approve_pairing
from workers.models import Worker
from workers.registration import Registered
from workspaces.models import Environment
from workspaces.roles import Role

TEXT = (BASE_DIR / "API.md").read_text()
# Heading → the example below it.
EXAMPLES: dict[str, Any] = {
    section.partition("\n")[0].strip("# `"): json.loads(example)
    for section in re.split(r"^(?=##)", TEXT, flags=re.MULTILINE)
    for example in re.findall(r"^```json\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[:1]
}
# These values are neither ids nor times, but differ from call to call or from version to version.
FREE = {
    *("durationMs", "p50DurationMs", "p95DurationMs"),
    *("digest", "lastFour", "deviceCode", "userCode", "verificationUriComplete"),
    *("redirectUri", "version", "latest", "url", "sha256", "install", "askedBy"),
    # What is due depends on the time of day.
    "dueToday",
    # What each of the last 24 hours brought.
    "recent",
    # Sentences that name times.
    *("message", "summary", "words"),
}


BROWSER = EXAMPLES["GET /auth/sessions"]["userAgent"]


class Story:
    """Compares the answers of the calls with the examples."""

    def __init__(self) -> None:
        self.told: set[str] = set()
        self._ids: dict[str, str] = {}

    def tell(self, heading: str, answer: Any) -> None:
        """Asserts that the answer is like the example of this section."""
        self.told.add(heading)
        answer = json.loads(json.dumps(answer, default=str))
        self._compare(heading, EXAMPLES[heading], answer)

    def _compare(self, at: str, example: Any, answer: Any) -> None:
        if isinstance(example, dict):
            assert isinstance(answer, dict), at
            assert list(answer) == list(example), f"{at}: the example in API.md has other fields"
            for name, value in example.items():
                if name in FREE:
                    assert type(answer[name]) is type(value), f"{at}.{name}"
                else:
                    self._compare(f"{at}.{name}", value, answer[name])
        elif isinstance(example, list):
            assert len(answer) == len(example), at
            for n, value in enumerate(example):
                self._compare(f"{at}[{n}]", value, answer[n])
        elif example == AN_ID:
            assert answer == AN_ID, at
            assert self._ids.setdefault(example, answer) == answer, at
        elif example == A_TIME:
            assert answer == A_TIME, at
        elif isinstance(example, str) and example.endswith("_…"):
            assert answer == a_token(example[:3]), at
        else:
            assert answer == example, at

    def end(self) -> None:
        """Every example was told, and no two of its ids were one."""
        untold = sorted(set(EXAMPLES) - self.told)
        assert untold == [], (
            "pipedai/tests/test_api_examples.py makes none of these calls of API.md"
        )
        assert len(set(self._ids.values())) == len(self._ids)


def test_no_section_has_more_than_one_example_in_json():
    assert TEXT.count("```json\n") == len(EXAMPLES)


@pytest.mark.django_db
def test_every_example_is_what_is_answered(monkeypatch):
    story = Story()
    ada = browser()

    def call(method: str, path: str, body: Any = None, client: Any = ada) -> Any:
        sent_from = {"REMOTE_ADDR": "203.0.113.7", "HTTP_USER_AGENT": BROWSER}
        answer = getattr(client, method)(f"/api/v1/{path}", body, **sent_from)
        assert answer.status_code < 300, answer.content
        return answer.json()

    with override_settings(PUBLIC_URL="https://api.example.com"):
        story.tell("The service", ada.get("/api/v1").json())

    # People, and where they work.
    registered = {"email": "Ada@example.com", "password": PASSWORD, "name": "Ada"}
    story.tell("POST /auth/register", call("post", "auth/register", registered))
    (item,) = call("get", "auth/sessions")["items"]
    story.tell("GET /auth/sessions", item)
    story.tell("GET /users/lookup", call("get", "users/lookup", {"email": "ada@example.com"}))
    workspace = call("post", "workspaces", {"name": "Acme"})["id"]
    (item,) = call("get", "workspaces")["items"]
    story.tell("GET /workspaces", item)
    environments = f"workspaces/{workspace}/environments"
    environment = f"environments/{call('post', environments, {'name': 'production'})['id']}"
    (item,) = call("get", environments)["items"]
    story.tell("GET /workspaces/:wsId/environments", item)
    (item,) = call("get", f"{environment}/members")["items"]
    story.tell("GET /environments/:envId/members", item)
    grace = UserFactory.create(email="grace@example.com")
    call("post", f"{environment}/invitations", {"email": grace.email, "role": "operator"})
    (item,) = call("get", f"{environment}/invitations")["items"]
    story.tell("GET /environments/:envId/invitations", item)
    token = token_to(grace.email, "invitation")
    looked = call("post", "invitations/look", {"token": token}, browser(session_cookie(grace)))
    story.tell("POST /invitations/look", looked)
    accepted = call("post", "invitations/accept", {"token": token}, browser(session_cookie(grace)))
    story.tell("POST /invitations/accept", accepted)

    # The owner makes a key and a worker.
    keys = f"{environment}/api-keys"
    script = bearer(call("post", keys, {"name": "deploy script", "prefix": "pwk"})["token"])
    (item,) = call("get", keys)["items"]
    story.tell("The API key", item)
    story.tell("GET /whoami", call("get", "whoami", client=script))
    token = call("post", keys, {"name": "build-1", "prefix": "wrk"})["token"]
    machine = {"hostname": "build-1", "os": "Linux 6.1", "version": "1.0.0"}
    worker = call("post", "workers/register", machine, client=bearer(token))
    story.tell("POST /workers/register", worker)
    calls = first_calls = WorkerCalls(
        Registered(
            UUID(worker["workerId"]),
            worker["workerToken"],
            new_id(),
            new_id(),
            True,
            Worker.AuthMode.CLAUDE_MAX,
        )
    )

    # The owner makes a trigger, and the worker executes a run of it.
    values = {
        "name": "Morning report",
        "prompt": "Summarise what happened overnight.",
        "mcpUrl": "https://mcp.example.com/mcp",
        "mcpHeaders": {"Authorization": "Bearer a-secret-of-yours"},
        "schedule": "0 6 * * mon-fri",
        "timezone": "Europe/Berlin",
        "workerId": worker["workerId"],
        "webhookUrl": "https://hooks.example.com/pipedai",
        "webhookSecret": "sixteen or more of them",
    }
    refused = ada.post(
        f"/api/v1/{environment}/triggers", {**values, "mcpHeaders": {"x-api-key": 5}}
    )
    assert refused.status_code == 400
    story.tell("Errors", refused.json())
    trigger = f"triggers/{call('post', f'{environment}/triggers', values)['id']}"
    allowed = {
        "name": "Everything",
        "period": "month",
        "timezone": "Europe/Berlin",
        "limitUsd": 200,
    }
    budget = f"budgets/{call('post', f'{environment}/budgets', allowed)['id']}"
    run = call("post", f"{trigger}/run", {"payload": {"day": "monday"}}, client=script)["id"]
    story.tell("GET /workers/:id/poll", calls.poll().json())
    calls.claim(run, claimId="mine")
    calls.start(run)
    story.tell("POST /workers/:id/runs/:runId/heartbeat", calls.heartbeat(run).json())
    story.tell("POST /workers/:id/runs/:runId/credentials", calls.credentials(run).json())
    call("patch", trigger, {"recordEvents": "always"})
    events = EXAMPLES["GET /runs/:id/events"]["items"]
    taken = calls.send_events(run, events).json()
    story.tell("POST /workers/:id/runs/:runId/events", taken)
    story.tell("GET /runs/:id/events", json.loads(ada.get(f"/api/v1/runs/{run}/events").content))
    told = ada.get(f"/api/v1/runs/{run}/events/stream").content.decode()
    event = json.loads(told.split("data: ")[1].partition("\n")[0])
    story.tell("GET /runs/:id/events/stream", event)
    ticket = EnvironmentStreamTicket(asked_at=database_now(), changed={("run", UUID(run))})
    scope: dict[str, Any] = {"asgi.scope": {STREAM: ticket}}
    told = ada.get(f"/api/v1/{environment}/events/stream", **scope).content.decode()
    event = json.loads(told.removeprefix("data: ").partition("\n")[0])
    story.tell("GET /environments/:envId/events/stream", event)
    call("patch", trigger, {"recordEvents": "failures"})
    story.tell("The worker", call("get", f"workers/{worker['workerId']}"))
    outcome = {
        name: EXAMPLES["The run"][name]
        for name in (
            "status", "exitCode", "shortMessage", "model", "inputTokens", "outputTokens",
            "cacheReadTokens", "cacheCreationTokens", "costUsd", "numTurns", "sessionId",
        )
    }  # fmt: skip
    items = EXAMPLES["GET /runs/:id/tool-calls"]["items"]
    listed = [{**each, "at": each["startedAt"]} for each in items]
    counts = {"total": len(listed), "effects": 1, "unknown": 0}
    ended = calls.complete(run, **outcome, toolCalls=counts, toolCallList=listed)
    # The answer to `complete` is the run with two fields more.
    shown = ended.json()
    assert (shown.pop("resumeUntil"), shown.pop("warnings")) == (None, [])
    story.tell("The run", shown)
    story.tell("GET /runs/:id/tool-calls", call("get", f"runs/{run}/tool-calls"))
    story.tell("The trigger", call("get", trigger))
    (item,) = call("get", f"{trigger}/revisions")["items"]
    story.tell("GET /triggers/:id/revisions", item)
    story.tell("The budget", call("get", budget))
    paused = {"ids": [trigger.rpartition("/")[2]], "action": "resume"}
    told = call("post", f"{environment}/triggers/bulk", paused)
    story.tell("POST /environments/:envId/triggers/bulk", told)
    overview = f"{environment}/dashboard/overview"
    story.tell("GET /environments/:envId/dashboard/overview", call("get", overview))
    found = call("get", f"{environment}/search", {"q": "morning"})
    story.tell("GET /environments/:envId/search", found)
    stats = call("get", f"{environment}/stats", {"groupBy": "trigger"})
    story.tell("GET /environments/:envId/stats", stats)

    # The webhook was delivered, and the audit log has entries.
    delivery = Delivery.objects.get()
    story.tell("Webhooks", json.loads(delivery.body))
    attempt = EXAMPLES["The delivery"]["attempts"][0]
    DeliveryAttempt.objects.create(
        environment_id=delivery.environment_id,
        delivery_id=delivery.id,
        n=1,
        at=delivery.created_at,
        status_code=attempt["statusCode"],
        duration_ms=attempt["durationMs"],
        response_body=attempt["responseBody"],
    )
    (item,) = call("get", f"{trigger}/deliveries")["items"]
    story.tell("The delivery", item)
    request_id = current_request_id.set(str(new_id()))
    secret = {"Authorization": "Bearer another-secret-of-yours"}
    call("patch", trigger, {"maxRetries": 5, "mcpHeaders": secret})
    current_request_id.reset(request_id)
    item = call("get", f"{environment}/audit-log", {"limit": 1})["items"][0]
    story.tell("GET /environments/:envId/audit-log", item)

    # A host enrolls, and its worker works.
    code = call("post", f"{environment}/enrollments", {"label": "build-2"})["code"]
    (item,) = call("get", f"{environment}/enrollments")["items"]
    story.tell("The enrollment", item)
    node = browser()
    node.defaults["HTTP_USER_AGENT"] = "node"
    begun = call("post", "enrollments/device", {"label": "build-2"}, client=node)
    story.tell("POST /enrollments/device", begun)
    looked = call("post", "pairings/look", {"userCode": begun["userCode"]})
    story.tell("POST /pairings/look", looked)
    redeeming = {"code": code, "hostname": "build-2", "os": "linux", "version": "1.0.0"}
    host = call("post", "enrollments/redeem", redeeming, client=browser())
    story.tell("POST /enrollments/redeem", host)
    begun = call(
        "post", "enrollments/device", {"label": "laptop", "for": "command_line"}, client=browser()
    )
    approve_pairing(
        enrollment_id=begun["id"],
        environment_id=UUID(environment.rpartition("/")[2]),
        role=Role.VIEWER,
        user_id=UUID(call("get", "auth/me")["user"]["id"]),
        actor=TEST_ACTOR,
    )
    device = {"deviceCode": begun["deviceCode"]}
    story.tell("POST /enrollments/key", call("post", "enrollments/key", device, client=browser()))
    operator = bearer(host["operatorToken"])
    minted = f"workspaces/{workspace}/workers/registration-token"
    story.tell(
        "POST /workspaces/:wsId/workers/registration-token", call("post", minted, client=operator)
    )
    stream = f"/api/v1/workers/{host['workerId']}/events/stream"
    assert operator.get(stream).content == b""
    other = {**values, "name": "Evening report", "workerId": host["workerId"]}
    second = f"triggers/{call('post', f'{environment}/triggers', other)['id']}"
    run = call("post", f"{second}/run", {}, client=script)["id"]
    calls = WorkerCalls(
        Registered(
            UUID(host["workerId"]),
            host["workerToken"],
            new_id(),
            new_id(),
            True,
            Worker.AuthMode.CLAUDE_MAX,
        )
    )
    calls.claim(run)
    calls.start(run)
    told = operator.get(stream, headers={"last-event-id": "0"}).content.decode()
    event = json.loads(told.rpartition("data: ")[2])
    story.tell("GET /workers/:id/events/stream", event)
    story.tell("GET /releases/latest", call("get", "releases/latest", client=browser()))

    # A run waits for a worker that has stopped.
    calls.complete(run, status="succeeded")
    call("post", f"{second}/run", {}, client=script)
    run = call("get", f"{second}/runs", {"limit": 1})["items"][0]["id"]
    stopped = database_now() - timedelta(hours=1)
    Worker.objects.filter(id=host["workerId"]).update(last_seen_at=stopped)
    story.tell("GET /runs/:id/explain", call("get", f"runs/{run}/explain"))

    # Both workers are in a pool.
    pool = f"pools/{call('post', f'{environment}/pools', {'name': 'Build machines'})['id']}"
    for machine in (worker, host):
        added = ada.put(f"/api/v1/{pool}/workers/{machine['workerId']}")
        assert added.status_code == 204
    story.tell("The pool", call("get", pool))
    connection = {
        "name": "Issue tracker",
        "mcpUrl": "https://mcp.example.com/mcp",
        "grant": "authorization_code",
    }
    connection = call("post", f"{environment}/connections", connection)["id"]
    known: dict[str, Any] = {
        "client_id": "a-client-of-theirs",
        "connected_by": User.objects.get(email="ada@example.com"),
        "last_refresh_at": database_now(),
    }
    give_tokens(UUID(connection), Tokens("planted-access", "planted-refresh", 60), **known)
    story.tell("The connection", call("get", f"connections/{connection}"))

    source = {"name": "Our repository", "scheme": "github", "secrets": ["a-secret-of-the-source"]}
    source = call("post", f"{environment}/sources", source)
    listen(UUID(second.removeprefix("triggers/")), source_id=source["id"])
    body = json.dumps({"action": "opened", "number": 7}).encode()
    sent = github(
        body,
        secret="a-secret-of-the-source",
        **{
            "X-GitHub-Event": "pull_request",
            "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        },
    )
    APIClient().post(source["url"], b"{}", content_type="application/json", headers=sent)
    hook = APIClient().post(source["url"], body, content_type="application/json", headers=sent)
    story.tell("The source", call("get", f"sources/{source['id']}"))
    (item,) = call("get", f"sources/{source['id']}/events")["items"]
    assert item["id"] == hook.json()["id"]
    story.tell("The event", item)

    # Schedules.
    due_at = call("get", trigger)["nextRunAt"]
    fire_due_ticks(now=datetime.fromisoformat(due_at))
    (item,) = call("get", f"{trigger}/ticks")["items"]
    story.tell("GET /triggers/:id/ticks", item)
    Run.objects.filter(id=item["runId"]).update(available_at=database_now())
    first_calls.claim(UUID(item["runId"]))
    first_calls.complete(UUID(item["runId"]), status="succeeded")
    explained = call("get", f"{trigger}/explain", {"at": due_at})
    story.tell("GET /triggers/:id/explain", explained)
    channel = {
        "name": "On call",
        "kind": "webhook",
        "url": "https://hooks.example.com/on-call/of-ada",
        "secret": "a-secret-of-the-channel",
        "events": ["trigger_failing", "trigger_failing.recovered"],
        "summary": {
            "at": "07:00",
            "timezone": "Europe/Berlin",
            "weekdays": ["mon", "tue", "wed", "thu", "fri"],
        },
    }
    channel = call("post", f"{environment}/channels", channel)
    story.tell("The channel", channel)
    # A run fails, and somebody looks after it.
    run = call("post", f"{trigger}/run", {}, client=script)["id"]
    first_calls.claim(run)
    first_calls.complete(run, status="failed", errorMessage="No such tool.")
    (item,) = call("get", f"{environment}/incidents")["items"]
    attention = call("get", f"{environment}/attention")
    story.tell("GET /environments/:envId/attention", attention)
    story.tell("The incident", call("post", f"incidents/{item['id']}/acknowledge"))
    (notice,) = call("post", f"channels/{channel['id']}/test", {})["notices"]
    story.tell("The notice", notice)
    # A run asks for an approval.
    call("patch", trigger, {"approvals": [{"tools": ["send_mail"], "approverRole": "operator"}]})
    run = call("post", f"{trigger}/run", {}, client=script)["id"]
    first_calls.claim(run, features=["approvals"])
    question = {
        name: EXAMPLES["The approval"][name] for name in ("tool", "argumentsHash", "toolSchemaHash")
    }
    first_calls.complete(
        run, status="waiting", sessionId="s", approval={**question, "arguments": {}}
    )
    (item,) = call("get", f"{environment}/approvals")["items"]
    story.tell("The approval", item)
    monkeypatch.setattr(views, "database_now", lambda: datetime(2026, 11, 24, tzinfo=UTC))
    asked = {"schedule": "30 2 28 3 *", "timezone": "Europe/Berlin", "count": 2}
    preview = f"{environment}/schedule-preview"
    story.tell("POST /environments/:envId/schedule-preview", call("post", preview, asked))

    call("patch", budget, {"key": "everything"})
    wanted = {"kind": "budget", "key": "everything", **allowed, "limitUsd": 300}
    files = {"managedBy": "acme/agents", "resources": [wanted]}
    plan = call("post", f"{environment}/plan", files)
    story.tell("POST /environments/:envId/plan", plan)
    exported = call("get", f"{environment}/export")
    shown = [row for row in exported["withoutKey"] if row["name"] == "Morning report"]
    story.tell("GET /environments/:envId/export", {**exported, "withoutKey": shown})

    # The other reads of an environment: they need nothing but its id.
    for heading in sorted(set(EXAMPLES) - story.told):
        if heading.startswith("GET /environments/:envId/"):
            answer = call("get", heading[5:].replace("environments/:envId", environment))
            story.tell(heading, answer["items"][0] if "items" in answer else answer)
    heading = "What a trigger listens to"
    source_id = add_source(SimpleNamespace(environment=Environment.objects.get()))  # type: ignore[arg-type]
    entry, ends = EXAMPLES[heading]
    entries = [{**entry, "sourceId": str(source_id)}, {**ends, "triggerId": trigger.split("/")[1]}]
    listening = call("post", f"{environment}/triggers", {**values, "on": entries})
    story.tell(heading, listening["on"])

    story.end()
