"""The events of all sources are one list, filtered like a source's own, and read by an index."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from pipedai.ids import new_id
from pipedai.sql import database_now, execute
from testing.probes.plans import Plans, explained, prefer_indexes
from testing.world.cast import Cast, make_cast
from testing.world.copied_rows import copy_row
from testing.world.events import add_decision, add_event, add_source
from testing.world.runs import Runs
from triggers.models import Event

MANY = 3_000


def url_of(cast: Cast) -> str:
    return f"/api/v1/environments/{cast.environment.id}/events"


def test_it_shows_what_each_source_sent_and_no_ends_of_runs(cast: Cast) -> None:
    first, second = add_source(cast), add_source(cast, "gitlab")
    events = [add_event(cast, source_id=source_id) for source_id in (first, second, first)]
    add_event(cast, run_id=Runs.of(cast).ended())
    add_decision(events[1], cast.trigger_id, "filtered")
    client = cast.client(cast.operator)

    def listed(**query: Any) -> list[int]:
        ids = [str(event.id) for event in events]
        return [ids.index(item["id"]) for item in client.get(url_of(cast), query).json()["items"]]

    assert listed() == [2, 1, 0]
    assert listed(sourceId=first) == [2, 0]
    assert listed(decision="filtered") == [1]
    assert listed(sourceId=first, decision="filtered") == []
    at = events[1].received_at
    assert listed(**{"from": at.isoformat()}) == [2, 1]
    assert listed(to=at.isoformat()) == [0]
    assert client.get(url_of(cast), {"decision": "odd"}).status_code == 400
    # Both lists show an event alike.
    (item,) = client.get(f"/api/v1/sources/{second}/events").json()["items"]
    assert client.get(url_of(cast), {"sourceId": str(second)}).json()["items"] == [item]
    # What a source sent stays when the source goes.
    assert cast.client(cast.owner).delete(f"/api/v1/sources/{first}").status_code == 204
    assert listed(sourceId=first) == [2, 0]


def test_a_source_of_another_environment_is_none(cast: Cast) -> None:
    client, refusals = cast.client(cast.operator), []
    for source_id in (add_source(make_cast()), new_id()):
        answer = client.get(url_of(cast), {"sourceId": str(source_id)})
        assert answer.status_code == 400
        refusals.append(answer.json())
    assert refusals[0] == refusals[1]
    assert refusals[0]["details"]["fieldErrors"] == {
        "sourceId": ["No such id in this environment."]
    }


def test_a_page_reads_few_rows_of_an_environment_with_many_events(committed_cast: Cast) -> None:
    cast, now = committed_cast, database_now()  # What ANALYZE notes goes with this database.
    sources = [add_source(cast) for _ in range(3)]
    # The newest events are those of another environment, which has many sources.
    other = make_cast()
    _add_many(other, [add_source(other) for _ in range(30)], now)
    _add_many(cast, sources, now - timedelta(days=1))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE event, event_decision")
    client = cast.client(cast.operator)
    client.get(url_of(cast))

    def read(**query: Any) -> Plans:
        with explained(("SELECT", "(SELECT")) as plans:
            assert client.get(url_of(cast), {"limit": 20, **query}).status_code == 200
        return plans

    following = client.get(url_of(cast), {"limit": 200}).json()["nextCursor"]
    with transaction.atomic():
        prefer_indexes()
        for query in ({}, {"cursor": following}, {"sourceId": sources[0]}, {"to": now.isoformat()}):
            assert read(**query).rows_of_all_scans < 100, query
        for decision in ("refused", "fired", "refused,fired"):
            assert read(decision=decision).rows_of_all_scans < 100, decision
        # Another index would be searched for each source of the service.
        assert "event_decision_of_all_sources" in read(decision="refused").indexes


def test_an_environment_without_events_reads_none_of_others(committed_cast: Cast) -> None:
    cast, other, now = committed_cast, make_cast(), database_now()
    _add_many(other, [add_source(other)], now)
    source_id = add_source(cast)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE event, event_decision")
    client = cast.client(cast.operator)
    source = f"/api/v1/sources/{source_id}"
    for url in (url_of(cast), f"{source}/events", f"{source}?include=recent"):
        client.get(url)
        with explained(("SELECT", "(SELECT", "WITH")) as plans:
            assert client.get(url).status_code == 200
        assert plans.rows_read("event") == 0, url


def _add_many(cast: Cast, source_ids: list[UUID], now: datetime) -> None:
    """Adds thousands of events, each with a decision; every thousandth was refused."""
    one = add_event(cast, source_id=source_ids[0], received_at=now)
    sources = "', '".join(map(str, source_ids))
    copy_row(
        Event,
        one.id,
        MANY,
        source_id=f"(ARRAY['{sources}']::uuid[])[n %% {len(source_ids)} + 1]",
        received_at="r.received_at - n * interval '1 second'",
    )
    execute(_DECIDE, {"environment_id": cast.environment.id, "trigger_id": cast.trigger_id})


_DECIDE = """
INSERT INTO event_decision (id, environment_id, event_id, source_id, received_at, trigger_id, decision, code)
SELECT gen_random_uuid(), environment_id, id, source_id, received_at, %(trigger_id)s,
    CASE WHEN n %% 1000 = 0 THEN 'refused' ELSE 'fired' END, CASE WHEN n %% 1000 = 0 THEN 'trigger_disabled' END
FROM (SELECT *, row_number() OVER (ORDER BY received_at) AS n FROM event WHERE environment_id = %(environment_id)s) AS e
"""
