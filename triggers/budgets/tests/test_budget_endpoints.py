"""The endpoints of budgets: what a body may say, and what is answered."""

import pytest

from pipedai.ids import new_id
from testing.probes.shapes import A_TIME, AN_ID, invalid
from testing.world.budgets import add_budget
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.runs import Runs
from triggers.models import Budget

LEAST = {"name": "Everything", "period": "month", "limitRuns": 5}


@pytest.fixture
def owner(cast: Cast):
    return cast.client(cast.owner)


def url(cast: Cast) -> str:
    return f"/api/v1/environments/{cast.environment.id}/budgets"


def test_a_minimal_body_makes_a_budget_that_counts_and_tells(cast: Cast, owner) -> None:
    response = owner.post(url(cast), LEAST)
    assert response.status_code == 201
    shown = response.json()
    window = shown.pop("window")
    assert window["startsAt"].endswith("-01T00:00:00.000Z")
    assert window["endsAt"].endswith("-01T00:00:00.000Z")
    assert shown == {
        "id": AN_ID,
        "key": None,
        "managedBy": None,
        "environmentId": str(cast.environment.id),
        "name": "Everything",
        "triggerId": None,
        "triggerName": None,
        "period": "month",
        "timezone": "UTC",
        "limitUsd": None,
        "limitRuns": 5,
        "whenReached": "hold",
        "noticeAtPct": [80, 100],
        "reserveUsd": "1",
        "countNotional": True,
        "spentUsd": "0",
        "reservedUsd": "0",
        "notionalUsd": "0",
        "runs": 0,
        "remainingUsd": None,
        "createdAt": A_TIME,
        "updatedAt": A_TIME,
    }
    assert owner.get(url(cast)).json()["items"][0]["id"] == shown["id"]


def test_every_field_is_kept(cast: Cast, owner) -> None:
    body = {
        "name": "One trigger",
        "triggerId": str(cast.trigger_id),
        "period": "day",
        "timezone": "Europe/Berlin",
        "limitUsd": "12.345678",
        "limitRuns": 5,
        "whenReached": "reject",
        "noticeAtPct": [100, 50, 50],
        "reserveUsd": "0",
        "countNotional": False,
    }
    shown = owner.post(url(cast), body).json()
    expected = {**body, "noticeAtPct": [50, 100]}
    assert {name: shown[name] for name in body} == expected
    assert shown["remainingUsd"] == "12.345678"


def test_money_may_be_a_number(cast: Cast, owner) -> None:
    assert owner.post(url(cast), {**LEAST, "limitUsd": 0.1}).json()["limitUsd"] == "0.1"


BAD = [
    ("period", "week", "valid choice"),
    ("timezone", "Mars/Olympus", "time zone"),
    ("limitUsd", -1, "at least 0"),
    ("limitUsd", "1e3", "decimal string"),
    ("limitUsd", "1.0000001", "six decimal places"),
    ("limitUsd", 100_000_000, "at most"),
    ("limitUsd", True, "decimal string"),
    ("limitUsd", "NaN", "decimal string"),
    ("limitUsd", "Infinity", "decimal string"),
    ("limitUsd", "9" * 400, "decimal string"),
    ("limitUsd", 5e-324, "six decimal places"),
    ("limitUsd", {}, "decimal string"),
    ("limitRuns", 1.5, "whole number"),
    ("limitRuns", True, "whole number"),
    ("timezone", "../../etc/passwd", "time zone"),
    ("timezone", "", "blank"),
    ("noticeAtPct", None, "null"),
    ("noticeAtPct", 80, "list"),
    ("noticeAtPct.0", ["80%"], "whole number"),
    ("countNotional", None, "null"),
    ("countNotional", "maybe", ""),
    ("limitRuns", -1, "greater than or equal to 0"),
    ("limitRuns", 2**31, "less than or equal"),
    ("whenReached", "explode", "valid choice"),
    ("noticeAtPct.0", [0], "greater than or equal to 1"),
    ("noticeAtPct.0", [101], "less than or equal to 100"),
    ("noticeAtPct", [1] * 21, "no more than 20"),
    ("reserveUsd", None, "null"),
    ("triggerId", "01a20e61-c514-76e5-95ec-d118442f6f65", "No such trigger"),
    ("limit", 1, "Unknown field"),
]


@cases(("field", "value", "says"), BAD, undone=True)
def test_what_a_body_may_not_say(cast: Cast, owner, field, value, says) -> None:
    name = field.partition(".")[0]
    for call, where in (
        (owner.post, url(cast)),
        (owner.patch, f"/api/v1/budgets/{add_budget(cast).id}"),
    ):
        response = call(where, {**LEAST, name: value})
        assert response.status_code == 400
        assert says in str(response.json()["details"]["fieldErrors"][field])


def test_the_trigger_of_another_environment_is_as_one_that_does_not_exist(cast, owner) -> None:
    stranger = cast.client(cast.stranger)
    there = f"/api/v1/environments/{cast.strange_environment.id}/triggers"
    foreign = stranger.post(
        there, {"name": "T", "prompt": "P", "mcpUrl": "https://mcp.example/"}
    ).json()["id"]
    answers = [
        owner.post(url(cast), {**LEAST, "triggerId": id_}).json()["details"]
        for id_ in (foreign, str(new_id()))
    ]
    assert answers[0] == answers[1]


