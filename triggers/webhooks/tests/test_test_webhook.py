"""POST /triggers/:id/test-webhook"""

import json

import pytest

from audit.models import AuditEntry
from testing.probes.shapes import A_TIME, AN_ID, NOT_FOUND
from testing.world.cases import cases
from triggers.models import Delivery

NIL = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def trigger_id(cast):
    return cast.add_trigger(webhook_url="https://hooks.example/x?key=1")


def send(client, trigger_id, body=None):
    return client.post(f"/api/v1/triggers/{trigger_id}/test-webhook", body or {})


def test_a_sample_is_queued(cast, trigger_id):
    response = send(cast.client(cast.admin), trigger_id)
    assert response.status_code == 201
    assert response.json() == {
        "id": AN_ID,
        "runId": None,
        "triggerId": str(trigger_id),
        "status": "pending",
        "nextAttemptAt": A_TIME,
        "createdAt": A_TIME,
        "deliveredAt": None,
        "attempts": [],
    }
    sample = json.loads(Delivery.objects.get(id=response.json()["id"]).body)
    assert list(sample) == [
        "runId",
        "triggerId",
        "status",
        "durationMs",
        "shortMessage",
        "errorMessage",
        "costUsd",
        "faultClass",
        "nothingNew",
        "endedAt",
    ]
    assert (sample["runId"], sample["triggerId"]) == (NIL, str(trigger_id))
    assert sample["endedAt"] == A_TIME


def test_each_test_is_a_message_of_its_own(cast, trigger_id):
    for _ in range(2):
        send(cast.client(cast.admin), trigger_id)
    assert len(set(Delivery.objects.values_list("message_id", flat=True))) == 2


def test_it_is_audited_without_the_urls_query(cast, trigger_id):
    delivery_id = send(cast.client(cast.admin), trigger_id).json()["id"]
    entry = AuditEntry.objects.get(action="webhook.tested")
    assert (entry.actor_id, str(entry.target_id)) == (cast.admin.id, delivery_id)
    assert entry.metadata == {"triggerId": str(trigger_id), "host": "hooks.example"}


def test_without_a_url_it_is_refused(cast):
    response = send(cast.client(cast.admin), cast.trigger_id)
    assert response.status_code == 409
    assert response.json() == {"error": "The trigger has no webhookUrl.", "code": "no_webhook_url"}


@cases("role", ["viewer", "operator"], undone=True)
def test_it_needs_an_admin(cast, trigger_id, role):
    assert send(cast.client(getattr(cast, role)), trigger_id).status_code == 403


def test_a_stranger_finds_nothing(cast, trigger_id):
    response = send(cast.client(cast.stranger), trigger_id)
    assert (response.status_code, response.json()) == (404, NOT_FOUND)


def test_too_many_in_a_minute_are_refused_for_the_whole_environment(cast, trigger_id):
    other = cast.add_trigger(webhook_url="https://hooks.example/y")
    client = cast.client(cast.admin)
    statuses = [send(client, trigger_id).status_code for _ in range(21)]
    assert statuses[:10] == [201] * 10
    assert statuses[-1] == 429
    assert send(client, other).status_code == 429
