"""GET /triggers/:id"""

import pytest

from testing.probes.shapes import NOT_FOUND
from testing.world.trigger_values import trigger_shown
from triggers.models import Trigger


@pytest.fixture
def url(cast):
    return f"/api/v1/triggers/{cast.trigger_id}"


def test_it_is_shown_whole(cast, url):
    response = cast.client(cast.viewer).get(url)
    assert response.status_code == 200
    assert response.json() == trigger_shown(
        cast.environment.id,
        id=str(cast.trigger_id),
        workerId=str(cast.worker.worker_id),
        retryAfterEffects=True,
    )


def test_a_key_sees_the_same(cast, url):
    assert cast.key_client("viewer").get(url).json() == cast.client(cast.owner).get(url).json()


def test_a_deleted_one_is_gone(cast, url):
    Trigger.objects.update(deleted_at="2026-01-01T00:00:00Z")
    response = cast.client(cast.owner).get(url)
    assert (response.status_code, response.json()) == (404, NOT_FOUND)
