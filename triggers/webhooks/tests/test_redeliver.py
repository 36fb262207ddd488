"""POST /deliveries/:id/redeliver"""

import pytest
from django.db.models.functions import Now

from audit.models import AuditEntry
from pipedai.ids import new_id
from testing.probes.shapes import A_TIME, AN_ID, NOT_FOUND
from testing.world.cases import cases
from triggers.models import Delivery, Trigger


@pytest.fixture
def delivery(runs) -> Delivery:
    """Makes a run that has ended, and returns its delivery."""
    run_id = runs.running()
    runs.complete(run_id)
    return Delivery.objects.get(run_id=run_id)


def redeliver(client, delivery_id, body=None):
    return client.post(f"/api/v1/deliveries/{delivery_id}/redeliver", body or {})


def test_the_same_body_and_id_go_to_the_present_url(cast, delivery):
    Trigger.objects.filter(id=delivery.trigger_id).update(webhook_url="https://new.example/y")
    response = redeliver(cast.client(cast.admin), delivery.id)
    assert response.status_code == 201
    assert response.json() == {
        "id": AN_ID,
        "runId": str(delivery.run_id),
        "triggerId": str(delivery.trigger_id),
        "status": "pending",
        "nextAttemptAt": A_TIME,
        "createdAt": A_TIME,
        "deliveredAt": None,
        "attempts": [],
    }
    new = Delivery.objects.get(id=response.json()["id"])
    assert new.id != delivery.id
    assert (new.message_id, new.body) == (delivery.message_id, delivery.body)
    assert (new.url, new.host) == ("https://new.example/y", "new.example")


def test_it_is_audited(cast, delivery):
    new_one = redeliver(cast.client(cast.admin), delivery.id).json()["id"]
    entry = AuditEntry.objects.get(action="webhook.redelivered")
    assert (entry.actor_id, str(entry.target_id)) == (cast.admin.id, new_one)
    assert entry.metadata["redeliveryOf"] == str(delivery.id)


def test_without_a_url_it_is_refused(cast, delivery):
    Trigger.objects.filter(id=delivery.trigger_id).update(webhook_url=None)
    response = redeliver(cast.client(cast.admin), delivery.id)
    assert response.status_code == 409
    assert response.json() == {"error": "The trigger has no webhookUrl.", "code": "no_webhook_url"}


@cases("role", ["viewer", "operator"], undone=True)
def test_it_needs_an_admin(cast, delivery, role):
    assert redeliver(cast.client(getattr(cast, role)), delivery.id).status_code == 403


def test_what_is_not_visible_is_not_found(cast, delivery):
    strange = redeliver(cast.client(cast.stranger), delivery.id)
    missing = redeliver(cast.client(cast.admin), new_id())
    Trigger.objects.filter(id=delivery.trigger_id).update(deleted_at=Now())
    deleted = redeliver(cast.client(cast.admin), delivery.id)
    for response in (strange, missing, deleted):
        assert (response.status_code, response.json()) == (404, NOT_FOUND)


def test_a_field_is_refused(cast, delivery):
    assert redeliver(cast.client(cast.admin), delivery.id, {"url": "x"}).status_code == 400


def test_the_eleventh_in_a_minute_is_too_many_and_those_refused_before_do_not_count(cast, delivery):
    for user in (cast.stranger, cast.viewer):
        client = cast.client(user)
        for _ in range(11):
            assert redeliver(client, delivery.id).status_code in (403, 404)
    client = cast.client(cast.admin)
    # A minute may end during these calls, so they fall into two windows at most, with ten calls allowed in each.
    statuses = [redeliver(client, delivery.id).status_code for _ in range(21)]
    assert statuses[:10] == [201] * 10
    assert statuses[-1] == 429
    response = redeliver(cast.client(cast.owner), delivery.id)
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) > 0
