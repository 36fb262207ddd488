"""GET /environments/:envId/incidents and POST /incidents/:id/acknowledge"""

from datetime import UTC, datetime

import pytest
from django.db import transaction

from audit.models import AuditEntry
from notices.incidents import change_incidents, remind
from notices.models import Incident
from notices.states import Kind
from testing.probes.plans import explained, prefer_indexes
from testing.probes.shapes import A_TIME, AN_ID, page
from testing.world.copied_rows import copy_row
from testing.world.incidents import open_incident

LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def url(cast):
    return f"/api/v1/environments/{cast.environment.id}/incidents"


def closed(incident_id, *, recovered=True):
    incident = Incident.objects.get(id=incident_id)
    with transaction.atomic():
        change_incidents(
            Kind(incident.kind),
            recovered=[incident.subject_id] if recovered else [],
            withdrawn=[] if recovered else [incident.subject_id],
        )


def ids(response):
    assert response.status_code == 200
    return [item["id"] for item in response.json()["items"]]


def shown(cast, **changes):
    return {
        "id": AN_ID,
        "kind": "trigger_failing",
        "subject": {"type": "trigger", "id": str(cast.trigger_id), "name": "Nightly report"},
        "openedAt": A_TIME,
        "closedAt": None,
        "cause": {"runId": None, "message": "It broke."},
        "acknowledgedAt": None,
        "acknowledgedBy": None,
        "noticeCount": 0,
        "toldTo": [],
        **changes,
    }


def acknowledge(client, incident_id):
    return client.post(f"/api/v1/incidents/{incident_id}/acknowledge")


def test_an_open_and_a_closed_one(cast, url):
    first = open_incident(cast, subject_id=cast.trigger_id)
    closed(first)
    second = open_incident(cast, subject_id=cast.trigger_id)
    client = cast.client(cast.viewer)
    assert client.get(url).json() == page(shown(cast), shown(cast, closedAt=A_TIME))
    assert ids(client.get(url, {"status": "open"})) == [str(second)]
    assert ids(client.get(url, {"status": "closed"})) == [str(first)]


def test_by_kind_and_by_trigger(cast, url):
    client = cast.client(cast.viewer)
    incident = str(open_incident(cast, subject_id=cast.trigger_id))
    open_incident(cast)
    assert ids(client.get(url, {"triggerId": cast.trigger_id})) == [incident]
    assert len(ids(client.get(url, {"kind": "trigger_failing,worker_offline"}))) == 2
    assert ids(client.get(url, {"kind": "worker_offline"})) == []


def test_a_bad_filter_is_told(cast, url):
    client = cast.client(cast.viewer)
    for query in ({"status": "odd"}, {"kind": "odd"}, {"triggerId": cast.environment.id}):
        response = client.get(url, query)
        assert response.status_code == 400
        assert list(response.json()["details"]["fieldErrors"]) == list(query)


def test_whoever_acknowledges_first_is_noted_and_reminders_end(cast):
    incident_id = open_incident(cast, subject_id=cast.trigger_id)
    answer = acknowledge(cast.client(cast.operator), incident_id)
    expected = shown(cast, acknowledgedAt=A_TIME, acknowledgedBy=str(cast.operator.id))
    assert (answer.status_code, answer.json()) == (200, expected)
    again = acknowledge(cast.client(cast.owner), incident_id)
    assert again.json() == answer.json()
    assert AuditEntry.objects.filter(action="incident.acknowledged").count() == 1
    assert remind(now=LATER) == 0


def test_a_key_acknowledges_and_the_audit_log_names_it(cast):
    incident_id = open_incident(cast)
    answer = acknowledge(cast.key_client("operator"), incident_id).json()
    assert (answer["acknowledgedAt"], answer["acknowledgedBy"]) == (A_TIME, None)
    assert AuditEntry.objects.get(action="incident.acknowledged").actor_type == "api_key"


def test_a_closed_one_can_be_acknowledged(cast):
    incident_id = open_incident(cast)
    closed(incident_id)
    answer = acknowledge(cast.client(cast.operator), incident_id)
    assert answer.status_code == 200
    assert (answer.json()["closedAt"], answer.json()["acknowledgedAt"]) == (A_TIME, A_TIME)


def test_a_list_of_closed_incidents_reads_none_that_is_open(cast, url):
    first = open_incident(cast)
    closed(first)
    columns = {"closed_at": "NULL", "subject_id": "gen_random_uuid()"}
    copy_row(Incident, first, 500, **columns, opened_at="r.opened_at + n * interval '1 second'")
    prefer_indexes()
    with explained('SELECT "incident"') as plans:
        response = cast.client(cast.viewer).get(url, {"status": "closed"})
    assert ids(response) == [str(first)]
    assert plans.rows_read("incident") < 10
