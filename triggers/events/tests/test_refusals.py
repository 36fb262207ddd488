"""A source tells why it refused requests, and which types came. A flood of refused requests is hardly written."""

import json
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from pipedai.api.throttling import Buckets, Rate
from pipedai.retention import prune, retentions
from pipedai.sql import database_now
from testing.probes.plans import explained, prefer_indexes
from testing.probes.shapes import A_TIME
from testing.world.cast import Cast
from testing.world.copies import add_copies
from testing.world.events import add_decision, add_event, add_source
from triggers.events import receiving, refusals
from triggers.events.tests.test_receive import post, signed
from triggers.models import Event, EventSource, RefusedRequest
from triggers.states import Refusal


def shown(cast: Cast, source_id: Any) -> Any:
    return cast.client(cast.viewer).get(f"/api/v1/sources/{source_id}").json()


def refused(cast: Cast, source_id: Any) -> dict[str, int]:
    rows = shown(cast, source_id)["refused"]
    assert all(row["lastAt"] == A_TIME for row in rows)
    return {row["reason"]: row["count"] for row in rows}


def test_each_reason_is_told_with_its_number(cast: Cast) -> None:
    body, old = b'{"a": 1}', str(int(time.time()) - 3600)
    source_id = add_source(cast, "stripe")
    good = signed("stripe", body)[1]
    for headers in (
        {},
        {},
        {"Stripe-Signature": f"t={int(time.time())},v1=00"},
        {"Stripe-Signature": f"t={old},v1=00"},
    ):
        assert post(source_id, body, headers).status_code == 401
    assert post(source_id, *signed("stripe", b"no JSON")).status_code == 400
    assert post(source_id, b"[]" * 200_000, good).status_code == 413
    EventSource.objects.update(enabled=False)
    assert post(source_id, *signed("stripe", body)).status_code == 401
    assert refused(cast, source_id) == {
        "unsigned": 2,
        "bad_signature": 1,
        "stale": 1,
        "malformed": 1,
        "too_large": 1,
        "disabled": 1,
    }
    latest = [row["reason"] for row in shown(cast, source_id)["refused"]]
    assert latest[0] == "disabled"
    listed = cast.client(cast.viewer).get(f"/api/v1/environments/{cast.environment.id}/sources")
    assert [row["refused"] for row in listed.json()["items"]] == [shown(cast, source_id)["refused"]]


@pytest.mark.parametrize("scheme", ["standard", "github", "gitlab", "slack", "bearer", "hmac"])
def test_a_request_without_a_signature_is_unsigned_under_every_scheme(
    cast: Cast, scheme: str
) -> None:
    hmac = {"header": "X-Signature", "prefix": "", "timestampHeader": None}
    source_id = add_source(cast, scheme, **({"hmac": hmac} if scheme == "hmac" else {}))
    post(source_id, b"{}", {})
    assert refused(cast, source_id) == {"unsigned": 1}


