"""Metrics tell what is sent, by kind."""

from pipedai.metrics.outgoing import ATTEMPTS, SETTLED, read_waiting
from pipedai.outgoing import attempts
from pipedai.outgoing.due import claim_due
from pipedai.outgoing.posts import Answer
from testing.world.cast import TEST_ACTOR, Cast
from triggers.webhooks.sending import WEBHOOKS, send_test


def waiting(name: str) -> float:
    (family,) = [family for family in read_waiting() if family.name == name]
    (value,) = [each.value for each in family.samples if each.labels == {"kind": "webhook"}]
    return value


def counted() -> tuple[float, float, float]:
    return (
        ATTEMPTS.labels("webhook", "refused")._value.get(),
        SETTLED.labels("webhook", "dead")._value.get(),
        SETTLED.labels("webhook", "delivered")._value.get(),
    )


def test_messages_that_wait_and_those_that_died_are_told_by_kind(cast: Cast) -> None:
    send_test(trigger_id=cast.add_trigger(webhook_url="http://a.example/"), actor=TEST_ACTOR)
    assert waiting("pipedai_outgoing_pending") == 1
    assert waiting("pipedai_outgoing_overdue_seconds") >= 0
    before = counted()
    (row,) = claim_due(WEBHOOKS, room=8, busy={}, per_host=4)
    attempts.record(WEBHOOKS, [(row, Answer(404, 5))])
    assert waiting("pipedai_outgoing_pending") == 0
    assert counted() == (before[0] + 1, before[1] + 1, before[2])
