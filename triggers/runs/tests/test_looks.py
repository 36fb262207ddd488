"""A run whose trigger has `before` looks first, and ends without its agent if nothing is new; `carry` gives it the last
output.
"""

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from pipedai.sql import database_now
from testing.processes.worker_calls import WorkerCalls
from testing.world.budgets import add_budget, used
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.events import listen
from testing.world.runs import LOOK, RULES, Runs, allow
from triggers.explain.runs import explain_run
from triggers.models import Delivery, Event, Run, RunText, Trigger, TriggerRevision
from triggers.runs.handout import MAX_CARRIED_BYTES
from triggers.runs.lifecycle import Refused
from workers.models import Worker
from workers.protocol.serializers import carried

WHOLE = {**LOOK, "lastDigest": None, "lookOnly": False}
OLD, NEW = "a" * 64, "b" * 64
AT = "2001-12-01T09:00:00.000Z"


def saw(digest: str = OLD, *, nothing_new: bool = True) -> dict[str, Any]:
    return {"digest": digest, "lookedAt": AT, "nothingNew": nothing_new}


@pytest.fixture
def calls(cast: Cast) -> WorkerCalls:
    return WorkerCalls(cast.worker)


@pytest.fixture
def looking(cast: Cast) -> Runs:
    """Runs of a trigger that looks first, as of now, whose worker can."""
    allow(cast.worker.worker_id, 9)
    looking = Runs.of(cast, before=LOOK)
    looking.now = database_now() - timedelta(minutes=1)
    looking.take_features("approvals", "before")
    return looking


def ends(runs: Runs, **before: Any) -> UUID:
    """Ends another run that looked, a second later, with a success unless `before` says that nothing was new."""
    runs.wait(seconds=1)
    run_id = runs.running()
    runs.complete(run_id, before=saw(**before))
    return run_id


def handed(runs: Runs, calls: WorkerCalls, run_id: UUID | None = None) -> Any:
    """Returns a new run, or the given one, as a poll hands it out now, whatever time it is for `runs`."""
    run_id = run_id or Runs(runs.cast, runs.trigger_id, now=database_now()).queue()
    given = {each["id"]: each for each in calls.poll(features="before").json()["runs"]}
    return given[str(run_id)]


def test_a_run_that_finds_nothing_new_succeeds_at_no_cost(
    cast: Cast, looking: Runs, calls: WorkerCalls
) -> None:
    run_id = looking.queue()
    assert calls.poll(features="approvals").json()["runs"] == []
    assert calls.claim_next(claimId="a").json()["run"] is None
    refused = calls.claim(run_id)
    assert (refused.status_code, refused.json()["code"]) == (409, "worker_lacks_features")
    assert handed(looking, calls, run_id)["before"] == WHOLE
    claimed = calls.claim_next(claimId="b", start=True, features=["before", "x"]).json()["run"]
    assert claimed["before"] == WHOLE
    ended = calls.complete(run_id, status="succeeded", before=saw()).json()
    assert (ended["nothingNew"], ended["costUsd"], ended["warnings"]) == (True, "0", [])
    again = calls.complete(run_id, status="succeeded", before=saw()).json()
    assert (again["nothingNew"], again["warnings"]) == (True, [])
    assert handed(looking, calls)["before"]["lastDigest"] == OLD
    told = explain_run(run_id)
    assert told is not None
    assert "its machine looked at " in told.summary
    assert ", and nothing was new yet" in told.summary
    shown = cast.client(cast.viewer).get(f"/api/v1/runs/{run_id}").json()
    assert (shown["status"], shown["nothingNew"]) == ("succeeded", True)


def test_the_explanation_of_a_queued_run_names_the_worker_that_cannot_look(
    looking: Runs, cast: Cast
) -> None:
    Worker.objects.update(features=["approvals"], last_seen_at=looking.now)
    told = explain_run(looking.queue(), now=looking.now)
    assert told is not None
    assert [reason.code for reason in told.waiting_for] == ["worker_lacks_features"]


