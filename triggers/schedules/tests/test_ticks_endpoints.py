"""GET /triggers/:id/ticks and POST /environments/:envId/schedule-preview."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipedai.retention import Order
from testing.probes.shapes import A_CURSOR, A_TIME, invalid, page
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.runs import Runs
from testing.world.throttles import check_one_at_a_time
from triggers.models import Run, Tick, Trigger
from triggers.pruning import prune_runs
from triggers.schedules import views
from triggers.schedules.firing import fire_due_ticks

NOON = datetime(2100, 5, 4, 12, tzinfo=UTC)


def ticks(cast: Cast, **query: Any) -> Any:
    return cast.client(cast.viewer).get(f"/api/v1/triggers/{cast.trigger_id}/ticks", query)


def preview(cast: Cast, **body: Any) -> Any:
    client = cast.client(cast.viewer)
    return client.post(f"/api/v1/environments/{cast.environment.id}/schedule-preview", body)


@pytest.fixture
def _fired(cast: Cast) -> None:
    """Makes an hourly trigger that missed its ticks of 5 to 11, fired at 12, and had no worker at 13 and 14."""
    triggers = Trigger.objects.filter(id=cast.trigger_id)
    triggers.update(schedule="0 * * * *", next_run_at=NOON - timedelta(hours=7))
    fire_due_ticks(now=NOON)
    triggers.update(worker_id=None)
    for hours in (1, 2):
        fire_due_ticks(now=NOON + timedelta(hours=hours))


@pytest.mark.usefixtures("_fired")
def test_ticks_are_listed_newest_first_with_what_was_decided(cast: Cast) -> None:
    run_id = str(Run.objects.get(source="schedule").id)
    answer = ticks(cast)
    assert answer.status_code == 200
    assert answer.json() == page(
        {
            "tickAt": "2100-05-04T13:00:00.000Z", "decision": "skipped_no_worker", "runId": None,
            "blockedByRunId": None, "missedCount": 2, "decidedAt": "2100-05-04T13:00:00.000Z",
        },
        {
            "tickAt": "2100-05-04T12:00:00.000Z", "decision": "fired", "runId": run_id,
            "blockedByRunId": None, "missedCount": 0, "decidedAt": "2100-05-04T12:00:00.000Z",
        },
        {
            "tickAt": "2100-05-04T05:00:00.000Z", "decision": "skipped_missed", "runId": None,
            "blockedByRunId": None, "missedCount": 7, "decidedAt": "2100-05-04T12:00:00.000Z",
        },
    )  # fmt: skip


@pytest.mark.usefixtures("_fired")
def test_ticks_come_in_pages(cast: Cast) -> None:
    first = ticks(cast, limit=2).json()
    assert first["nextCursor"] == A_CURSOR
    rest = ticks(cast, limit=2, cursor=first["nextCursor"]).json()
    assert [len(first["items"]), len(rest["items"]), rest["nextCursor"]] == [2, 1, None]
    assert rest["items"][0]["decision"] == "skipped_missed"


@pytest.mark.usefixtures("_fired")
def test_ticks_are_filtered_by_decision_and_due_time(cast: Cast) -> None:
    def hours(**query: Any) -> list[int]:
        items = ticks(cast, **query).json()["items"]
        return [datetime.fromisoformat(item["tickAt"]).hour for item in items]

    assert hours(decision="fired") == [12]
    assert hours(decision="skipped_missed,skipped_no_worker,fired") == [13, 12, 5]
    assert hours(**{"from": "2100-05-04T12:00:00Z"}) == [13, 12]
    assert hours(to="2100-05-04T12:00:00Z", decision=["fired", "skipped_missed"]) == [5]
    assert hours(decision="skipped_overlap") == []
    first = ticks(cast, decision="fired,skipped_missed", to="2101-01-01", limit=1).json()
    again = {"decision": "fired,skipped_missed", "to": "2101-01-01", "cursor": first["nextCursor"]}
    assert hours(**again) == [5]
    refused = ticks(cast, decision="lost", to="x", **{"from": "x"}).json()
    assert set(refused["details"]["fieldErrors"]) == {"decision", "from", "to"}
    assert ticks(cast, cursor=first["nextCursor"]).status_code == 400


def test_a_tick_that_an_unfinished_run_blocked_names_the_first_of_them(cast: Cast) -> None:
    Trigger.objects.filter(id=cast.trigger_id).update(
        schedule="0 * * * *", next_run_at=NOON, overlap_policy="skip"
    )
    runs = Runs(cast, cast.trigger_id, now=NOON - timedelta(hours=3))
    first = runs.queue()
    runs.wait(hours=1)
    runs.queue()
    fire_due_ticks(now=NOON)
    (item,) = ticks(cast).json()["items"]
    assert (item["decision"], item["blockedByRunId"]) == ("skipped_overlap", str(first))
    runs.cancel(first)
    assert sum(batch.removed for batch in prune_runs(Order(NOON - timedelta(hours=1), 10))) == 1
    assert Tick.objects.get().blocked_by_id is None


def test_a_trigger_without_ticks_has_an_empty_list(cast: Cast) -> None:
    assert ticks(cast).json() == page()


def test_a_preview_says_in_words_and_times_what_a_schedule_does(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "database_now", lambda: datetime(2026, 3, 27, 20, tzinfo=UTC))
    answer = preview(cast, schedule="30 2 * * *", timezone="Europe/Berlin", count=3)
    assert answer.status_code == 200
    assert answer.json() == {
        "description": "At 02:30",
        "times": [
            {"at": "2026-03-28T01:30:00.000Z", "note": None},
            {
                "at": "2026-03-29T01:00:00.000Z",
                "note": "Clocks go forward: there is no 02:30 on 2026-03-29. It fires at 03:00.",
            },
            {"at": "2026-03-30T00:30:00.000Z", "note": None},
        ],
    }


def test_a_preview_has_the_single_due_time_among_the_others(cast: Cast) -> None:
    schedule = {"schedule": "0 9 * * *", "count": 3}
    nine, following, _ = (each["at"] for each in preview(cast, **schedule).json()["times"])
    early = nine.replace("T09:00", "T08:59")
    # A time that both name is one due time, and all due times are whole minutes.
    for once, times in (
        (following, [nine, following]),
        (nine.replace("T09:00:00", "T08:58:07"), [early, nine]),
    ):
        answer = preview(cast, **schedule | {"count": 2}, runOnceAt=once).json()
        assert (answer["description"], [each["at"] for each in answer["times"]]) == (
            "At 09:00",
            times,
        )
    alone = preview(cast, runOnceAt=following).json()
    assert alone == {"description": None, "times": [{"at": following, "note": None}]}


def test_a_preview_shows_ten_times_in_utc_unless_told_otherwise(cast: Cast) -> None:
    times = preview(cast, schedule="0 9 * * MON").json()["times"]
    assert times == [{"at": A_TIME, "note": None}] * 10
    assert all("T09:00" in time["at"] for time in times)


@cases(
    ("body", "field", "message"),
    [
        ({}, "schedule", "required without a runOnceAt"),
        ({"runOnceAt": "2026-01-01T00:00:00Z"}, "runOnceAt", "Must be in the future"),
        ({"schedule": "0 9 * *"}, "schedule", "Needs the 5 fields"),
        (
            {"schedule": "61 9 * * *"},
            "schedule",
            "minute field '61' is not valid. It takes 0 to 59, *, ranges",
        ),
        ({"schedule": "0 9 L * *"}, "schedule", "not crontab(5)"),
        ({"schedule": "@daily"}, "schedule", "Needs the 5 fields"),
        ({"schedule": "0 9 30 2 *"}, "schedule", ""),
        (
            {"schedule": "*/30 2 25-31 3 */7", "timezone": "Europe/Berlin"},
            "schedule",
            "It never comes due: clocks go forward over each of its times.",
        ),
        ({"schedule": "0 9 * * *", "timezone": "Europe/Atlantis"}, "timezone", "IANA"),
        ({"schedule": "0 9 * * *", "timezone": "localtime"}, "timezone", "IANA"),
        ({"schedule": "0 9 * * *", "count": 0}, "count", "1"),
        ({"schedule": "0 9 * * *", "count": 101}, "count", "100"),
        ({"schedule": "0 9 * * *", "count": "ten"}, "count", ""),
    ],
    undone=True,
)
def test_a_preview_of_nonsense_is_a_field_error(
    cast: Cast, body: dict[str, Any], field: str, message: str
) -> None:
    answer = preview(cast, **body)
    assert answer.status_code == 400
    errors = answer.json()["details"]["fieldErrors"]
    assert answer.json() == invalid({field: errors[field]})
    assert message in errors[field][0]


def test_a_preview_can_hold_a_hundred_times(cast: Cast) -> None:
    assert len(preview(cast, schedule="* * * * *", count=100).json()["times"]) == 100


def test_an_environment_has_one_preview_worked_out_at_a_time(cast: Cast) -> None:
    client = cast.client(cast.viewer)
    url = f"/api/v1/environments/{cast.environment.id}/schedule-preview"

    def ask(**extra: Any) -> Any:
        return client.post(url, {"schedule": "0 9 * * *"}, **extra)

    check_one_at_a_time(ask)


def test_an_environment_has_only_so_many_previews_a_minute(cast: Cast, settings) -> None:
    settings.THROTTLES_ENABLED = True
    answers = [preview(cast, schedule="0 9 * * *").status_code for _ in range(121)]
    assert answers == [200] * 120 + [429]