def test_what_a_source_signs_beyond_its_rate_is_told(
    cast: Cast, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.THROTTLES_ENABLED = True
    few = Buckets(Rate("few", limit=1, seconds=10_000), 2, most=10)
    monkeypatch.setattr(receiving, "_signed", few)
    source_id = add_source(cast)
    answers = [post(source_id, *signed("github", json.dumps(n).encode())) for n in range(5)]
    assert [answer.status_code for answer in answers] == [202, 202, 429, 429, 429]
    assert refused(cast, source_id) == {"too_many": 3}


def test_an_unknown_or_deleted_source_counts_nothing(cast: Cast) -> None:
    source_id = add_source(cast)
    cast.client(cast.admin).delete(f"/api/v1/sources/{source_id}")
    for unknown in (source_id, uuid4()):
        assert post(unknown, b"{}", {}).status_code == 401
        assert post(unknown, b"[]" * 200_000, {}).status_code == 413
    assert not RefusedRequest.objects.exists()
    assert not refusals._unwritten


def test_a_flood_is_counted_and_hardly_written(cast: Cast) -> None:
    source = {"source_id": add_source(cast), "environment_id": cast.environment.id}
    with CaptureQueriesContext(connection) as statements:
        for _ in range(500):
            refusals.count_refusal(source, Refusal.UNSIGNED)
    assert 20 <= len(statements) <= 25
    written = refused(cast, source["source_id"])["unsigned"]
    assert written + refusals._unwritten.total() == 500
    # A second later the next one takes along what is left.
    refusals._writes._buckets.clear()
    refusals.count_refusal(source, Refusal.UNSIGNED)
    assert refused(cast, source["source_id"]) == {"unsigned": 501}
    assert RefusedRequest.objects.count() in (1, 2)


def test_they_are_told_for_a_day_and_then_pruned(cast: Cast) -> None:
    source_id = add_source(cast)
    post(source_id, b"{}", {})
    RefusedRequest.objects.update(hour=F("hour") - timedelta(hours=23))
    assert refused(cast, source_id) == {"unsigned": 1}
    post(source_id, b"{}", {})
    assert refused(cast, source_id) == {"unsigned": 2}
    RefusedRequest.objects.filter(hour__lt=database_now() - timedelta(hours=2)).update(
        hour=F("hour") - timedelta(hours=1)
    )
    assert refused(cast, source_id) == {"unsigned": 1}
    (kind,) = (each for each in retentions() if each.kind == "refused-requests")
    assert sum(batch.removed for batch in prune(kind, days=1, limit=10)) == 1
    assert RefusedRequest.objects.count() == 1


@pytest.mark.parametrize("kept", [False, True])
def test_types_are_looked_up_and_no_event_is_read_for_each_that_came(
    cast: Cast, kept: bool
) -> None:
    source_id, now = add_source(cast), database_now()
    event = add_event(cast, source_id=source_id, type="push", received_at=now)
    add_copies(Event, event.id, 2_000)
    add_event(cast, source_id=source_id, type="ping", received_at=now - timedelta(days=1))
    prefer_indexes()
    with explained("SELECT s.id AS source_id", kept=kept) as plans:
        assert shown(cast, source_id)["typesSeen"] == ["push", "ping"]
    assert plans.rows_read("event") < 10


def test_the_types_of_two_weeks_are_told_the_latest_first(cast: Cast) -> None:
    source_id, other = add_source(cast), add_source(cast, name="Other")
    now = database_now()
    for kind, days in (("push", 1), ("push", 20), ("issues", 2), ("old", 15), ("fork", 13)):
        add_event(cast, source_id=source_id, type=kind, received_at=now - timedelta(days=days))
    add_event(cast, source_id=source_id, received_at=now)
    for number in range(60):
        at = now - timedelta(minutes=number)
        add_event(cast, source_id=other, type=f"kind {number:02}", received_at=at)
    assert shown(cast, source_id)["typesSeen"] == ["push", "issues", "fork"]
    assert shown(cast, other)["typesSeen"] == [f"kind {number:02}" for number in range(50)]


def test_recent_counts_what_was_taken_started_and_refused_by_hour(cast: Cast) -> None:
    source_id, other = add_source(cast), add_source(cast, name="Other")
    hour = database_now().replace(minute=0, second=0, microsecond=0)
    for hours, decisions in ((0, ("fired", "coalesced")), (0, ()), (3, ("filtered",)), (24, ())):
        at = hour - timedelta(hours=hours)
        event = add_event(cast, source_id=source_id, received_at=at)
        for decision in decisions:
            add_decision(event, cast.add_trigger(), decision)
    for hours in (3, 25):
        RefusedRequest.objects.create(
            environment=cast.environment, source_id=source_id, reason="stale", count=5000,
            hour=hour - timedelta(hours=hours), last_at=hour,
        )  # fmt: skip
    url = f"/api/v1/environments/{cast.environment.id}/sources"
    client = cast.client(cast.viewer)
    assert "recent" not in client.get(url).json()["items"][0]
    rows = {
        each["id"]: each["recent"]
        for each in client.get(url, {"include": "recent"}).json()["items"]
    }
    quiet = [0] * 24
    assert rows[str(other)] == {"taken": quiet, "started": quiet, "refused": quiet}
    recent = rows[str(source_id)]
    assert shown(cast, source_id)["recent"] == recent
    assert recent["taken"] == [*quiet[:20], 1, 0, 0, 2]
    assert recent["started"] == [*quiet[:23], 1]
    assert recent["refused"] == [*quiet[:20], refusals.MOST_IN_HOUR, 0, 0, 0]


def test_recent_reads_the_indexes_of_the_hours_alone(cast: Cast) -> None:
    source_id, now = add_source(cast), database_now()
    event = add_event(cast, source_id=source_id, received_at=now)
    add_decision(event, cast.trigger_id, "fired")
    add_copies(Event, event.id, 3_000, received_at="o.received_at - n * interval '5 minutes'")
    prefer_indexes()
    with explained("SELECT h.hour") as plans:
        taken = sum(shown(cast, source_id)["recent"]["taken"])
    assert 276 <= taken <= 288
    assert plans.rows_read("event") == taken
    assert plans.rows_read("event_decision") == 1
