"""GET /runs/:id/explain tells each reason to wait and each reason for no retry, brought about through the API (§13)."""

import base64
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipedai.sql import database_now
from testing.probes.shapes import A_TIME
from testing.probes.statement_count import counted
from testing.processes.explain_calls import Calls, only, worker_subject
from testing.processes.worker_calls import WorkerCalls
from testing.world.budgets import add_budget
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.copied_rows import copy_row
from testing.world.runs import RULES, Runs, allow
from testing.world.sealed import HEADERS, tamper
from triggers.explain import waiting
from triggers.explain.answers import RETRY_CODES
from triggers.explain.runs import explain_run
from triggers.explain.waiting import MOST_COUNTED
from triggers.models import Run, SchedulerHeartbeat, Trigger
from triggers.reasons import WaitingFor
from workers.models import Worker

# --- What a queued run waits for


def test_a_run_that_the_next_poll_returns_waits_for_nothing(calls: Calls) -> None:
    run_id = calls.queue()
    told = calls.explain(run_id)
    told["summary"] = re.sub(r"\d+ s ago", "3 s ago", told["summary"])
    assert told == {
        "runId": run_id,
        "status": "queued",
        "summary": "It is due, and machine host-1 takes it when it next asks for work (last heard from 3 s ago).",
        "waitingFor": [],
        "advice": [],
        "held": None,
        "ended": None,
        "retry": None,
        "event": None,
        "times": [],
    }


def test_no_worker(calls: Calls, cast: Cast) -> None:
    run_id = calls.queue()
    calls.change_trigger(workerId=None)
    assert only(calls.explain(run_id)) == {
        "code": "no_worker",
        "message": "Trigger Nightly report has neither a machine nor a pool.",
        "subject": {"type": "trigger", "id": str(cast.trigger_id), "name": "Nightly report"},
        "since": None,
        "until": None,
        "remedy": "Give the trigger a machine or a pool with PATCH /triggers/:id (workerId, poolId): its queued runs go"
        " there too.",
        "place": None,
    }


def test_a_worker_that_has_never_called(cast: Cast) -> None:
    calls = Calls(cast)
    reason = only(calls.explain(calls.queue()))
    assert (reason["code"], reason["since"]) == ("worker_offline", None)
    assert reason["message"] == "Machine host-1 has never called."


def test_a_worker_that_has_called_once(calls: Calls, cast: Cast) -> None:
    run_id = calls.queue()
    seen = database_now() - timedelta(days=2)
    Worker.objects.filter(id=cast.worker.worker_id).update(last_seen_at=seen)
    reason = only(calls.explain(run_id))
    assert reason["code"] == "worker_offline"
    assert reason["message"] == (
        f"Machine host-1 has been offline since {seen:%Y-%m-%d %H:%M} UTC."
    )
    assert (reason["since"], reason["subject"]) == (A_TIME, worker_subject(cast))


def test_a_disabled_worker(calls: Calls) -> None:
    run_id = calls.queue()
    calls.change_worker(disabled=True)
    reason = only(calls.explain(run_id))
    assert reason["code"] == "worker_disabled"
    assert reason["message"].startswith("Machine host-1 has been paused since ")
    assert reason["remedy"].startswith("Resume it with PATCH /workers/:id (disabled: false)")


def test_a_worker_without_a_token(calls: Calls) -> None:
    run_id = calls.queue()
    assert calls.admin.post(f"{calls.worker_url}/revoke-token").status_code == 204
    reason = only(calls.explain(run_id))
    assert reason["code"] == "worker_revoked"
    assert "its token was revoked" in reason["message"]


def test_a_worker_that_nobody_approved(calls: Calls, cast: Cast) -> None:
    worker = cast.register_by_key("three")
    assert WorkerCalls(worker).poll().status_code == 200
    run_id = calls.queue(cast.add_trigger(worker_id=worker.worker_id, mcp_headers=HEADERS))
    reason = only(calls.explain(run_id))
    assert reason["code"] == "worker_unapproved"
    assert reason["message"].startswith(
        "Machine three is not approved for triggers with MCP headers"
    )
    assert "POST /workers/:id/approve" in reason["remedy"]


