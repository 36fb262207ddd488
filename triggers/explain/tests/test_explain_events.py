"""Explanations name the event that queued a run, and say why an event started nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testing.world.cast import Cast
from testing.world.events import add_event, add_source, listen
from testing.world.runs import Runs
from triggers.events.deciding import decide, decide_ends
from triggers.models import Event, EventDecision, Run, Trigger

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
DRAFT = [{"path": "/draft", "op": "eq", "value": False}]


def event(cast: Cast, source_id: Any, at: datetime = NOON, **body: Any) -> Event:
    values = {"source_id": source_id, "type": "pull_request", "received_at": at, "body": body}
    made = add_event(cast, **values)
    decide(made, now=at)
    return made


def explain(cast: Cast, user: Any, path: str, **query: Any) -> Any:
    answer = cast.client(user).get(f"/api/v1/{path}/explain", query)
    assert answer.status_code == 200
    return answer.json()


def last_event(cast: Cast, user: Any, at: datetime) -> Any:
    return explain(cast, user, f"triggers/{cast.trigger_id}", at=at.isoformat())["lastEvent"]


def test_the_run_of_an_event_is_explained_by_it(cast: Cast) -> None:
    source_id = add_source(cast)
    listen(cast.trigger_id, source_id=source_id)
    made = event(cast, source_id)
    run = Run.objects.get(trigger_id=cast.trigger_id)
    named = {
        "id": str(made.id),
        "type": "pull_request",
        "receivedAt": "2026-05-04T12:00:00.000Z",
        "source": {"type": "source", "id": str(source_id), "name": "Repository"},
        "runId": None,
    }
    assert explain(cast, cast.viewer, f"runs/{run.id}")["event"] == named
    assert last_event(cast, cast.viewer, NOON) == {
        "event": named,
        "decision": "fired",
        "code": None,
        "clause": None,
        "runId": str(run.id),
        "message": "The event pull_request from Repository of 2026-05-04 12:00 UTC queued a run.",
    }
    EventDecision.objects.all().delete()
    Event.objects.all().delete()
    assert explain(cast, cast.viewer, f"runs/{run.id}")["event"] is None


def test_the_run_of_a_chain_is_explained_by_the_run_that_ended(runs: Runs) -> None:
    cast, downstream = runs.cast, runs.cast.add_trigger()
    listen(downstream, upstream_id=runs.trigger_id, outcome="any")
    ended = runs.ended("failed")
    decide_ends()
    run = Run.objects.get(trigger_id=downstream)
    told = explain(cast, cast.viewer, f"runs/{run.id}")["event"]
    source = {"type": "trigger", "id": str(runs.trigger_id), "name": "Nightly report"}
    assert (told["type"], told["runId"], told["source"]) == ("failed", str(ended), source)
    told = explain(cast, cast.viewer, f"triggers/{downstream}", at="2026-05-04T12:00:00Z")
    assert told["message"].startswith("The trigger was made later")
    told = explain(cast, cast.viewer, f"triggers/{downstream}")
    assert told["message"] == (
        "The trigger has no schedule: it runs at events, and when somebody says so."
    )
    assert told["lastEvent"]["message"] == (
        "The end of a run of Nightly report of 2026-05-04 12:00 UTC queued a run."
    )


def test_why_the_event_of_noon_started_nothing(cast: Cast) -> None:
    source_id = add_source(cast)
    listen(cast.trigger_id, source_id=source_id, where=DRAFT)
    event(cast, source_id, draft=True)
    event(cast, source_id, NOON + timedelta(minutes=2))
    assert last_event(cast, cast.operator, NOON - timedelta(minutes=1)) is None
    told = last_event(cast, cast.operator, NOON)
    assert (told["decision"], told["clause"]) == ("filtered", {**DRAFT[0], "saw": "true"})
    beginning = "The event pull_request from Repository of 2026-05-04 12:00 UTC started nothing: "
    assert told["message"] == f"{beginning}/draft eq did not hold for true."
    # What the clause saw is a part of the payload, which viewers do not get.
    told = last_event(cast, cast.viewer, NOON)
    assert told["clause"] == {**DRAFT[0], "saw": None}
    assert told["message"] == f"{beginning}/draft eq did not hold."
    later = last_event(cast, cast.operator, NOON + timedelta(minutes=5))
    assert later["message"].endswith("12:02 UTC started nothing: /draft eq did not hold.")


@pytest.mark.parametrize(
    ("listener", "enabled", "words"),
    [
        ({"types": ["push"]}, True, 'started nothing: its type is "pull_request", which does not count'),
        ({}, False, "started nothing: it was refused with trigger_disabled"),
        ({"coalesce": {"path": "/id", "windowSeconds": 60, "keep": "all"}}, True,
         "joined a run that an earlier event had queued"),
    ],
)  # fmt: skip
def test_other_decisions_are_told_in_words(
    cast: Cast, listener: dict[str, Any], enabled: bool, words: str
) -> None:
    Trigger.objects.filter(id=cast.trigger_id).update(enabled=enabled)
    source_id = add_source(cast)
    listen(cast.trigger_id, source_id=source_id, **listener)
    event(cast, source_id, id=1)
    event(cast, source_id, NOON + timedelta(seconds=1), id=1)
    told = last_event(cast, cast.viewer, NOON + timedelta(minutes=1))
    assert told["message"].endswith(f"12:00 UTC {words}.")
