"""An incident tells of a completion webhook that was given up, until one is delivered again."""

from datetime import UTC, datetime

import pytest

from notices.models import Incident
from pipedai.outgoing import attempts
from pipedai.outgoing.due import claim_due
from pipedai.outgoing.posts import Answer
from testing.world.cast import TEST_ACTOR
from testing.world.runs import Runs
from triggers.services import TRIGGERS
from triggers.webhooks.sending import WEBHOOKS, send_test

LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def runs(cast):
    return Runs.of(cast)


def answered(status_code):
    """Lets the receiver answer all deliveries that are due, and returns how many incidents are open."""
    answer = Answer(status_code, 12, None)
    for row in claim_due(WEBHOOKS, room=100, busy={}, per_host=100, now=LATER):
        attempts.record(WEBHOOKS, [(row, answer)], now=LATER)
    return Incident.objects.filter(kind="webhook_dead", closed_at__isnull=True).count()


def changed(runs, **values):
    TRIGGERS.update(runs.trigger_id, values=values, actor=TEST_ACTOR)


def test_one_is_given_up_and_one_is_delivered(runs):
    run_id = runs.ended()
    assert answered(410) == 1
    incident = Incident.objects.get()
    assert (incident.subject_id, incident.run_id) == (runs.trigger_id, run_id)
    assert incident.message == "A webhook to hooks.example was given up: the receiver answered 410."
    runs.ended()
    assert answered(410) == 1
    runs.ended()
    assert answered(200) == 0
    assert Incident.objects.count() == 1


def test_an_attempt_that_is_tried_again_is_no_end(runs):
    runs.ended()
    assert answered(503) == 0


def test_a_test_opens_none_but_closes_one(runs):
    send_test(trigger_id=runs.trigger_id, actor=TEST_ACTOR)
    assert answered(410) == 0
    runs.ended()
    assert answered(410) == 1
    send_test(trigger_id=runs.trigger_id, actor=TEST_ACTOR)
    assert answered(204) == 0


def test_a_delivery_to_an_old_url_tells_nothing(runs):
    runs.ended()
    changed(runs, webhook_url="https://other.example/hook")
    assert answered(410) == 0


def test_another_url_closes_it(runs):
    runs.ended()
    assert answered(410) == 1
    changed(runs, webhook_url=None)
    assert answered(410) == 0


def test_it_stays_open_while_the_trigger_is_disabled_and_closes_when_it_is_deleted(runs):
    runs.ended()
    assert answered(410) == 1
    changed(runs, enabled=False)
    assert answered(410) == 1
    TRIGGERS.delete(runs.trigger_id, actor=TEST_ACTOR)
    assert answered(410) == 0