def test_a_worker_that_cant_wait_for_approvals(calls: Calls, runs: Runs) -> None:
    Trigger.objects.filter(id=runs.trigger_id).update(approvals=RULES)
    reason = only(calls.explain(str(runs.queue())))
    assert reason["code"] == "worker_lacks_features"
    assert reason["message"].startswith("Machine host-1 can't wait for an approval")


def test_a_run_that_waits_for_a_decision(runs: Runs) -> None:
    run_id = runs.waiting()
    told = Calls(runs.cast).explain(str(run_id))
    approval_id = str(runs.approval_of(run_id)["id"])
    reason = only(told)
    assert (told["status"], reason["code"]) == ("waiting", "awaiting_approval")
    assert reason["subject"] == {"type": "approval", "id": approval_id, "name": "send_mail"}
    assert (reason["since"], reason["until"]) == (A_TIME, A_TIME)
    assert told["summary"].startswith(
        "An operator or above has to approve or reject its call of send_mail. If nobody does by "
    )
    assert f"/approvals/{approval_id}" in reason["remedy"]


def test_a_decided_run_whose_worker_is_away(runs: Runs) -> None:
    run_id = runs.decided()
    told = explain_run(run_id, now=runs.now)
    assert told is not None
    assert {reason.code for reason in told.waiting_for} == {"worker_offline", "resume_worker"}
    assert "only machine host-1 can continue it" in told.waiting_for[-1].message
    told = explain_run(run_id, now=runs.wait(hours=1))
    assert told is not None
    assert [reason.code for reason in told.waiting_for] == ["approval_unreachable"]


@cases(
    ("decided", "code"), [(False, "approval_expired"), (True, "approval_unreachable")], undone=True
)
def test_a_run_that_waited_in_vain_is_not_retried(runs: Runs, decided: bool, code: str) -> None:
    run_id = runs.decided() if decided else runs.waiting()
    runs.wait(hours=1)
    runs.expire_queued()
    told = Calls(runs.cast).explain(str(run_id))
    assert (told["ended"]["by"], told["retry"]["decision"], told["retry"]["code"]) == (
        code, "none", code
    )  # fmt: skip
    assert "reject" not in told["summary"]


def test_a_full_worker(calls: Calls) -> None:
    held: Any = calls.queue()
    calls.worker.claim(held)
    reason = only(calls.explain(calls.queue()))
    assert reason["code"] == "worker_full"
    assert reason["message"] == "Machine host-1 holds as many runs as it may: 1."
    assert reason["since"] == A_TIME


def test_a_budget_without_room(calls: Calls, cast: Cast) -> None:
    allow(cast.worker.worker_id, 5)
    budget = add_budget(cast, limit_usd="1.5", period="month")
    held: Any = calls.queue()
    assert calls.worker.claim(held).status_code == 200
    reason = only(calls.explain(calls.queue()))
    now = database_now()
    year, month = divmod(now.year * 12 + now.month, 12)
    assert reason == {
        "code": "budget_exhausted",
        "message": "Budget Everything has no room for it: of its $1.5 for this month, $0 is spent and $1 reserved,"
        f" and the run would reserve $1. The next month begins at {year}-{month + 1:02}-01 00:00 UTC.",
        "subject": {"type": "budget", "id": str(budget.id), "name": "Everything"},
        "since": None,
        "until": f"{year}-{month + 1:02}-01T00:00:00.000Z",
        "remedy": "Raise its limit with PATCH /budgets/:id (limitUsd), or let the run reserve less: lower what a run"
        " may cost with PATCH /triggers/:id (maxCostUsd), or what the budget reserves for it with PATCH /budgets/:id"
        " (reserveUsd).",
        "place": None,
    }


def test_a_budget_whose_limit_is_too_small_in_any_window(calls: Calls, cast: Cast) -> None:
    run_id = calls.queue()
    add_budget(cast, limit_usd="0.5")
    add_budget(cast, limit_runs=0, name="Nothing")
    amount, none = calls.explain(run_id)["waitingFor"]
    assert (amount["until"], none["until"]) == (None, None)
    assert amount["message"].endswith("It never has room for this run.")
    assert none["message"].startswith("Budget Nothing has no room for it: its 0 runs of this day")
    assert none["remedy"] == "Raise its limit with PATCH /budgets/:id (limitRuns)."