def test_neither_an_output_nor_denials_are_asked_of_such_a_run(looking: Runs) -> None:
    Trigger.objects.update(fail_on_denied=True)
    TriggerRevision.objects.update(output_schema={"const": 1})
    run_id = looking.running()
    denials = {"total": 1, "tools": ["x"]}
    run = looking.complete(run_id, before=saw(), denials=denials)
    assert (run["status"], run["nothing_new"]) == ("succeeded", True)
    assert looking.complete(run_id, before=saw())["status"] == "succeeded"
    other = looking.complete(looking.running(), before=saw(nothing_new=False))
    assert (other["status"], other["nothing_new"]) == ("failed", False)


@cases(
    ("report", "warning", "digest"),
    [
        ({"costUsd": "0.01"}, "has a cost", OLD),
        ({"outputTokens": 1}, "has a cost", OLD),
        ({"numTurns": 40}, "has a cost", OLD),
        ({"toolCalls": {"total": 2, "effects": 0, "unknown": 0}}, "has a cost", OLD),
        ({"toolCalls": {"total": 1, "effects": 1, "unknown": 0}}, "has a cost", OLD),
        ({"output": None}, "has a cost", OLD),
        ({"status": "failed"}, "has a cost", OLD),
        ({"before": {}}, "can't be read", None),
        ({"before": "x"}, "can't be read", None),
        ({"before": {**saw(), "digest": "A" * 64}}, "can't be read", None),
        ({"before": {**saw(), "digest": f"{OLD}\n"}}, "can't be read", None),
        ({"before": {**saw(), "lookedAt": "2001-12-01T09:00"}}, "can't be read", None),
        ({"before": {**saw(), "nothingNew": 1}}, "can't be read", None),
        ({"before": None}, None, None),
    ],
)
def test_what_contradicts_is_dropped_with_a_warning_and_never_the_outcome(
    looking: Runs, calls: WorkerCalls, report: Any, warning: str | None, digest: str | None
) -> None:
    run_id = looking.running()
    body = {"status": "succeeded", "before": saw(), **report}
    answer = calls.complete(run_id, **body)
    assert (answer.status_code, answer.json()["status"]) == (200, body["status"])
    assert answer.json()["nothingNew"] is False
    assert [warning in each for each in answer.json()["warnings"]] == [True] * bool(warning)
    assert looking.stored(run_id)["look_digest"] == digest


def test_a_run_of_which_a_heartbeat_told_effects_has_found_something(
    looking: Runs, calls: WorkerCalls
) -> None:
    Trigger.objects.filter(id=looking.trigger_id).update(fail_on_denied=True)
    run_id = looking.running()
    looking.heartbeat(run_id, (9, 9, 0))
    ended = calls.complete(run_id, status="succeeded", before=saw()).json()
    assert (ended["status"], ended["nothingNew"], len(ended["warnings"])) == ("succeeded", False, 1)


