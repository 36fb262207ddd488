"""GET /triggers/:id/explain: what became, or will become, of a due time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipedai.api.renderers import iso_time
from pipedai.server.memory_budget import HOLDING, Holding, MemoryBudget
from pipedai.sql import database_now
from testing.probes.shapes import A_TIME, invalid
from testing.probes.statement_count import counted
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.runs import Runs
from triggers.explain.answers import TriggerExplanation
from triggers.explain.due_times import explain_trigger, why_no_run
from triggers.models import Run, SchedulerHeartbeat, Tick, Trigger, TriggerHealth
from triggers.schedules.firing import fire_due_ticks
from triggers.states import Decision

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def hours(number: float) -> datetime:
    return NOON + timedelta(hours=number)


def change(cast: Cast, **columns: Any) -> None:
    Trigger.objects.filter(id=cast.trigger_id).update(**columns)


@pytest.fixture
def hourly(cast: Cast) -> Cast:
    """The trigger is hourly since 05:00. It missed 05:00 to 11:00, fired at 12:00, and had no worker at 13:00 to 15:00.
    It was made at 04:30.
    """
    change(
        cast,
        schedule="0 * * * *",
        created_at=hours(-7.5),
        updated_at=hours(-7.5),
        next_run_at=hours(-7),
    )
    fire_due_ticks(now=NOON)
    change(cast, worker_id=None)
    for number in (1, 2, 3):
        fire_due_ticks(now=hours(number))
    return cast


def explain(cast: Cast, at: datetime | None, now: datetime = NOON) -> TriggerExplanation:
    told = explain_trigger(cast.trigger_id, at=at, now=now)
    assert told is not None
    return told


def get(cast: Cast, **query: Any) -> Any:
    return cast.client(cast.viewer).get(f"/api/v1/triggers/{cast.trigger_id}/explain", query)


def test_a_due_time_that_fired_is_told_with_its_run(hourly: Cast) -> None:
    run_id = str(Run.objects.get(source="schedule").id)
    answer = get(hourly, at="2026-05-04T12:30:00Z")
    assert answer.status_code == 200
    told = answer.json()
    assert told | {"message": "", "run": {}} == {
        "at": "2026-05-04T12:30:00.000Z",
        "decision": "fired",
        "message": "",
        "dueAt": "2026-05-04T12:00:00.000Z",
        "tick": {
            "tickAt": "2026-05-04T12:00:00.000Z", "decision": "fired", "runId": run_id,
            "blockedByRunId": None, "missedCount": 0, "decidedAt": "2026-05-04T12:00:00.000Z",
        },
        "run": {},
        "previousDueAt": "2026-05-04T11:00:00.000Z",
        "nextDueAt": "2026-05-04T13:00:00.000Z",
        "healthMessage": None,
        "lastEvent": None,
        "times": [{"words": "2026-05-04 12:00 UTC", "at": "2026-05-04T12:00:00.000Z"}],
    }  # fmt: skip
    assert told["run"]["runId"] == run_id
    assert told["run"]["waitingFor"][0]["code"] == "worker_offline"
    assert told["message"] == (
        "2026-05-04 12:00 UTC was due and made a run. The run: Machine host-1 has never called."
    )


@cases(
    ("at", "due", "before", "after", "decision", "words"),
    [
        (-6.5, -7, None, -6, "skipped_missed", "no scheduler was running"),
        (-3, -3, -4, -2, "skipped_missed", "one of 7 due times from 2026-05-04 05:00 UTC to"),
        (-0.01, -1, -2, 0, "skipped_missed", "it was too late for this due time"),
        (1, 1, 0, 2, "skipped_no_worker", "because the trigger had neither a machine nor a pool"),
        (2.5, 2, 1, 3, "skipped_no_worker", "one of 3 due times"),
        (3, 3, 2, 4, "skipped_no_worker", "13:00 UTC to 2026-05-04 15:00 UTC"),
    ],
    undone=True,
)
def test_a_row_may_stand_for_several_due_times(
    hourly: Cast, at: float, due: float, before: float | None, after: float, decision: str, words: str
) -> None:  # fmt: skip
    told = explain(hourly, hours(at), now=hours(3.2))
    assert (told.decision, told.due_at) == (decision, hours(due))
    assert words in told.message
    assert told.next_due_at == hours(after)
    assert told.previous_due_at == (None if before is None else hours(before))


def test_an_overlap_is_told(hourly: Cast) -> None:
    change(hourly, worker_id=hourly.worker.worker_id, overlap_policy="skip")
    fire_due_ticks(now=hours(4))
    told = explain(hourly, None, now=hours(4))
    assert (told.decision, told.at, told.run) == ("skipped_overlap", hours(4), None)
    blocking = Run.objects.get(source="schedule").id
    assert "because an earlier run of the trigger had not ended" in told.message
    assert f"The earlier run is {blocking}." in told.message


def test_each_decision_without_a_run_has_a_reason_in_words() -> None:
    for decision in Decision:
        named = "decided" in why_no_run(decision)
        assert named == (decision is Decision.FIRED), decision
    assert why_no_run("skipped_by_newer_code") == "a scheduler decided skipped_by_newer_code"


def test_a_coming_due_time_is_pending(hourly: Cast) -> None:
    told = explain(hourly, hours(30.5), now=hours(3.2))
    assert (told.decision, told.due_at, told.tick) == ("pending", hours(30), None)
    assert (told.previous_due_at, told.next_due_at) == (hours(29), hours(31))
    assert told.message == (
        "2026-05-05 18:00 UTC has not come yet. It makes no run without a machine or a pool."
    )


def test_a_due_time_that_nobody_decides_about_says_that_no_scheduler_is_alive(hourly: Cast) -> None:
    SchedulerHeartbeat.objects.all().delete()
    told = explain(hourly, None, now=hours(4) + timedelta(seconds=30))
    assert (told.decision, told.due_at, told.previous_due_at) == ("pending", hours(4), hours(3))
    assert told.message.endswith("a scheduler will decide about it in a moment.")
    late = hours(4) + timedelta(seconds=90)
    assert explain(hourly, None, now=late).message == (
        "2026-05-04 16:00 UTC is late, because no scheduler is alive: start one"
        " (manage.py runscheduler)."
    )
    SchedulerHeartbeat.objects.create(host="h", pid=1, beat_at=late - timedelta(minutes=5))
    assert "no scheduler is alive since 2026-05-04 15:56 UTC" not in explain(hourly, None).message
    assert "no scheduler is alive since 15:56 UTC" in explain(hourly, None, now=late).message
    SchedulerHeartbeat.objects.update(beat_at=late - timedelta(seconds=5))
    assert "a scheduler is alive, but has not come to it yet" in (
        explain(hourly, None, now=late).message
    )


def test_a_time_before_the_trigger_was_made_is_not_scheduled(hourly: Cast) -> None:
    told = explain(hourly, hours(-8))
    assert (told.decision, told.due_at, told.next_due_at) == ("not_scheduled", None, hours(-7))
    assert told.message == "The trigger was made later, at 04:30 UTC."


def test_a_time_before_the_first_due_time_is_not_scheduled(hourly: Cast) -> None:
    Tick.objects.all().delete()
    change(hourly, created_at=hours(3.1), next_run_at=hours(4))
    told = explain(hourly, hours(3.5), now=hours(3.6))
    assert told.decision == "not_scheduled"
    assert told.message == "No time was due before: the first one is 2026-05-04 16:00 UTC."


def test_a_time_before_the_schedule_was_set_is_not_scheduled(hourly: Cast) -> None:
    change(hourly, schedule="30 * * * *", next_run_at=hours(6.5), updated_at=hours(6))
    told = explain(hourly, hours(5.75), now=hours(6.1))
    assert (told.decision, told.due_at) == ("not_scheduled", hours(5.5))
    assert "nothing was decided about it" in told.message
    assert (told.previous_due_at, told.next_due_at) == (hours(3), hours(6.5))


def test_what_an_earlier_schedule_did_is_still_told(hourly: Cast) -> None:
    change(hourly, schedule=None, next_run_at=None, updated_at=hours(6))
    assert explain(hourly, hours(0.5), now=hours(6.1)).decision == "fired"
    told = explain(hourly, None, now=hours(6.1))
    assert (told.decision, told.previous_due_at) == ("not_scheduled", hours(3))
    assert told.message == "The trigger has no schedule: it runs only when somebody says so."


def test_a_former_schedule_is_told_where_the_present_one_has_not_come_yet(hourly: Cast) -> None:
    change(hourly, schedule="0 0 1 1 *", next_run_at=datetime(2100, 1, 1, tzinfo=UTC))
    told = explain(hourly, None, now=hours(6.1))
    assert (told.decision, told.due_at) == ("skipped_no_worker", hours(3))
    assert told.next_due_at == datetime(2100, 1, 1, tzinfo=UTC)


def test_a_run_that_was_made_late_is_told_so(cast: Cast) -> None:
    change(cast, schedule="0 * * * *", created_at=hours(-1), next_run_at=hours(0))
    fire_due_ticks(now=hours(0.7))
    assert explain(cast, None, now=hours(0.9)).message.startswith(
        "2026-05-04 12:00 UTC was due and made a run late, at 12:42 UTC: no scheduler had come to it before."
    )


@cases(
    ("schedule", "at", "due"),
    [
        ("30 2 * * *", "2026-03-29T00:59", "2026-03-28T01:30"),
        ("30 2 * * *", "2026-03-29T01:10", "2026-03-29T01:00"),
        ("30 2 * * *", "2026-10-25T01:45", "2026-10-25T00:30"),
        ("*/30 * * * *", "2026-10-25T01:45", "2026-10-25T01:30"),
    ],
    undone=True,
)
def test_the_clock_changes_of_the_zone_count(cast: Cast, schedule: str, at: str, due: str) -> None:
    at_, due_ = (datetime.fromisoformat(each).replace(tzinfo=UTC) for each in (at, due))
    change(
        cast,
        schedule=schedule,
        timezone="Europe/Berlin",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        next_run_at=due_,
    )
    fire_due_ticks(now=due_)
    told = explain(cast, at_, now=at_)
    assert (told.decision, told.due_at) == ("fired", due_)


def test_a_disabled_trigger_says_so_and_still_tells_its_past(hourly: Cast) -> None:
    change(hourly, enabled=False, next_run_at=None, updated_at=hours(3.5))
    told = explain(hourly, None, now=hours(9.2))
    assert (told.decision, told.due_at, told.next_due_at) == ("disabled", hours(9), None)
    assert explain(hourly, hours(2), now=hours(9.2)).decision == "skipped_no_worker"


def test_a_deleted_trigger_is_told_of_to_staff_alone(hourly: Cast) -> None:
    change(hourly, deleted_at=hours(3.5), next_run_at=None)
    told = explain(hourly, None, now=hours(9.2))
    assert (told.decision, told.message) == (
        "not_scheduled",
        "The trigger was deleted at 15:30 UTC.",
    )
    assert get(hourly).status_code == 404


def test_a_schedule_whose_zone_is_gone_is_told(hourly: Cast) -> None:
    change(hourly, timezone="Mars/Olympus")
    told = explain(hourly, hours(9), now=hours(9.2))
    assert told.decision == "pending"
    assert "can't be worked out" in told.message


def test_times_are_told_in_the_schedule_s_zone_too(hourly: Cast) -> None:
    change(hourly, timezone="Europe/Berlin")
    assert explain(hourly, hours(0.5)).message.startswith(
        "2026-05-04 12:00 UTC (14:00 in Europe/Berlin) was due and made a run."
    )


def test_a_trigger_made_through_the_api_waits_for_its_first_due_time(cast: Cast) -> None:
    admin = cast.client(cast.admin)
    url = f"/api/v1/triggers/{cast.trigger_id}"
    assert admin.patch(url, {"schedule": "0 0 1 1 *"}).status_code == 200
    told = get(cast).json()
    assert (told["decision"], told["dueAt"], told["nextDueAt"]) == ("not_scheduled", None, A_TIME)
    assert admin.patch(url, {"enabled": False}).json()["nextRunAt"] is None
    assert get(cast).json()["decision"] == "disabled"


@cases(
    ("at", "words"),
    [
        ("yesterday", "Must be an ISO 8601 time"),
        ("2026-05-04T14:00:00 02:00", "write the + of the offset as %2B"),
        ("9999-12-31T00:00:00Z", "Must be at most 366 days ahead."),
    ],
    undone=True,
)
def test_a_bad_time_is_a_field_error(cast: Cast, at: str, words: str) -> None:
    answer = get(cast, at=at)
    assert answer.status_code == 400
    (message,) = answer.json()["details"]["fieldErrors"]["at"]
    assert words in message
    assert answer.json()["error"] == invalid()["error"]


@cases(
    ("at", "meant"),
    [
        ("2026-05-04T18:00", hours(0.5)),
        ("2026-05-04T18:00Z", hours(6)),
        ("2026-05-04", hours(-17.5)),
    ],
    undone=True,
)
def test_a_bare_time_is_in_the_triggers_zone(cast: Cast, at: str, meant: datetime) -> None:
    change(cast, timezone="Asia/Kolkata")
    assert get(cast, at=at).json()["at"] == iso_time(meant)


def test_a_bare_time_that_has_no_moment_is_a_field_error(cast: Cast) -> None:
    change(cast, timezone="Asia/Kolkata")
    assert get(cast, at="0001-01-01T00:00").status_code == 400


def test_an_explanation_takes_few_statements_however_many_ticks_there_are(hourly: Cast) -> None:
    with counted() as few:
        explain(hourly, hours(2), now=hours(3.2))
    for number in range(5, 40):
        change(hourly, worker_id=hourly.worker.worker_id if number % 2 else None)
        fire_due_ticks(now=hours(number))
    with counted() as many:
        explain(hourly, hours(38), now=hours(39.2))
    assert len(few) == len(many) == 4


def test_the_time_is_now_unless_one_is_asked_about(runs: Runs) -> None:
    told = explain_trigger(runs.trigger_id)
    assert told is not None
    assert abs(told.at - database_now()) < timedelta(minutes=1)
    assert explain_trigger(runs.queue()) is None


def test_an_environment_has_two_explanations_worked_out_at_a_time(cast: Cast) -> None:
    """Those of runs and of triggers count together, whoever asks for them."""
    run_id = Runs.of(cast).queue()
    held = [Holding(MemoryBudget(), f"192.0.2.{n}") for n in range(3)]

    def ask(who: Any, of: str, under_way: Holding, **query: str) -> Any:
        extra: Any = {"asgi.scope": {HOLDING: under_way}}
        return who.get(f"/api/v1/{of}/explain", query, **extra)

    viewer, operator = cast.client(cast.viewer), cast.client(cast.operator)
    run, trigger = f"runs/{run_id}", f"triggers/{cast.trigger_id}"
    assert ask(viewer, run, held[0]).status_code == 200
    assert ask(operator, trigger, held[1]).status_code == 200
    for who, of in ((viewer, run), (viewer, trigger), (operator, run)):
        refused = ask(who, of, held[2])
        assert (refused.status_code, refused["Retry-After"]) == (429, "1")
        assert refused.json()["code"] == "throttled"
    held[0].leave()
    # A mistake takes no place.
    assert ask(viewer, trigger, held[2], at="noon").status_code == 400
    assert ask(viewer, trigger, held[2]).status_code == 200
    for each in held[1:]:
        each.leave()


def test_what_is_said_of_its_health_is_about_that_and_not_about_the_due_time(hourly: Cast) -> None:
    trigger = Trigger.objects.get(id=hourly.trigger_id)
    judged = TriggerHealth.objects.update_or_create

    def said(**health: Any) -> Any:
        told = {"environment_id": trigger.environment_id, "has_outcome": True, **health}
        judged(trigger_id=trigger.id, defaults=told)
        return get(hourly, at="2026-05-04T12:30:00Z").json()["healthMessage"]

    assert said() is None
    assert said(is_failing=True, failures=1) == "Its last outcome failed or timed out."
    assert said(failures=3) == "Its last 3 outcomes failed or timed out."
    since = datetime(2026, 5, 4, 11, tzinfo=UTC)
    late = "No run has succeeded in time since 2026-05-04 11:00 UTC was due."
    assert said(is_failing=False, failures=0, late_since=since) == late
    Trigger.objects.update(enabled=False, next_run_at=None)
    assert said() is None