def test_a_run_behind_others(calls: Calls) -> None:
    *_, last = (calls.queue() for _ in range(3))
    reason = only(calls.explain(last))
    assert (reason["code"], reason["place"]) == ("behind_others", 3)
    assert reason["message"] == "2 due runs of machine host-1 go first."
    assert reason["remedy"].startswith(
        "Let it hold more with PATCH /workers/:id (maxConcurrency), or"
    )


def test_runs_that_can_not_go_out_do_not_go_first(
    calls: Calls, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where there are as many of them as are counted at most."""
    at_most_two = waiting._AHEAD.replace(str(MOST_COUNTED), "2")
    monkeypatch.setattr(waiting, "_AHEAD", at_most_two)
    trigger_id = cast.add_trigger(mcp_headers=HEADERS, webhook_secret="planted-webhook-secret")
    *_, first, last = (calls.queue(each) for each in (trigger_id, trigger_id, None, None))
    tamper("bit flip", trigger_id, cast=cast)
    assert only(calls.explain(last))["message"] == "1 due run of machine host-1 goes first."
    held: Any = calls.queue()
    Run.objects.filter(id=held).update(available_at=database_now() - timedelta(hours=1))
    assert calls.worker.claim(held).status_code == 200
    codes = [reason["code"] for reason in calls.explain(first)["waitingFor"]]
    assert codes == ["worker_full"], "nor where the poll of a full machine looks at no run"


def test_a_run_that_is_not_due(calls: Calls) -> None:
    original = calls.end("failed", faultClass="infra")
    retry_id = calls.explain(original)["retry"]["runId"]
    reason = only(calls.explain(retry_id))
    assert (reason["code"], reason["subject"], reason["until"]) == ("not_due", None, A_TIME)
    assert re.fullmatch(r"Attempt 2 is due at (\S{10} )?\d\d:\d\d:\d\d UTC\.", reason["message"]), (
        "to the second, because the first retry waits for 30 s"
    )


def test_headers_that_cannot_be_decrypted(calls: Calls, cast: Cast) -> None:
    trigger_id = cast.add_trigger(mcp_headers=HEADERS, webhook_secret="planted-webhook-secret")
    run_id = calls.queue(trigger_id)
    assert calls.explain(run_id)["waitingFor"] == []
    tamper("bit flip", trigger_id, cast=cast)
    reason = only(calls.explain(run_id))
    assert reason["code"] == "headers_unreadable"
    assert reason["message"] == "The MCP headers of trigger Nightly report can't be decrypted."
    assert "rotate-mcp-token" in reason["remedy"]


def test_headers_whose_master_key_is_missing(calls: Calls, cast: Cast, settings: Any) -> None:
    run_id = calls.queue(cast.add_trigger(mcp_headers=HEADERS))
    settings.MASTER_KEYS = [f"other:{base64.b64encode(b'k' * 32).decode()}"]
    assert only(calls.explain(run_id))["code"] == "headers_unreadable"
    assert calls.worker.poll().json()["runs"] == []


def test_several_reasons_begin_with_what_somebody_must_act_on(calls: Calls) -> None:
    calls.end("failed", faultClass="infra")
    calls.change_worker(disabled=True)
    answer = calls.explain(str(Run.objects.get(source="retry").id))
    assert [reason["code"] for reason in answer["waitingFor"]] == ["worker_disabled", "not_due"]
    assert answer["summary"].endswith(" UTC (1 more reason).")


def test_the_bytes_of_a_poll_count_too(calls: Calls, cast: Cast) -> None:
    """A poll's answer has 4 MiB at most, so 20 prompts of 250 KiB do not go out together."""
    allow(cast.worker.worker_id, 20)
    calls.change_trigger(prompt="x" * 250_000)
    runs = [calls.queue() for _ in range(20)]
    polled = [run["id"] for run in calls.worker.poll().json()["runs"]]
    assert 0 < len(polled) < 20
    assert calls.explain(runs[len(polled) - 1])["waitingFor"] == []
    reason = only(calls.explain(runs[len(polled)]))
    assert (reason["place"], reason["remedy"]) == (len(polled) + 1, None)


def test_a_run_behind_very_many_is_explained_as_quickly(calls: Calls, cast: Cast) -> None:
    first, second = calls.queue(), calls.queue()
    with counted() as few:
        assert only(calls.explain(second))["place"] == 2
    copy_row(Run, first, MOST_COUNTED, available_at="r.available_at - interval '1 hour'")
    with counted() as many:
        reason = only(calls.explain(second))
    assert reason["message"] == f"At least {MOST_COUNTED} due runs of machine host-1 go first."
    assert len(few) == len(many)


# --- Who holds it


def test_a_held_run_tells_of_its_worker(calls: Calls, cast: Cast) -> None:
    run_id: Any = calls.queue()
    calls.worker.claim(run_id)
    answer = calls.explain(run_id)
    assert answer["summary"].startswith("Machine host-1 took it at ")
    calls.worker.start(run_id)
    calls.cancel(run_id)
    answer = calls.explain(run_id)
    assert answer["summary"].startswith("Machine host-1 has been executing it since ")
    assert answer["summary"].endswith(", and was asked to cancel it.")
    assert answer["held"] == {
        "workerId": str(cast.worker.worker_id),
        "claimedAt": A_TIME,
        "lastHeartbeatAt": A_TIME,
        "leaseExpiresAt": A_TIME,
        "deadlineAt": A_TIME,
        "cancelRequested": True,
    }
    assert (answer["waitingFor"], answer["ended"], answer["retry"]) == ([], None, None)


def test_an_overdue_run_tells_who_will_end_it(runs: Runs) -> None:
    run_id = runs.running()

    def told() -> str:
        explanation = explain_run(run_id, now=runs.now)
        assert explanation is not None
        return explanation.summary

    runs.wait(minutes=4)
    assert told() == (
        "Machine host-1 has been executing it since 12:00 UTC, but has been silent since 12:00 UTC: its lease is over,"
        " and no scheduler is alive: start one (manage.py runscheduler)."
    )
    runs.wait(hours=1)
    SchedulerHeartbeat.objects.create(host="h", pid=1, beat_at=runs.now)
    runs.heartbeat(run_id)
    assert told() == (
        "Machine host-1 has been executing it since 12:00 UTC, but had to be done by 12:31 UTC, and the scheduler"
        " ends the run unless the machine reports first."
    )


# --- How it ended, and whether it is retried


def retry_of(calls: Calls, run_id: str) -> tuple[str, str, str]:
    retry = calls.explain(run_id)["retry"]
    return retry["decision"], retry["code"], retry["message"]


def test_an_end_tells_who_ended_the_run(calls: Calls) -> None:
    run_id = calls.end("failed", errorMessage="No such table.")
    answer = calls.explain(run_id)
    assert answer["ended"] == {
        "at": A_TIME, "by": "worker", "faultClass": "client", "message": "No such table."
    }  # fmt: skip
    assert answer["summary"].startswith("Failed at ")
    assert "as its machine reported; it is not retried, because" in answer["summary"]


@cases(
    ("state", "by"),
    [("lost", "lease"), ("overdue", "deadline"), ("made needless", "late_result")],
    undone=True,
)
def test_the_server_s_verdicts_are_told_too(runs: Runs, state: str, by: str) -> None:
    calls = Calls(runs.cast)
    run_id = runs.overdue() if by == "deadline" else runs.lost()
    if by == "late_result":
        retry = runs.retry_of(run_id)
        assert retry is not None
        runs.complete(run_id, "succeeded")
        answer = calls.explain(str(run_id))
        assert answer["retry"]["code"] == "succeeded"
        assert answer["retry"]["runId"] == str(retry["id"])
        assert "late result" in answer["retry"]["message"]
        run_id = retry["id"]
    answer = calls.explain(str(run_id))
    assert answer["ended"]["by"] == by


def test_a_user_s_cancel_is_told(calls: Calls) -> None:
    run_id = calls.queue()
    calls.cancel(run_id)
    assert calls.explain(run_id)["ended"]["by"] == "user"
    assert retry_of(calls, run_id) == ("none", "canceled", "It was canceled, so it is not retried.")


def test_succeeded(calls: Calls) -> None:
    run_id = calls.end("succeeded")
    assert retry_of(calls, run_id) == (
        "none", "succeeded", "It succeeded, so it is not retried."
    )  # fmt: skip
    assert calls.explain(run_id)["summary"].count(".") == 1


def test_client_fault(calls: Calls) -> None:
    decision, code, message = retry_of(calls, calls.end("failed"))
    assert (decision, code) == ("none", "client_fault")
    assert "the fault is in the prompt, the model or a limit of the trigger" in message


def test_retries_used(calls: Calls) -> None:
    calls.change_trigger(maxRetries=0)
    assert retry_of(calls, calls.end("failed", faultClass="infra")) == (
        "none", "retries_used", "It is not retried: it was attempt 1, and the trigger allowed 1."
    )  # fmt: skip


def test_cancel_requested(calls: Calls) -> None:
    run_id = calls.end("failed", faultClass="infra", cancel=True)
    assert retry_of(calls, run_id) == (
        "none", "cancel_requested", "It is not retried, because somebody had asked to cancel it."
    )  # fmt: skip


def test_had_effects(calls: Calls) -> None:
    calls.change_trigger(retryAfterEffects=False)
    run_id = calls.end(
        "failed", faultClass="infra", toolCalls={"total": 1, "effects": 1, "unknown": 0}
    )
    decision, code, message = retry_of(calls, run_id)
    assert (decision, code) == ("none", "had_effects")
    assert "its tool calls may have changed something" in message


def test_a_trigger_that_was_disabled_then_deleted_or_enabled_again(calls: Calls) -> None:
    run_id: Any = calls.queue()
    calls.worker.claim(run_id)
    calls.change_trigger(enabled=False)
    calls.worker.complete(run_id, status="failed", faultClass="infra")
    assert retry_of(calls, run_id) == (
        "none", "trigger_disabled", "It is not retried, because its trigger is paused."
    )  # fmt: skip
    calls.change_trigger(enabled=True)
    decision, code, message = retry_of(calls, run_id)
    assert (decision, code) == ("none", "settings_changed")
    assert "when it ended, its trigger was paused, or retried no runs that may have" in message
    assert calls.admin.delete(calls.trigger_url).status_code == 204
    assert retry_of(calls, run_id)[1] == "settings_changed"


def test_a_late_result_after_its_trigger_was_deleted_has_no_retry(runs: Runs) -> None:
    calls, run_id = Calls(runs.cast), runs.overdue()
    Trigger.objects.filter(id=runs.trigger_id).update(deleted_at=runs.now)
    runs.wait(minutes=1)
    runs.complete(run_id, "failed", faultClass="infra")
    assert retry_of(calls, str(run_id)) == (
        "none", "trigger_deleted", "It is not retried, because its trigger was deleted."
    )  # fmt: skip


def test_a_cancel_that_a_lost_worker_did_not_acknowledge(runs: Runs) -> None:
    run_id = runs.running()
    runs.cancel(run_id)
    runs.lost(run_id)
    summary = Calls(runs.cast).explain(str(run_id))["summary"]
    assert summary.startswith(
        "Was canceled, because somebody had asked for it and its machine fell silent, at "
    )


def test_a_retry_that_is_due_then_canceled(calls: Calls) -> None:
    run_id = calls.end("failed", faultClass="infra")
    retry = calls.explain(run_id)["retry"]
    assert (retry["decision"], retry["code"], retry["dueAt"]) == ("due", "infra_fault", A_TIME)
    assert retry["message"].startswith("Its retry is due at ")
    calls.cancel(retry["runId"])
    assert retry_of(calls, run_id) == (
        "none", "retry_canceled", "Its retry was canceled before a machine had taken it."
    )  # fmt: skip


def test_a_retry_that_ran(runs: Runs) -> None:
    run_id = runs.lost()
    runs.complete(runs.claimed_retry_of(run_id))
    answer = Calls(runs.cast).explain(str(run_id))["retry"]
    assert (answer["decision"], answer["code"]) == ("done", "infra_fault")
    assert answer["message"] == "It was retried: its retry succeeded."


def test_every_code_has_a_test_beside_this_one() -> None:
    """Each code of `waitingFor` and of `retry` stands in a test file of this folder, where a test reads it."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_explain_*.py"))
    assert [code for code in (*WaitingFor, *RETRY_CODES) if f'"{code}"' not in text] == []


def test_a_run_of_another_tenant_is_not_there(calls: Calls, cast: Cast) -> None:
    stranger = cast.client(cast.stranger)
    assert stranger.get(f"/api/v1/runs/{calls.queue()}/explain").status_code == 404
