"""Events are a ledger: what came, what was decided, and once more by request; viewers see no payload."""

import json
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from pipedai.api.errors import NotFound
from pipedai.events import Actor
from pipedai.retention import prune, retentions
from pipedai.sql import execute
from testing.probes.plans import explained
from testing.probes.shapes import A_TIME, AN_ID
from testing.processes.racing import Started
from testing.world.cast import Cast
from testing.world.copied_rows import copy_row
from testing.world.events import add_decision, add_event, add_source, listen
from testing.world.runs import Runs
from triggers.events.receiving import replay_event
from triggers.events.tests.test_receive import post, signed
from triggers.models import Event, EventDecision, EventKey, Run

# Decides about all events of sources for a trigger, or about each tenth.
_DECIDE = """
INSERT INTO event_decision (id, environment_id, event_id, source_id, received_at, trigger_id, decision, code)
SELECT gen_random_uuid(), environment_id, id, source_id, received_at, %(trigger_id)s,
    CASE WHEN %(often)s THEN 'filtered' ELSE 'refused' END, CASE WHEN NOT %(often)s THEN 'trigger_disabled' END
FROM (SELECT *, row_number() OVER (ORDER BY received_at) AS nth FROM event) e WHERE %(often)s OR nth %% 10 = 0
"""


@pytest.fixture
def source_id(cast: Cast) -> UUID:
    return add_source(cast)


def test_the_list_shows_what_was_decided_and_one_event_its_body(
    cast: Cast, source_id: UUID
) -> None:
    clause = {"path": "/action", "op": "eq", "value": "opened"}
    listen(cast.trigger_id, source_id=source_id, types=["push"])
    listen(cast.add_trigger(), source_id=source_id, where=[clause])
    sent = {"action": "closed"}
    event_id = post(source_id, *signed("github", json.dumps(sent).encode())).json()["id"]
    operator = cast.client(cast.operator)
    (item,) = operator.get(f"/api/v1/sources/{source_id}/events").json()["items"]
    decisions = {each["decision"]: each for each in item.pop("decisions")}
    assert item == {
        "id": event_id,
        "eventId": None,
        "type": "push",
        "receivedAt": A_TIME,
        "decidedAt": A_TIME,
        "duplicates": 0,
        "replayOf": None,
        "environmentId": str(cast.environment.id),
        "sourceId": str(source_id),
        "runId": None,
    }
    run = Run.objects.get()
    assert decisions["fired"] == {
        "triggerId": str(cast.trigger_id),
        "triggerName": "Nightly report",
        "decision": "fired",
        "code": None,
        "clause": None,
        "runId": str(run.id),
    }
    assert decisions["filtered"]["clause"] == {**clause, "saw": '"closed"'}
    shown = operator.get(f"/api/v1/events/{event_id}").json()
    assert (shown["id"], shown["body"]) == (event_id, sent)


def test_the_list_is_filtered_by_decision_and_time(cast: Cast, source_id: UUID) -> None:
    other = cast.add_trigger()
    events = [add_event(cast, source_id=source_id) for _ in range(3)]
    add_decision(events[0], cast.trigger_id, "filtered")
    add_decision(events[0], other, "refused", code="trigger_disabled")
    add_decision(events[1], cast.trigger_id, "filtered")
    client, url = cast.client(cast.operator), f"/api/v1/sources/{source_id}/events"

    def listed(**query: Any) -> list[int]:
        ids = [str(event.id) for event in events]
        return [ids.index(item["id"]) for item in client.get(url, query).json()["items"]]

    assert listed() == [2, 1, 0]
    assert listed(decision="filtered") == [1, 0]
    assert listed(decision="refused,fired") == [0]
    at = events[1].received_at
    assert listed(**{"from": at.isoformat()}) == [2, 1]
    assert listed(to=at.isoformat()) == [0]
    assert client.get(url, {"decision": "odd"}).status_code == 400


def test_pages_of_decisions_have_each_event_once(cast: Cast, source_id: UUID) -> None:
    other = cast.add_trigger()
    events = [add_event(cast, source_id=source_id) for _ in range(5)]
    for event in events:
        add_decision(event, cast.trigger_id, "filtered")
        add_decision(event, other, "refused", code="trigger_disabled")
    client, url = cast.client(cast.operator), f"/api/v1/sources/{source_id}/events"
    for decision in ("filtered", "filtered,refused"):
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = client.get(url, {"decision": decision, "limit": 2, **cursor}).json()
            assert [len(item["decisions"]) for item in page["items"]] == [2] * len(page["items"])
            found += [item["id"] for item in page["items"]]
            if page["nextCursor"] is None:
                break
            cursor = {"cursor": page["nextCursor"]}
        assert found == [str(event.id) for event in reversed(events)], decision


