"""GET /triggers/:id/deliveries"""

from datetime import UTC, datetime

import pytest

from testing.probes.shapes import A_CURSOR, A_TIME, AN_ID, NOT_FOUND, page
from testing.world.cases import cases
from testing.world.cast import TEST_ACTOR
from triggers.models import Delivery, DeliveryAttempt
from triggers.webhooks.sending import send_test

URL = "https://hooks.example/x"


@pytest.fixture
def trigger_id(cast):
    return cast.add_trigger(webhook_url=URL)


def listed(client, trigger_id, **query):
    return client.get(f"/api/v1/triggers/{trigger_id}/deliveries", query)


def add_attempt(delivery_id, n, **values):
    delivery = Delivery.objects.get(id=delivery_id)
    values = {"status_code": 503, "duration_ms": 12, "response_body": "Busy", **values}
    at = datetime(2026, 5, 4, 12, n, tzinfo=UTC)
    DeliveryAttempt.objects.create(
        environment_id=delivery.environment_id, delivery_id=delivery_id, n=n, at=at, **values
    )


def test_an_admin_sees_deliveries_with_their_attempts(cast, trigger_id):
    delivery_id = send_test(trigger_id=trigger_id, actor=TEST_ACTOR)
    add_attempt(delivery_id, 2, status_code=None, error="timed out", response_body=None)
    add_attempt(delivery_id, 1)
    response = listed(cast.client(cast.admin), trigger_id)
    assert response.status_code == 200
    assert response.json() == page(
        {
            "id": str(delivery_id),
            "runId": None,
            "triggerId": str(trigger_id),
            "status": "pending",
            "nextAttemptAt": A_TIME,
            "createdAt": A_TIME,
            "deliveredAt": None,
            "attempts": [
                {
                    "at": "2026-05-04T12:01:00.000Z",
                    "statusCode": 503,
                    "durationMs": 12,
                    "error": None,
                    "responseBody": "Busy",
                },
                {
                    "at": "2026-05-04T12:02:00.000Z",
                    "statusCode": None,
                    "durationMs": 12,
                    "error": "timed out",
                    "responseBody": None,
                },
            ],
        }
    )


@cases(
    ("role", "shown"),
    [("viewer", None), ("operator", None), ("admin", "Busy"), ("owner", "Busy")],
    undone=True,
)
def test_response_bodies_are_for_admins(cast, trigger_id, role, shown):
    add_attempt(send_test(trigger_id=trigger_id, actor=TEST_ACTOR), 1)
    (item,) = listed(cast.client(getattr(cast, role)), trigger_id).json()["items"]
    assert item["attempts"][0]["responseBody"] == shown


@cases(("role", "shown"), [("viewer", None), ("admin", "Busy")], undone=True)
def test_the_same_holds_for_keys(cast, trigger_id, role, shown):
    add_attempt(send_test(trigger_id=trigger_id, actor=TEST_ACTOR), 1)
    (item,) = listed(cast.key_client(role), trigger_id).json()["items"]
    assert item["attempts"][0]["responseBody"] == shown


def test_a_stranger_sees_nothing(cast, trigger_id):
    response = listed(cast.client(cast.stranger), trigger_id)
    assert (response.status_code, response.json()) == (404, NOT_FOUND)


def test_it_pages_newest_first(cast, trigger_id):
    ids = [str(send_test(trigger_id=trigger_id, actor=TEST_ACTOR)) for _ in range(3)]
    client = cast.client(cast.viewer)
    first = listed(client, trigger_id, limit=2).json()
    assert first["nextCursor"] == A_CURSOR
    rest = listed(client, trigger_id, limit=2, cursor=first["nextCursor"]).json()
    shown = [item["id"] for item in first["items"] + rest["items"]]
    assert sorted(shown) == sorted(ids)
    assert all(item == AN_ID for item in shown)
    assert rest["nextCursor"] is None


def test_another_triggers_deliveries_are_not_among_them(cast, trigger_id):
    send_test(trigger_id=cast.add_trigger(webhook_url=URL), actor=TEST_ACTOR)
    assert listed(cast.client(cast.viewer), trigger_id).json() == page()
