"""A source's signed requests become events, each once, and nothing else does."""

import base64
import hmac
import json
import time
from typing import Any
from uuid import UUID

import pytest
from rest_framework.test import APIClient

from pipedai.api.throttling import Buckets
from pipedai.ids import new_id
from pipedai.server.memory_budget import group_of
from pipedai.sql import execute
from testing.world.cast import Cast
from testing.world.events import SOURCE_SECRET, add_source, github, listen
from triggers.events import receiving
from triggers.events.deciding import decide_ends
from triggers.events.tests.test_signatures import OPTIONS
from triggers.models import Event, EventKey, EventSource, Run

BODY = b'{"action": "opened"}'


def post(source_id: UUID, body: bytes = BODY, headers: Any = None, **extra: Any) -> Any:
    """Sends a body to a hook, signed as GitHub does unless headers are given."""
    sent = github(body) if headers is None else headers
    return APIClient().post(
        f"/api/v1/hooks/{source_id}",
        body,
        headers=sent,
        **{"content_type": "application/json", **extra},
    )


@pytest.fixture
def source_id(cast: Cast) -> UUID:
    return add_source(cast)


def test_a_signed_request_becomes_an_event(cast: Cast, source_id: UUID) -> None:
    body = '{"text": "a\\u0000b\\ud800 é", "n": 1.50, "list": [null]}'.encode()
    sent = github(body, **{"X-GitHub-Delivery": "72d3162e"})
    answer = post(source_id, body, sent, content_type="text/plain; charset=latin-1")
    assert answer.status_code == 202
    event = Event.objects.get()
    assert answer.json() == {"id": str(event.id)}
    assert (event.environment_id, event.source_id) == (cast.environment.id, source_id)
    assert (event.type, event.given_id, event.duplicates) == ("push", "72d3162e", 0)
    assert event.body == {"text": "a\ufffdb\ufffd é", "n": 1.5, "list": [None]}
    assert event.decided_at == event.received_at
    assert EventSource.objects.get(id=source_id).last_event_at == event.received_at
    # From now on its requests from this address share turns and memory as its workspace's.
    workspace_id = cast.environment.workspace_id
    assert group_of(f"/api/v1/hooks/{source_id}", "127.0.0.1") == workspace_id