@cases("told", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"], undone=True)
def test_a_machine_has_looked_between_its_runs_start_and_its_end(looking: Runs, told: str) -> None:
    run_id = looking.running()
    started = looking.now
    ended = looking.wait(seconds=5)
    looking.complete(run_id, before={**saw(), "lookedAt": told})
    assert looking.stored(run_id)["looked_at"] == (started if told < "2000" else ended)


def test_a_run_that_was_not_to_look_has_found_nothing(
    cast: Cast, looking: Runs, calls: WorkerCalls
) -> None:
    forced, unstarted, ordinary = looking.queue(force=True), looking.claimed(), None
    assert "before" not in handed(looking, calls, forced)
    looking.claim(forced)
    looking.start(forced)
    ordinary = Runs(cast, cast.add_trigger(), now=looking.now).running()
    for run_id in (forced, unstarted, ordinary):
        ended = calls.complete(run_id, status="succeeded", before=saw()).json()
        assert (ended["status"], ended["nothingNew"], len(ended["warnings"])) == (
            "succeeded", False, 1,
        )  # fmt: skip
    assert handed(looking, calls)["before"]["lastDigest"] is None


class TestWhatTheLastSuccessSaw:
    def test_the_later_look_of_two_runs_counts_and_a_success_without_a_look_keeps_it(
        self, looking: Runs, calls: WorkerCalls
    ) -> None:
        first, second = looking.running(), looking.running()
        looked = looking.wait(seconds=1)
        later = looking.wait(seconds=1)
        about = {"nothing_new": False}
        looking.complete(second, before={**saw(NEW, **about), "lookedAt": later.isoformat()})
        looking.wait(seconds=1)
        looking.complete(first, before={**saw(OLD), "lookedAt": looked.isoformat()})
        looking.wait(seconds=1)
        looking.complete(looking.running())
        assert handed(looking, calls)["before"]["lastDigest"] == NEW

    def test_runs_that_are_canceled_fail_or_are_lost_keep_it(
        self, looking: Runs, calls: WorkerCalls
    ) -> None:
        ends(looking)
        for status in ("canceled", "failed", "timed_out"):
            run_id = looking.running()
            looking.cancel(run_id)
            looking.complete(run_id, status, before=saw(NEW, nothing_new=False))
        looking.lost()
        assert handed(looking, calls)["before"]["lastDigest"] == OLD

    def test_a_late_result_counts_only_until_the_retry_has_begun(
        self, looking: Runs, calls: WorkerCalls
    ) -> None:
        ends(looking)
        for claims_first in (False, True):
            run_id = looking.lost()
            if claims_first:
                looking.wait(minutes=1)
                looking.claim(Run.objects.get(retry_of_id=run_id).id)
            digest = "c" * 64 if claims_first else NEW
            if claims_first:
                with pytest.raises(Refused):
                    looking.complete(run_id, before=saw(digest))
            else:
                assert looking.complete(run_id, before=saw(digest))["nothing_new"]
        assert handed(looking, calls)["before"]["lastDigest"] == NEW
        kept = RunText.objects.get(late_result__isnull=False).late_result
        assert kept["before"] == saw("c" * 64)

    def test_a_new_revision_forgets_it_and_runs_of_the_old_one_do_not_bring_it_back(
        self, cast: Cast, looking: Runs, calls: WorkerCalls
    ) -> None:
        ends(looking)
        old = looking.running()
        url = f"/api/v1/triggers/{looking.trigger_id}"
        assert cast.client(cast.owner).patch(url, {"prompt": "More."}).status_code == 200
        assert handed(looking, calls)["before"]["lastDigest"] is None
        looking.complete(old, before=saw(NEW, nothing_new=False))
        assert handed(looking, calls)["before"]["lastDigest"] is None

    def test_a_run_that_waited_keeps_what_it_saw(self, cast: Cast, calls: WorkerCalls) -> None:
        allow(cast.worker.worker_id, 9)
        runs = Runs.of(cast, before=LOOK, approvals=RULES)
        runs.now = database_now()
        runs.take_features("approvals", "before")
        run_id = runs.running()
        runs.ask(run_id, before=saw(NEW, nothing_new=False))
        runs.decide(run_id)
        given = calls.poll(features="approvals,before").json()["runs"]
        assert "before" not in given[0]
        runs.claim(run_id)
        runs.start(run_id)
        # A run that has waited can't have found nothing.
        assert runs.complete(run_id, before=saw(NEW))["nothing_new"] is False
        assert runs.stored(run_id)["look_digest"] == NEW


class TestRetriesAndReruns:
    def test_a_retry_looks_again_unless_the_run_was_forced(self, looking: Runs) -> None:
        for force in (False, True):
            run_id = looking.queue(force=force)
            looking.claim(run_id)
            looking.start(run_id)
            looking.complete(run_id, "failed", faultClass="infra")
            assert Run.objects.get(retry_of_id=run_id).looks is not force

    def test_a_retry_that_goes_on_in_the_session_has_what_the_run_saw(self, cast: Cast) -> None:
        runs = Runs.of(cast, before=LOOK, retry_mode="resume")
        runs.take_features("approvals", "before")
        run_id = runs.running()
        looked = saw(NEW, nothing_new=False)
        runs.complete(run_id, "failed", faultClass="infra", sessionId="s-1", before=looked)
        retry = Run.objects.get(retry_of_id=run_id)
        assert (retry.looks, retry.look_digest) == (True, NEW)

    def test_a_rerun_of_a_run_that_found_nothing_looks_again_unless_it_is_forced(
        self, cast: Cast, looking: Runs
    ) -> None:
        run_id = ends(looking)
        client = cast.client(cast.operator)
        for body, looks in (({}, True), ({"force": True}, False)):
            again = client.post(f"/api/v1/runs/{run_id}/rerun", body)
            assert again.status_code == 201
            assert Run.objects.get(id=again.json()["id"]).looks is looks

    def test_a_key_tells_a_forced_request_from_another(self, cast: Cast, looking: Runs) -> None:
        client = cast.client(cast.operator)
        run_id = ends(looking)
        for path in (f"triggers/{looking.trigger_id}/run", f"runs/{run_id}/rerun"):
            statuses = [
                client.post(f"/api/v1/{path}", body, HTTP_IDEMPOTENCY_KEY=path).status_code
                for body in ({"force": True}, {"force": True}, {})
            ]
            assert statuses == [201, 200, 409]

    def test_an_event_starts_a_run_that_looks(self, looking: Runs, calls: WorkerCalls) -> None:
        run_id = looking.queue(payload={"ref": "x"})
        given = handed(looking, calls, run_id)
        assert (given["payload"], given["before"]["tool"]) == ({"ref": "x"}, "list_pulls")


class TestCarry:
    @pytest.fixture
    def carrying(self, cast: Cast) -> Runs:
        allow(cast.worker.worker_id, 9)
        carrying = Runs.of(cast, before=LOOK, carry="output")
        carrying.now = database_now()
        carrying.take_features("before")
        return carrying

    def test_a_run_gets_the_output_of_the_last_success_that_had_something_new(
        self, cast: Cast, carrying: Runs, calls: WorkerCalls
    ) -> None:
        assert "previous" not in handed(carrying, calls)
        run_id = carrying.running()
        carrying.complete(run_id, output={"found": [1]}, shortMessage="One.")
        ends(carrying)
        carrying.complete(carrying.running(), "failed", output={"found": []})
        other = Runs(cast, cast.add_trigger(), now=carrying.now)
        other.complete(other.running(), output="another trigger's")
        run = carrying.stored(run_id)
        assert handed(carrying, calls)["previous"] == {
            "runId": str(run_id),
            "endedAt": f"{run['ended_at']:%Y-%m-%dT%H:%M:%S.%f}"[:23] + "Z",
            "triggerRevisionId": str(run["revision_id"]),
            "output": {"found": [1]},
        }

    def test_without_an_output_it_is_the_message_and_the_revision_may_be_another(
        self, cast: Cast, carrying: Runs, calls: WorkerCalls
    ) -> None:
        run_id = carrying.running()
        carrying.complete(run_id, shortMessage="One.")
        old = carrying.stored(run_id)["revision_id"]
        url = f"/api/v1/triggers/{carrying.trigger_id}"
        assert cast.client(cast.owner).patch(url, {"prompt": "More."}).status_code == 200
        given = handed(carrying, calls)
        assert (given["previous"]["output"], given["previous"]["triggerRevisionId"]) == (
            "One.", str(old),
        )  # fmt: skip

    def test_it_is_fixed_at_the_first_hand_out_also_for_retries(
        self, carrying: Runs, calls: WorkerCalls
    ) -> None:
        without = carrying.queue()
        assert "previous" not in handed(carrying, calls, without)
        first = carrying.running()
        carrying.complete(first, output=1)
        run_id = carrying.queue()
        assert handed(carrying, calls, run_id)["previous"]["runId"] == str(first)
        second = carrying.running()
        carrying.complete(second, output=2)
        claimed = calls.claim_next(claimId="a", start=True, features=["before"]).json()["run"]
        assert (claimed["id"], claimed.get("previous")) == (str(without), None)
        assert handed(carrying, calls, run_id)["previous"]["runId"] == str(first)
        claimed = calls.claim_next(claimId="b", start=True, features=["before"]).json()["run"]
        assert (claimed["id"], claimed["previous"]["runId"]) == (str(run_id), str(first))
        for each in (without, run_id):
            carrying.complete(each, "failed", faultClass="infra")
        Run.objects.filter(source="retry").update(available_at=carrying.now)
        retries = {
            each["attempt"] and Run.objects.get(id=each["id"]).retry_of_id: each.get("previous")
            for each in calls.poll(features="before").json()["runs"]
            if each["attempt"] == 2
        }
        assert retries[without] is None
        assert retries[run_id]["runId"] == str(first)
        assert handed(carrying, calls)["previous"]["runId"] == str(second)

    def test_it_is_fixed_also_for_a_trigger_without_a_server(
        self, cast: Cast, calls: WorkerCalls
    ) -> None:
        carrying = Runs.of(cast, carry="output", mcp_url=None)
        carrying.now = database_now() - timedelta(minutes=1)
        allow(cast.worker.worker_id, 9)
        first = carrying.running()
        carrying.complete(first, output=1)
        run_id = carrying.queue()
        assert handed(carrying, calls, run_id)["previous"]["runId"] == str(first)
        carrying.complete(carrying.running(), output=2)
        assert handed(carrying, calls, run_id)["previous"]["runId"] == str(first)

    def test_what_is_long_is_cut_at_a_character_with_a_note(self) -> None:
        fits = "é" * ((MAX_CARRIED_BYTES - 2) // 2)
        assert carried(json.dumps(fits, ensure_ascii=False)) == fits
        for extra in range(4):
            text = json.dumps("x" * extra + fits + "é", ensure_ascii=False)
            cut = carried(text)
            assert len(cut.encode()) <= MAX_CARRIED_BYTES
            assert cut.endswith(f"é… (cut: {len(text.encode())} bytes in all)")
        assert (carried(None), carried("null")) == (None, None)

    def test_a_viewer_who_sees_no_payload_gets_no_less(
        self, cast: Cast, carrying: Runs, calls: WorkerCalls
    ) -> None:
        run_id = carrying.running()
        carrying.complete(run_id, output={"found": 1})
        shown = cast.client(cast.viewer).get(f"/api/v1/runs/{run_id}").json()
        assert shown["output"] == {"found": 1}


class TestMoney:
    def test_the_reservation_is_released_whole_and_the_number_of_runs_does_not_count_it(
        self, cast: Cast, looking: Runs
    ) -> None:
        budget = add_budget(cast, limit_usd="9", reserve_usd="2", limit_runs=2)
        run_id = looking.running()
        assert used(budget) == ("0", "2", 1)
        looking.complete(run_id, before=saw())
        assert used(budget) == ("0", "0", 0)
        assert looking.complete(run_id, before=saw())["nothing_new"]
        assert used(budget) == ("0", "0", 0)
        looking.complete(looking.running(), costUsd="1", before=saw(NEW, nothing_new=False))
        assert used(budget) == ("1", "0", 1)

    def test_a_late_nothing_new_takes_back_what_the_lost_run_was_counted_as(
        self, cast: Cast, looking: Runs
    ) -> None:
        budget = add_budget(cast, limit_usd="9", reserve_usd="2", limit_runs=2)
        run_id = looking.lost()
        assert used(budget) == ("2", "0", 1)
        looking.complete(run_id, before=saw())
        assert used(budget) == ("0", "0", 0)


def test_its_end_is_told_to_webhooks_and_starts_no_other_trigger(cast: Cast, looking: Runs) -> None:
    other = cast.add_trigger()
    listen(other, upstream_id=looking.trigger_id, outcome="succeeded")
    run_id = ends(looking)
    body = json.loads(Delivery.objects.get(run_id=run_id).body)
    assert (body["status"], body["nothingNew"], body["costUsd"]) == ("succeeded", True, "0")
    assert not Event.objects.filter(run_id=run_id).exists()
    news = ends(looking, digest=NEW, nothing_new=False)
    assert json.loads(Delivery.objects.get(run_id=news).body)["nothingNew"] is False
    assert Event.objects.filter(run_id=news).exists()


def test_lists_statistics_and_the_overview_count_it(cast: Cast, looking: Runs) -> None:
    quiet = ends(looking)
    news = ends(looking, digest=NEW, nothing_new=False)
    client, environment = cast.client(cast.viewer), f"/api/v1/environments/{cast.environment.id}"
    for path in (f"{environment}/runs", f"/api/v1/triggers/{looking.trigger_id}/runs"):
        for query, ids in (
            ({"nothingNew": "true"}, [quiet]),
            ({"nothingNew": "false"}, [news]),
            ({"nothingNew": "true", "status": "succeeded"}, [quiet]),
            ({"nothingNew": "false", "endedFrom": "2001-01-01T00:00:00Z"}, [news]),
        ):
            found = client.get(path, query).json()["items"]
            assert [each["id"] for each in found] == [str(each) for each in ids]
        assert client.get(path, {"nothingNew": "maybe"}).status_code == 400
    for group_by in ("trigger", "day", "day,trigger"):
        stats = client.get(f"{environment}/stats", {"groupBy": group_by, "period": "day"}).json()
        assert (stats["total"]["succeeded"], stats["total"]["nothingNew"]) == (2, 1)
        assert sum(each["nothingNew"] for each in stats["items"]) == 1
    overview = client.get(f"{environment}/dashboard/overview").json()
    assert (overview["nothingNewToday"], overview["successRatePct"]) == (1, 100.0)


class TestOnlyLooking:
    def test_it_ends_as_canceled_with_what_the_machine_saw_and_counts_for_nothing(
        self, cast: Cast, looking: Runs, calls: WorkerCalls
    ) -> None:
        ends(looking)
        url = f"/api/v1/triggers/{looking.trigger_id}/run"
        queued = cast.client(cast.operator).post(url, {"lookOnly": True})
        assert queued.status_code == 201
        claimed = calls.claim_next(claimId="a", start=True, features=["before"]).json()["run"]
        assert (claimed["before"]["lookOnly"], claimed["before"]["lastDigest"]) == (True, OLD)
        tried = {"wouldRun": True, "result": [7]}
        report = {"status": "canceled", "output": tried, "costUsd": "0"}
        ended = calls.complete(claimed["id"], **report, before=saw(NEW)).json()
        assert (ended["status"], ended["nothingNew"]) == ("canceled", False)
        shown = cast.client(cast.viewer).get(f"/api/v1/runs/{claimed['id']}").json()
        assert shown["output"] == tried
        assert handed(looking, calls)["before"]["lastDigest"] == OLD

    def test_it_takes_a_trigger_that_looks_and_a_run_that_is_not_forced(
        self, cast: Cast, looking: Runs
    ) -> None:
        client = cast.client(cast.operator)
        for trigger_id, force in ((cast.trigger_id, False), (looking.trigger_id, True)):
            body = {"lookOnly": True, "force": force}
            refused = client.post(f"/api/v1/triggers/{trigger_id}/run", body)
            assert (refused.status_code, [*refused.json()["details"]["fieldErrors"]]) == (
                400,
                ["lookOnly"],
            )
        assert not Run.objects.exists()

    def test_only_such_a_run_may_end_as_canceled_unasked(
        self, looking: Runs, calls: WorkerCalls
    ) -> None:
        answer = calls.complete(looking.running(), status="canceled")
        assert answer.json()["code"] == "cancel_not_requested"

    @pytest.mark.parametrize(
        "way", ["succeeded", "failed", "lost", "overdue", "waiting", "unclaimed"]
    )
    def test_it_ends_as_canceled_however_it_ends(
        self, looking: Runs, calls: WorkerCalls, way: str
    ) -> None:
        ends(looking)
        if way == "unclaimed":
            Trigger.objects.filter(id=looking.trigger_id).update(start_deadline_seconds=60)
            run_id = looking.queue(look_only=True)
            looking.wait(minutes=2)
            looking.expire_queued()
        else:
            run_id = looking.running(look_only=True)
        if way in {"succeeded", "failed"}:
            about: dict[str, Any] = {
                "before": saw(NEW),
                "faultClass": "infra" if way == "failed" else "none",
            }
            for _ in range(2):  # The second report repeats the first, which is no error.
                looking.complete(run_id, way, **about)
        elif way == "waiting":
            Trigger.objects.filter(id=looking.trigger_id).update(approvals=RULES)
            looking.take_features("approvals", "before")
            looking.ask(run_id)
        elif way in {"lost", "overdue"}:
            getattr(looking, way)(run_id)
        row = looking.stored(run_id)
        assert (row["status"], row["fault_class"], row["nothing_new"]) == (
            "canceled",
            "none",
            False,
        )
        assert looking.retry_of(run_id) is None
        Trigger.objects.filter(id=looking.trigger_id).update(approvals=None)
        assert handed(looking, calls)["before"]["lastDigest"] == OLD

    @cases("force", [False, True], undone=True)
    def test_its_rerun_looks_only_too_unless_it_is_forced(
        self, cast: Cast, looking: Runs, force: bool
    ) -> None:
        run_id = looking.running(look_only=True)
        looking.complete(run_id, "canceled")
        again = cast.client(cast.operator).post(f"/api/v1/runs/{run_id}/rerun", {"force": force})
        assert again.status_code == 201
        assert Run.objects.get(id=again.json()["id"]).look_only is not force


class TestTheFieldOfATrigger:
    @pytest.fixture
    def patch(self, cast: Cast, looking: Runs) -> Any:
        client, url = cast.client(cast.owner), f"/api/v1/triggers/{looking.trigger_id}"
        return lambda **body: client.patch(url, body)

    def test_it_has_defaults_is_replaced_as_a_whole_and_belongs_to_the_revision(
        self, cast: Cast, looking: Runs, patch: Any
    ) -> None:
        whole = {"tool": "x", "arguments": {}, "runIf": "changed"}
        assert patch(before={"tool": "x"}).json()["before"] == whole
        assert patch(name="Another").json()["before"] == whole
        first = TriggerRevision.objects.filter(trigger_id=looking.trigger_id).earliest("created_at")
        assert patch(before=None, carry="output").json()["carry"] == "output"
        restored = cast.client(cast.owner).post(
            f"/api/v1/triggers/{looking.trigger_id}/revisions/{first.id}/restore", {}
        )
        assert (restored.json()["before"], restored.json()["carry"]) == (LOOK, "none")

    @cases(
        ("before", "where"),
        [
            ({}, "before.tool"),
            ({"tool": ""}, "before.tool"),
            ({"tool": "x" * 201}, "before.tool"),
            ({"tool": "x", "arguments": []}, "before.arguments"),
            ({"tool": "x", "arguments": {"a": "x" * 8 * 1024}}, "before.arguments"),
            ({"tool": "x", "runIf": "always"}, "before.runIf"),
            ({"tool": "x", "runIf": []}, "before.runIf"),
            ({"tool": "x", "runIf": None}, "before.runIf"),
            (
                {"tool": "x", "runIf": [{"path": "a", "op": "eq", "value": 1}]},
                "before.runIf.0.path",
            ),
            ({"tool": "x", "other": 1}, "before.other"),
        ],
    )
    def test_what_is_wrong_is_named(self, patch: Any, before: Any, where: str) -> None:
        refused = patch(before=before)
        assert refused.status_code == 400
        assert [*refused.json()["details"]["fieldErrors"]] == ["before", where]

    def test_a_trigger_without_a_server_has_nothing_to_look_at(self, patch: Any) -> None:
        refused = patch(mcpUrl=None)
        assert [*refused.json()["details"]["fieldErrors"]] == ["before"]
        assert patch(mcpUrl=None, before=None).status_code == 200
        assert patch(before=LOOK).status_code == 400

    def test_a_tool_that_always_needs_an_approval_is_refused_whichever_changes(
        self, cast: Cast, looking: Runs, patch: Any
    ) -> None:
        rule = {"tools": ["list_pulls"], "when": "always"}
        refused = patch(approvals=[rule])
        assert (refused.status_code, [*refused.json()["details"]["fieldErrors"]]) == (
            400,
            ["before"],
        )
        assert patch(approvals=[{**rule, "tools": "*"}]).status_code == 400
        assert patch(approvals=[{**rule, "when": "possible_effect"}]).status_code == 200
        assert patch(approvals=[rule], before={"tool": "other"}).status_code == 200
        first = TriggerRevision.objects.filter(trigger_id=looking.trigger_id).earliest("created_at")
        restored = cast.client(cast.owner).post(
            f"/api/v1/triggers/{looking.trigger_id}/revisions/{first.id}/restore", {}
        )
        assert restored.status_code == 400
