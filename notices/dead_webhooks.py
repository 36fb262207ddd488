"""Opens an incident when a completion webhook was given up, and closes it when one is delivered again (SPEC §14)."""

from collections.abc import Collection
from uuid import UUID

from notices.incidents import Finding, change_incidents
from notices.states import Kind, SubjectType
from pipedai.events import Event
from pipedai.sql import fetch_all

# Selects the deliveries that open an incident. A delivery to a URL that the trigger no longer has opens none, because
# it says nothing about the present URL. A test opens none, because whoever sent it sees its result.
_GIVEN_UP = """
SELECT d.id, d.environment_id, d.trigger_id, t.name, d.run_id
FROM delivery d JOIN trigger t ON t.id = d.trigger_id
WHERE d.id = ANY(%(ids)s) AND d.run_id IS NOT NULL AND t.deleted_at IS NULL AND t.webhook_url = d.url
"""

# Selects the triggers with an open incident among those whose webhooks were delivered.
_DELIVERED = """
SELECT i.subject_id FROM delivery d
JOIN trigger t ON t.id = d.trigger_id AND t.webhook_url = d.url
JOIN incident i ON i.subject_id = d.trigger_id AND i.kind = 'webhook_dead' AND i.environment_id = d.environment_id
    AND i.closed_at IS NULL
WHERE d.id = ANY(%(ids)s)
"""


def note_given_up(events: Collection[Event]) -> None:
    """Opens the incidents for webhooks that were given up. Call it in the transaction that recorded this."""
    if not events:
        return
    answers = {event.target_id: event.metadata for event in events}
    findings = []
    for row in fetch_all(_GIVEN_UP, {"ids": list(answers)}):
        answer = answers[row["id"]]
        cause = answer["error"] or f"the receiver answered {answer['statusCode']}"
        message = f"A webhook to {answer['host']} was given up: {cause}."
        findings.append(
            Finding(row["environment_id"], row["trigger_id"], row["name"], message, row["run_id"])
        )
    change_incidents(Kind.WEBHOOK_DEAD, SubjectType.TRIGGER, begun=findings)


def note_delivered(events: Collection[Event]) -> None:
    """Closes the incidents of triggers whose webhooks were delivered. It takes one statement if none is open."""
    if events:
        rows = fetch_all(_DELIVERED, {"ids": [event.target_id for event in events]})
        recovered: set[UUID] = {row["subject_id"] for row in rows}
        change_incidents(Kind.WEBHOOK_DEAD, SubjectType.TRIGGER, recovered=recovered)