def test_whoever_cannot_sign_gets_the_same_answer_whatever_there_is(
    cast: Cast, source_id: UUID
) -> None:
    disabled, deleted = add_source(cast, enabled=False), add_source(cast)
    cast.client(cast.owner).delete(f"/api/v1/sources/{deleted}")
    refused = [
        post(source_id, headers=github(BODY, secret="another-secret")),
        post(source_id, headers={}),
        post(source_id, b"no JSON", headers={}),
        *(post(other) for other in (disabled, deleted, new_id())),
    ]
    answers = {(answer.status_code, answer.content) for answer in refused}
    assert len(answers) == 1, answers
    assert refused[0].status_code == 401
    path = f"/api/v1/hooks/{source_id}"
    assert group_of(path, "127.0.0.1") == "127.0.0.1"
    assert not Event.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"payload=%7B%7D", id="a form"),
        pytest.param(b'{"a": \xff}', id="no UTF-8"),
        pytest.param(b"[" * 65 + b"]" * 65, id="too deep"),
        pytest.param(b"[" + b"{}," * 20_000 + b"{}]", id="too many objects"),
        pytest.param(b'{"a": 1e999}', id="a number too large"),
    ],
)
def test_a_signed_body_that_is_no_json_is_refused(source_id: UUID, body: bytes) -> None:
    answer = post(source_id, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")


def test_a_body_over_256_kib_is_refused_before_its_signature(source_id: UUID) -> None:
    limit = 256 * 1024
    assert post(source_id, b'"' + b"x" * (limit - 2) + b'"').status_code == 202
    answer = post(source_id, b"x" * (limit + 1), headers={})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_what_a_process_writes_about_a_delivery_has_no_secret_of_it(source_id: UUID) -> None:
    headers = {"authorization": f"Bearer {SOURCE_SECRET}"}
    told = repr(receiving.Delivery(source_id, headers, SOURCE_SECRET.encode(), "192.0.2.7"))
    assert SOURCE_SECRET not in told


def test_a_body_that_is_null_is_an_event(source_id: UUID) -> None:
    assert post(source_id, b"null").status_code == 202
    assert Event.objects.get().body is None


def test_a_source_whose_secrets_do_not_open_answers_503(
    cast: Cast, source_id: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    execute("UPDATE event_source SET secrets = 'changed' WHERE id = %(id)s", {"id": source_id})
    answer = post(source_id)
    assert (answer.status_code, answer.json()["code"]) == (503, "encryption_unavailable")
    assert answer["Retry-After"] == "60"


def test_slack_gets_its_challenge_back_and_no_event_is_made(cast: Cast) -> None:
    source_id = add_source(cast, "slack")
    asked = {"type": "url_verification", "challenge": "3eZbrw1a", "token": "x"}
    answer = post(source_id, *signed("slack", json.dumps(asked).encode()))
    assert (answer.status_code, answer.json()) == (200, {"challenge": "3eZbrw1a"})
    assert not Event.objects.exists()


def signed(scheme: str, body: bytes, **headers: str) -> tuple[bytes, dict[str, str]]:
    """Returns the body, and headers that a sender of the scheme would send now, but for those given."""

    def mac(text: bytes) -> bytes:
        return hmac.digest(SOURCE_SECRET.encode(), text, "sha256")

    now = headers.pop("now", str(int(time.time())))
    stamped = f"{now}.".encode() + body
    match scheme:
        case "standard":
            message = headers.setdefault("webhook-id", "msg_1").encode() + b"." + stamped
            made = {
                "webhook-timestamp": now,
                "webhook-signature": f"v1,{base64.b64encode(mac(message)).decode()}",
            }
        case "github":
            made = github(body)
        case "gitlab":
            made = {"X-Gitlab-Token": SOURCE_SECRET, "X-Gitlab-Event": "Push Hook"}
        case "stripe":
            made = {"Stripe-Signature": f"t={now},v1={mac(stamped).hex()}"}
        case "slack":
            digest = mac(f"v0:{now}:".encode() + body).hex()
            made = {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": f"v0={digest}"}
        case "bearer":
            made = {"Authorization": f"Bearer {SOURCE_SECRET}"}
        case _:
            digest = mac(stamped if now else body).hex()
            made = {"X-Signature": f"sig {digest}", "X-Time": now}
    return body, {**made, **headers}


# (scheme, what is sent first, what is sent then, whether it is a duplicate, the days for which it counts)
_DELIVERIES = [
    ("standard", (BODY, {}), (b"{}", {}), True, 7),
    ("standard", (BODY, {}), (BODY, {"webhook-id": "msg_2"}), False, 7),
    ("stripe", (b'{"id": "evt_1"}', {}), (b'{"id": "evt_1", "a": 1}', {}), True, 7),
    ("stripe", (b'{"id": "evt_1"}', {}), (b'{"id": "evt_2"}', {}), False, 7),
    ("slack", (b'{"event_id": "Ev1"}', {}), (b'{"event_id": "Ev1", "a": 1}', {}), True, 7),
    ("slack", (b'{"event_id": 1}', {}), (b'{"event_id": 1}', {}), False, None),
    ("gitlab", (BODY, {"Idempotency-Key": "k"}), (b"{}", {"Idempotency-Key": "k"}), True, 7),
    ("gitlab", (BODY, {}), (BODY, {}), False, None),
    ("bearer", (BODY, {"Idempotency-Key": "k"}), (b"{}", {"Idempotency-Key": "k"}), True, 7),
    ("bearer", (BODY, {}), (BODY, {}), False, None),
    ("github", (BODY, {"X-GitHub-Delivery": "1"}), (BODY, {"X-GitHub-Delivery": "2"}), True, 365),
    ("github", (BODY, {"X-GitHub-Delivery": "1"}), (b"{}", {"X-GitHub-Delivery": "1"}), False, 365),
    ("hmac", (BODY, {}), (BODY, {}), True, 7),
    ("hmac", (BODY, {}), (BODY, {"now": "-60"}), False, 7),
    ("hmac, no time", (BODY, {}), (BODY, {}), True, 365),
]


@pytest.mark.parametrize(("scheme", "first", "then", "is_duplicate", "days"), _DELIVERIES)
def test_what_is_known_again_is_counted_and_is_no_event(
    cast: Cast, scheme: str, first: Any, then: Any, is_duplicate: bool, days: int | None
) -> None:
    name = scheme.partition(",")[0]
    stamp = None if "no time" in scheme else OPTIONS["timestampHeader"]
    options = {"hmac": {**OPTIONS, "timestampHeader": stamp}} if name == "hmac" else {}
    source_id = add_source(cast, name, **options)
    now = int(time.time())
    answers = []
    for body, headers in (first, then):
        at = "" if "no time" in scheme else str(now + int(headers.get("now", 0)))
        sent = {**headers, "now": at} if name == "hmac" else headers
        answers.append(post(source_id, *signed(name, body, **sent)))
    assert [answer.status_code for answer in answers] == [202, 202]
    assert (answers[0].json() == answers[1].json()) is is_duplicate
    assert Event.objects.count() == (1 if is_duplicate else 2)
    assert Event.objects.earliest("id").duplicates == int(is_duplicate)
    kept = EventKey.objects.first()
    received = Event.objects.earliest("id").received_at
    assert (kept and round((kept.expires_at - received).total_seconds() / 86_400)) == days


def test_an_expired_key_counts_no_more(source_id: UUID) -> None:
    first = post(source_id).json()
    EventKey.objects.update(expires_at=Event.objects.get().received_at)
    again = post(source_id).json()
    assert first != again
    assert post(source_id).json() == again
    assert EventKey.objects.get().event_id == UUID(again["id"])


def test_signed_requests_count_for_their_source_and_others_for_their_address(
    cast: Cast, source_id: UUID, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.THROTTLES_ENABLED = True
    for name in ("_signed", "_unsigned"):
        few = Buckets(receiving.SIGNED, burst=3, most=10)
        monkeypatch.setattr(few, "_per_second", 0.0001)
        monkeypatch.setattr(receiving, name, few)
    # Nobody uses up the rate of a source by requests that it did not sign.
    unsigned = [post(source_id, headers={}) for _ in range(4)]
    assert [answer.status_code for answer in unsigned] == [401, 401, 401, 429]
    assert post(new_id()).status_code == 429
    # Duplicates count as well, and a body that is no JSON does not.
    taken = [post(source_id, b"x"), *(post(source_id) for _ in range(4))]
    assert [answer.status_code for answer in taken] == [400, 202, 202, 202, 429]
    assert (taken[-1].json()["code"], "Retry-After" in taken[-1]) == ("throttled", True)
    assert post(add_source(cast)).status_code == 202


def test_a_hook_takes_a_constant_number_of_statements(
    source_id: UUID, django_assert_num_queries: Any
) -> None:
    # The source, the key, the event, who listens, a note, and the transaction, which is a savepoint in this test.
    with django_assert_num_queries(7):
        assert post(source_id).status_code == 202
    # The source, and for one that there is what it refused.
    for refused, statements in ((source_id, 2), (new_id(), 1)):
        with django_assert_num_queries(statements):
            assert post(refused, headers={}).status_code == 401


def test_an_event_whose_clauses_take_long_is_decided_by_the_scheduler(
    cast: Cast, source_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "_CPU_SECONDS", -1.0)
    trigger_id = cast.add_trigger()
    listen(trigger_id, source_id=source_id)
    first = post(source_id).json()["id"]
    client = cast.client(cast.operator)
    told = client.get(f"/api/v1/events/{first}").json()
    assert (told["decidedAt"], told["decisions"]) == (None, [])
    # The user who replays it has requested what it starts, though the scheduler decides it.
    replay = client.post(f"/api/v1/events/{first}/replay", {}).json()["id"]
    assert not Run.objects.exists()
    assert post(source_id).json()["id"] == first, "known again"
    assert decide_ends() == 2
    for event_id, requester in ((first, None), (replay, cast.operator.id)):
        told = client.get(f"/api/v1/events/{event_id}").json()
        (decision,) = told["decisions"]
        assert told["decidedAt"]
        assert decision["decision"] == "fired"
        assert Run.objects.get(id=decision["runId"]).requested_by == requester