def test_a_change_keeps_what_it_does_not_name(cast: Cast, owner) -> None:
    budget = add_budget(cast, limit_usd="5", limit_runs=3, notice_at_pct=[10])
    shown = owner.patch(f"/api/v1/budgets/{budget.id}", {"limitUsd": None}).json()
    assert (shown["limitUsd"], shown["noticeAtPct"]) == (None, [10])
    owner.patch(f"/api/v1/budgets/{budget.id}", {"name": shown["name"]})
    assert owner.get(f"/api/v1/budgets/{budget.id}").json()["updatedAt"] == shown["updatedAt"]


def test_a_budget_has_a_limit(cast: Cast, owner) -> None:
    refused = invalid({"limitUsd": ["Give a limit in US dollars, a limit of runs, or both."]})
    assert owner.post(url(cast), {**LEAST, "limitRuns": None}).json() == refused
    budget = f"/api/v1/budgets/{add_budget(cast, limit_usd='5').id}"
    assert owner.patch(budget, {"limitUsd": None}).json() == refused
    assert owner.patch(budget, {"limitUsd": None, "limitRuns": 0}).status_code == 200


def test_a_deleted_budget_is_gone(cast: Cast, owner) -> None:
    budget = add_budget(cast)
    assert owner.delete(f"/api/v1/budgets/{budget.id}").status_code == 204
    assert owner.get(f"/api/v1/budgets/{budget.id}").status_code == 404
    assert owner.get(url(cast)).json()["items"] == []
    assert Budget.objects.count() == 1


def test_there_is_a_ceiling(cast: Cast, owner, ceilings: dict[str, int]) -> None:
    ceilings["budgets"] = 1
    add_budget(cast)
    response = owner.post(url(cast), LEAST)
    assert (response.status_code, response.json()["ceiling"]) == (409, "budgets")


def test_what_was_used_is_shown_and_never_less_than_nothing_is_left(cast, owner, runs) -> None:
    from pipedai.sql import database_now

    runs.now = database_now()
    budget = add_budget(cast, limit_usd="1.5")
    runs.ended(costUsd="0.25")
    runs.claimed()
    shown = owner.get(f"/api/v1/budgets/{budget.id}").json()
    money = ("spentUsd", "reservedUsd", "notionalUsd", "remainingUsd", "runs")
    assert [shown[name] for name in money] == ["0.25", "1", "0.25", "0.25", 2]
    owner.patch(f"/api/v1/budgets/{budget.id}", {"limitUsd": "0.1", "countNotional": False})
    shown = owner.get(f"/api/v1/budgets/{budget.id}").json()
    assert [shown[name] for name in money] == ["0", "0", "0.25", "0.1", 2]
    owner.patch(f"/api/v1/budgets/{budget.id}", {"countNotional": True})
    assert owner.get(f"/api/v1/budgets/{budget.id}").json()["remainingUsd"] == "0"


@cases("when_reached", ["hold", "reject", "notify"], undone=True)
def test_only_a_budget_that_rejects_refuses_requests_for_runs(cast, owner, when_reached) -> None:
    ended = Runs.of(cast).ended()
    add_budget(cast, limit_usd="0", when_reached=when_reached)
    run = owner.post(f"/api/v1/triggers/{cast.trigger_id}/run", {}, HTTP_IDEMPOTENCY_KEY="k")
    rerun = owner.post(f"/api/v1/runs/{ended}/rerun", {})
    if when_reached == "reject":
        assert {run.status_code, rerun.status_code} == {409}
        assert {run.json()["code"], rerun.json()["code"]} == {"budget_exhausted"}
        Budget.objects.update(limit_usd=100)
        again = owner.post(f"/api/v1/triggers/{cast.trigger_id}/run", {}, HTTP_IDEMPOTENCY_KEY="k")
        assert again.status_code == 201
    else:
        assert {run.status_code, rerun.status_code} == {201}


def test_a_poll_tells_the_cap_and_a_claim_without_room_is_a_conflict(cast: Cast, owner) -> None:
    owner.patch(f"/api/v1/triggers/{cast.trigger_id}", {"maxCostUsd": "2.50"})
    run = owner.post(f"/api/v1/triggers/{cast.trigger_id}/run", {}).json()["id"]
    worker, home = cast.worker_client(), f"/api/v1/workers/{cast.worker.worker_id}"
    assert worker.get(f"{home}/poll").json()["runs"][0]["maxCostUsd"] == "2.5"
    add_budget(cast, limit_usd="2.49")
    assert worker.get(f"{home}/poll").json()["runs"] == []
    response = worker.post(f"{home}/runs/{run}/claim", {})
    assert response.status_code == 409
    assert response.json()["code"] == "budget_exhausted"
    assert response.json()["status"] == "queued"


@cases("number", ["1e400", "-1e400", "NaN", "Infinity", "1" * 400, "1" * 5000], undone=True)
def test_numbers_that_json_does_not_have_are_refused(cast: Cast, owner, number) -> None:
    body = '{"name": "B", "period": "day", "limitUsd": ' + number + "}"
    response = owner.generic("POST", url(cast), body, content_type="application/json")
    assert response.status_code == 400


def test_a_budget_can_not_be_given_a_trigger_that_was_deleted(cast: Cast, owner) -> None:
    trigger_id = cast.add_trigger()
    owner.delete(f"/api/v1/triggers/{trigger_id}")
    response = owner.post(url(cast), {**LEAST, "triggerId": str(trigger_id)})
    assert "No such trigger" in str(response.json()["details"]["fieldErrors"]["triggerId"])