def test_a_page_of_a_decision_reads_only_the_events_that_it_shows(committed_cast: Cast) -> None:
    cast = committed_cast  # What ANALYZE notes goes with a database of the test's own.
    source_id, other = add_source(cast), cast.add_trigger()
    event = add_event(cast, source_id=source_id)
    copy_row(Event, event.id, 3_000, received_at="r.received_at - n * interval '1 second'")
    execute(_DECIDE, {"trigger_id": cast.trigger_id, "often": True})
    execute(_DECIDE, {"trigger_id": other, "often": False})
    execute("ANALYZE event, event_decision", {})
    client, url = cast.client(cast.operator), f"/api/v1/sources/{source_id}/events"
    for decision in ("refused", "refused,coalesced", "filtered"):
        query: dict[str, Any] = {"decision": decision, "limit": 10}
        for _ in range(2):
            with explained(("SELECT", "(SELECT")) as plans:
                page = client.get(url, query).json()
            assert len(page["items"]) == 10
            assert plans.rows_read("event") <= 10, decision
            # The page's ten events and the first of the next have two decisions each, and all of these are shown.
            assert plans.rows_read("event_decision") <= 2 * (11 + 10), decision
            query["cursor"] = page["nextCursor"]


def test_a_replay_is_a_new_event_that_starts_what_listens_now(cast: Cast, source_id: UUID) -> None:
    first = post(source_id, *signed("github", b'{"n": 1}')).json()["id"]
    assert not Run.objects.exists()
    listen(cast.trigger_id, source_id=source_id)
    replayed = cast.client(cast.operator).post(f"/api/v1/events/{first}/replay", {})
    assert replayed.status_code == 201
    told = replayed.json()
    assert (told["id"], told["replayOf"], told["body"]) == (AN_ID, first, {"n": 1})
    run = Run.objects.get()
    assert told["decisions"][0]["runId"] == str(run.id)
    assert (run.source, str(run.event_id)) == ("event", told["id"])
    # By rules with `notRequester` they may not approve what they started.
    assert run.requested_by == cast.operator.id


def test_an_event_that_is_being_pruned_is_not_replayed(committed_cast: Cast) -> None:
    event = add_event(committed_cast, source_id=add_source(committed_cast), body={"n": 1})
    actor = Actor("user", committed_cast.owner.id)
    with transaction.atomic():
        Event.objects.filter(id=event.id).delete()
        replayed = Started(partial(replay_event, event_id=event.id, actor=actor))
        replayed.wait_until_blocked()
    assert isinstance(replayed.answer(), NotFound)


def test_the_end_of_a_run_is_not_replayed(cast: Cast) -> None:
    run_id = Runs.of(cast).ended()
    event = add_event(cast, run_id=run_id)
    client, url = cast.client(cast.operator), f"/api/v1/events/{event.id}"
    refused = client.post(f"{url}/replay", {})
    assert (refused.status_code, refused.json()["code"]) == (409, "event_of_run")
    shown = client.get(url).json()
    assert (shown["runId"], shown["sourceId"], shown["body"]) == (str(run_id), None, None)


def test_viewers_see_no_payload_of_an_event_also_after_a_rerun(cast: Cast, source_id: UUID) -> None:
    listen(cast.trigger_id, source_id=source_id)
    event_id = post(source_id, *signed("github", b'{"secret": "plan"}')).json()["id"]
    run = Run.objects.get()
    Runs(cast, cast.trigger_id).cancel(run.id)
    rerun = cast.client(cast.operator).post(f"/api/v1/runs/{run.id}/rerun", {}).json()
    for run_id in (run.id, rerun["id"]):
        url = f"/api/v1/runs/{run_id}"
        seen = cast.client(cast.operator).get(url).json()
        assert (seen["eventId"], seen["payloadHidden"]) == (event_id, False)
        assert seen["payload"]["data"] == {"secret": "plan"}
        hidden = cast.client(cast.viewer).get(url).json()
        assert (hidden["eventId"], hidden["payload"]) == (event_id, None)
        assert hidden["payloadHidden"] is True
        assert cast.key_client("viewer").get(url).json()["payload"] is None


def test_old_events_go_with_their_decisions_and_a_key_when_it_has_expired(
    cast: Cast, source_id: UUID
) -> None:
    listen(cast.trigger_id, source_id=source_id)
    answers = [post(source_id, *signed("github", b"[%d]" % n)).json()["id"] for n in range(2)]
    old = Event.objects.get(id=answers[0])
    Event.objects.filter(id=old.id).update(received_at=old.received_at - timedelta(days=15))
    undecided = add_event(cast, run_id=Runs.of(cast).ended())
    Event.objects.filter(id=undecided.id).update(received_at=old.received_at - timedelta(days=15))
    EventKey.objects.filter(event_id=answers[1]).update(
        expires_at=old.received_at - timedelta(days=2)
    )
    for kind in retentions():
        if kind.kind in ("events", "event-keys"):
            days = kind.days()
            assert days is not None
            list(prune(kind, days=days, limit=10))
    assert {str(event.id) for event in Event.objects.all()} == {answers[1], str(undecided.id)}
    assert {str(id_) for id_ in EventDecision.objects.values_list("event_id", flat=True)} == {
        answers[1]
    }
    # The first delivery is still known, though its event has gone. The run that it started stays.
    assert post(source_id, *signed("github", b"[0]")).json()["id"] == answers[0]
    assert post(source_id, *signed("github", b"[1]")).json()["id"] not in answers
    assert Run.objects.filter(event_id=answers[0]).exists()
