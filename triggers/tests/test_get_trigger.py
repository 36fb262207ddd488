"""GET /triggers/:id"""

import pytest

from testing.probes.shapes import A_TIME, NOT_FOUND
from triggers.models import Trigger


@pytest.fixture
def url(cast):
    return f"/api/v1/triggers/{cast.trigger_id}"


def test_it_is_shown_whole(cast, url):
    response = cast.client(cast.viewer).get(url)
    assert response.status_code == 200
    assert response.json() == {
        "id": str(cast.trigger_id),
        "environmentId": str(cast.environment.id),
        "workerId": str(cast.worker.worker_id),
        "name": "Nightly report",
        "description": "",
        "prompt": "Report.",
        "mcpUrl": "https://mcp.example/v1",
        "hasMcpHeaders": False,
        "model": None,
        "schedule": None,
        "timezone": "UTC",
        "nextRunAt": None,
        "enabled": True,
        "maxRetries": 3,
        "timeoutSeconds": 1800,
        "overlapPolicy": "queue",
        "webhookUrl": None,
        "hasWebhookSecret": False,
        "lastRun": None,
        "createdAt": A_TIME,
        "updatedAt": A_TIME,
    }


def test_a_key_sees_the_same(cast, url):
    assert cast.key_client("viewer").get(url).json() == cast.client(cast.owner).get(url).json()


def test_a_deleted_one_is_gone(cast, url):
    Trigger.objects.update(deleted_at="2026-01-01T00:00:00Z")
    response = cast.client(cast.owner).get(url)
    assert (response.status_code, response.json()) == (404, NOT_FOUND)
