"""A person decides about a call before it is made, from the worker's question to the run's end."""

import json
from datetime import datetime
from typing import Any

import pytest

from pipedai.sql import database_now
from testing.probes.shapes import A_TIME
from testing.processes.worker_calls import WorkerCalls
from testing.world.budgets import add_budget, used
from testing.world.cases import cases
from testing.world.cast import Cast, bearer
from testing.world.pools import add_pool
from testing.world.runs import QUESTION, RULES, Runs, allow
from triggers.approvals.rules import MAX_ARGUMENTS_BYTES
from triggers.approvals.views import seen
from triggers.explain.runs import explain_run
from triggers.models import Approval, Budget, Run, Trigger
from triggers.runs.routing import count_unfinished_runs
from workers.models import Worker
from workspaces.models import Membership

FEATURES: dict[str, Any] = {"features": ["approvals"]}


@pytest.fixture
def asking(cast: Cast) -> Runs:
    """Runs of a trigger with rules, as of now, whose worker takes approvals."""
    allow(cast.worker.worker_id, 9)
    asking = Runs(cast, cast.add_trigger(approvals=RULES), now=database_now())
    asking.take_approvals()
    return asking


@pytest.fixture
def calls(cast: Cast) -> WorkerCalls:
    return WorkerCalls(cast.worker)


def _decide(client: Any, approval_id: Any, **body: Any) -> Any:
    return client.post(f"/api/v1/approvals/{approval_id}/decide", {"decision": "approve", **body})


def _spend(calls: WorkerCalls, run_id: Any, approval_id: Any) -> Any:
    return calls._post(run_id, f"approvals/{approval_id}/spend", {})


def test_a_run_waits_also_if_the_clock_was_put_back_since_its_start(asking: Runs) -> None:
    run_id = asking.running()
    asking.wait(seconds=-5)
    asking.ask(run_id)
    assert asking.stored(run_id)["active_ms"] == 0


def test_an_approved_call_is_made_once_by_the_worker_that_asked(
    cast: Cast, asking: Runs, calls: WorkerCalls
) -> None:
    pool_id = add_pool(cast, cast.worker.worker_id, cast.register("two").worker_id)
    Trigger.objects.filter(id=asking.trigger_id).update(pool_id=pool_id, prefer_seconds=0)
    run_id = asking.queue()
    assert calls.poll().json()["runs"] == []
    refused = calls.claim(run_id)
    assert (refused.status_code, refused.json()["code"]) == (409, "worker_lacks_features")
    (given,) = calls.poll(features="other,approvals").json()["runs"]
    rule = {"tools": ["send_mail"], "when": "always"}
    assert given["approvals"] == {"rules": [rule], "allowHostTools": False, "decision": None}
    assert calls.claim(run_id, claimId="a", **FEATURES).status_code == 200
    calls.start(run_id)
    report = {"status": "waiting", "sessionId": "s-1", "approval": QUESTION, "claimId": "a"}
    waits = calls.complete(run_id, **report)
    assert (waits.status_code, waits.json()["status"]) == (200, "waiting")
    approval = Approval.objects.get()
    kept_until = datetime.fromisoformat(waits.json()["resumeUntil"])
    assert (kept_until - approval.expires_at).total_seconds() == pytest.approx(3600, abs=1)

    decided = _decide(cast.client(cast.operator), approval.id, reason="Fine.")
    assert (decided.status_code, decided.json()["status"]) == (200, "approved")
    assert decided.json()["decidedBy"] == {
        "type": "user", "id": str(cast.operator.id), "label": cast.operator.email,
    }  # fmt: skip
    run = asking.stored(run_id)
    assert (run["status"], run["claimed_at"], run["started_at"]) == ("queued", None, None)
    other = Worker.objects.get(hostname="two").id
    Worker.objects.filter(id=other).update(features=["approvals"])
    assert asking.polled(other) == []
    again = calls.complete(run_id, **report)
    assert (again.status_code, again.json()["status"]) == (200, "queued")
    given = calls.claim_next(claimId="b", start=True, **FEATURES).json()["run"]
    late = calls.complete(run_id, **report)
    assert (late.status_code, late.json()["code"]) == (409, "claimed_by_another")
    assert (given["id"], given["resumeSessionId"]) == (str(run_id), "s-1")
    assert given["approvals"]["decision"] == {
        "approvalId": str(approval.id),
        "decision": "approve",
        "tool": "send_mail",
        "argumentsHash": QUESTION["argumentsHash"],
        "toolSchemaHash": QUESTION["toolSchemaHash"],
        "reason": "Fine.",
    }
    assert _spend(calls, run_id, approval.id).json() == {
        "approvalId": str(approval.id), "spentAt": A_TIME,
    }  # fmt: skip
    again = _spend(calls, run_id, approval.id)
    assert (again.status_code, again.json()["code"]) == (409, "approval_unspendable")
    assert calls.complete(run_id, status="succeeded").status_code == 200
    assert _spend(calls, run_id, approval.id).json()["code"] == "run_state"
    assert asking.actions(run_id)[-5:] == [
        "run.started", "run.waiting", "run.claimed", "run.started", "run.completed",
    ]  # fmt: skip


class TestRulesThatChange:
    """What the rules were when a run asked holds for it, whatever the trigger becomes."""

    @cases("rules", [[], [{"tools": ["look"]}]], undone=True)
    def test_a_rejected_call_is_handed_out_with_the_rules_by_which_its_run_asked(
        self, cast: Cast, asking: Runs, calls: WorkerCalls, rules: Any
    ) -> None:
        run_id = asking.waiting()
        change = {"approvals": rules, "allowHostTools": True}
        url = f"/api/v1/triggers/{asking.trigger_id}"
        assert cast.client(cast.owner).patch(url, change).status_code == 200
        asking.decide(run_id, approve=False)
        assert calls.poll().json()["runs"] == []
        assert calls.claim_next(claimId="n").json()["run"] is None
        assert calls.claim(run_id).json()["code"] == "worker_lacks_features"
        first, *others = [{"tools": ["send_mail"], "when": "always"}] + [
            {**rule, "when": "always"} for rule in rules
        ]
        (polled,) = calls.poll(features="approvals").json()["runs"]
        claimed = calls.claim_next(claimId="b", **FEATURES).json()["run"]
        # A repeated call gets the run that it has claimed.
        again = calls.claim_next(claimId="b", **FEATURES).json()["run"]
        assert calls.claim_next(claimId="b").json()["run"] is None
        for given in (polled, claimed, again):
            approvals = given["approvals"]
            assert (approvals["rules"], approvals["allowHostTools"]) == ([first, *others], False)
            decision = approvals["decision"]
            assert (decision["decision"], decision["tool"]) == ("reject", "send_mail")

    def test_they_hold_in_its_next_spells_and_for_a_tool_that_no_rule_names_any_more(
        self, asking: Runs, calls: WorkerCalls
    ) -> None:
        run_id = asking.waiting()
        Trigger.objects.update(approvals=[RULES[0] | {"tools": ["look"], "approverRole": "admin"}])
        asking.decide(run_id)
        asking.claim(run_id)
        asking.ask(run_id)
        # The worker may have asked by the rule of the spell before.
        assert asking.approval_of(run_id)["role"] == "operator"
        asking.decide(run_id)
        asking.claim(run_id)
        Trigger.objects.update(approvals=None)
        asking.ask(run_id, approval={**QUESTION, "tool": "look"})
        assert asking.approval_of(run_id)["role"] == "admin"
        other = asking.running()
        asking.ask(other)
        asking.decide(other)
        given = {each["id"]: each for each in calls.poll(features="approvals").json()["runs"]}
        assert given[str(other)]["approvals"]["rules"] == [
            {"tools": ["send_mail"], "when": "always"}
        ]

    def test_a_run_that_a_release_before_parked_keeps_its_decision(
        self, asking: Runs, calls: WorkerCalls
    ) -> None:
        """That release kept no rules."""
        asking.decided(approve=False)
        Approval.objects.update(rules=None, allow_host_tools=None)
        Trigger.objects.update(approvals=None)
        assert calls.poll().json()["runs"] == []
        (given,) = calls.poll(features="approvals").json()["runs"]
        assert given["approvals"]["rules"] == []
        assert given["approvals"]["decision"]["decision"] == "reject"


def test_a_trigger_without_rules_hands_out_as_before(runs: Runs, calls: WorkerCalls) -> None:
    runs.now = database_now()
    runs.queue()
    (given,) = calls.poll(features="approvals").json()["runs"]
    assert "approvals" not in given


def test_arguments_are_text_for_operators_alone_and_hide_nothing(cast: Cast, asking: Runs) -> None:
    hidden = "pay\u202e001 to\u200b eve\u0007\u00a0\U000e0041"
    calls = [{"at": "2026-05-04T12:00:00.000Z", "tool": "read", "outcome": "ok", "effect": "none"}]
    run_id = asking.running()
    question = {**QUESTION, "arguments": {"text": hidden, "b": 1, "a": [2.5]}}
    asking.ask(
        run_id,
        approval=question,
        toolCalls={"total": 1, "effects": 0, "unknown": 0},
        toolCallList=calls,
    )
    url = f"/api/v1/approvals/{asking.approval_of(run_id)['id']}"
    shown = cast.client(cast.operator).get(url).json()
    text = r"pay\u202e001 to\u200b eve\u0007\u00a0\udb40\udc41"
    assert shown["arguments"] == (f'{{\n  "text": "{text}",\n  "b": 1,\n  "a": [\n    2.5\n  ]\n}}')
    assert json.loads(shown["arguments"]) == question["arguments"]
    assert [call["tool"] for call in shown["toolCalls"]] == ["read"]
    for_viewers = cast.client(cast.viewer).get(url).json()
    assert (for_viewers["arguments"], for_viewers["argumentsHash"]) == (None, None)


def test_each_character_that_nobody_sees_is_an_escape() -> None:
    unseen = "\u00ad\u061c\u115f\u180e\u2028\u2060\u2066\u2800\u3164\ufe0f\ufeff\x7f\x9b"
    assert seen(unseen) == '"' + "".join(f"\\u{ord(each):04x}" for each in unseen) + '"'
    assert seen("Grüße, 世界 🙂") == '"Grüße, 世界 🙂"'


class TestWhoDecides:
    @cases(
        ("role", "decides"),
        [
            ("operator", {"operator", "admin", "owner"}),
            ("admin", {"admin", "owner"}),
            ("owner", {"owner"}),
        ],
        undone=True,
    )
    def test_the_rules_role(self, cast: Cast, asking: Runs, role: str, decides: set[str]) -> None:
        Trigger.objects.update(approvals=[RULES[0] | {"approverRole": role}])
        for name in ("viewer", "operator", "admin", "owner"):
            run_id = asking.running()
            asking.ask(run_id)
            client = cast.client(getattr(cast, name))
            approval_id = asking.approval_of(run_id)["id"]
            url = f"/api/v1/approvals/{approval_id}"
            assert client.get(url).json()["mayDecide"] == (name in decides)
            assert _decide(client, approval_id).status_code == (200 if name in decides else 403)

    def test_no_key_and_no_worker(self, cast: Cast, asking: Runs) -> None:
        run_id = asking.running()
        asking.ask(run_id)
        approval_id = asking.approval_of(run_id)["id"]
        for client in (cast.key_client("admin"), cast.worker_client()):
            assert _decide(client, approval_id).status_code == 401
        assert asking.stored(run_id)["status"] == "waiting"

    def test_not_who_requested_the_run_or_changed_the_trigger(
        self, cast: Cast, asking: Runs, calls: WorkerCalls
    ) -> None:
        """A key counts as the user who minted it."""
        url = f"/api/v1/triggers/{asking.trigger_id}"
        rules = [RULES[0] | {"notRequester": True}]
        assert cast.client(cast.admin).patch(url, {"approvals": rules}).status_code == 200
        asking.take_approvals()
        barred = []
        for requester in (cast.key_client(), cast.client(cast.operator)):
            run_id = requester.post(f"{url}/run").json()["id"]
            calls.claim(run_id, **FEATURES)
            calls.complete(run_id, status="waiting", sessionId="s", approval=QUESTION)
            approval = asking.approval_of(run_id)
            barred.append(set(approval["barred"]))
            for user_id in approval["barred"]:
                user = next(
                    each for each in (cast.operator, cast.admin, cast.owner) if each.id == user_id
                )
                assert _decide(cast.client(user), approval["id"]).status_code == 403
            asking.cancel(run_id)
        # The cast's keys are the owner's. The admin changed the trigger.
        assert barred == [{cast.owner.id, cast.admin.id}, {cast.operator.id, cast.admin.id}]

    def test_not_who_requested_an_earlier_run_that_it_repeats(
        self, cast: Cast, asking: Runs, calls: WorkerCalls
    ) -> None:
        Trigger.objects.update(
            approvals=[RULES[0] | {"notRequester": True}], max_retries=1, changed_by=None
        )
        url = f"/api/v1/triggers/{asking.trigger_id}/run"
        first = cast.client(cast.operator).post(url).json()["id"]
        asking.now = database_now()
        asking.claim(first)
        asking.complete(first, "failed", faultClass="client")
        rerun = cast.client(cast.admin).post(f"/api/v1/runs/{first}/rerun").json()["id"]
        asking.now = database_now()
        asking.claim(rerun)
        asking.complete(rerun, "failed", faultClass="infra")
        retry = asking.claimed_retry_of(rerun)
        asking.ask(retry)
        barred = set(asking.approval_of(retry)["barred"])
        assert barred == {cast.operator.id, cast.admin.id}
        # Whoever runs it once more is barred as well.
        asking.cancel(retry)
        again = cast.key_client().post(f"/api/v1/runs/{retry}/rerun").json()["id"]
        asking.now = database_now()
        asking.claim(again)
        asking.ask(again)
        assert set(asking.approval_of(again)["barred"]) == barred | {cast.owner.id}

    def test_nobody_who_changed_the_trigger_since_the_last_decision_or_while_the_run_waits(
        self, cast: Cast, asking: Runs
    ) -> None:
        Membership.objects.filter(user__in=(cast.operator, cast.viewer)).update(role="owner")
        Membership.objects.filter(user=cast.admin).update(role="owner")
        url = f"/api/v1/triggers/{asking.trigger_id}"

        def change(client: Any, text: str) -> None:
            assert client.patch(url, {"description": text}).status_code == 200

        def decides(user: Any, run_id: Any) -> bool:
            approval_id = asking.approval_of(run_id)["id"]
            client = cast.client(user)
            may = client.get(f"/api/v1/approvals/{approval_id}").json()["mayDecide"]
            assert _decide(client, approval_id).status_code == (200 if may else 403)
            return bool(may)

        rules = [RULES[0] | {"notRequester": True}]
        assert cast.client(cast.admin).patch(url, {"approvals": rules}).status_code == 200
        # A key counts as the user who minted it, however many change the trigger after them.
        change(cast.key_client("admin"), "a")
        change(cast.client(cast.admin), "b")
        change(cast.client(cast.operator), "c")
        run_id, waits = asking.running(), asking.running()
        asking.ask(run_id)
        asking.ask(waits)
        changers = {cast.admin.id, cast.owner.id, cast.operator.id}
        assert set(asking.approval_of(run_id)["barred"]) == changers
        assert not any(decides(user, run_id) for user in (cast.admin, cast.owner, cast.operator))
        assert decides(cast.viewer, run_id)

        # The changes before a decision count no more, but for runs that waited by then.
        run_id = asking.running()
        asking.ask(run_id)
        assert asking.approval_of(run_id)["barred"] == []
        assert not decides(cast.admin, waits)
        for user in (cast.admin, cast.operator):
            change(cast.client(user), user.email)
        headers = {"mcpHeaders": {"Authorization": "Bearer planted-header-9"}}
        assert cast.client(cast.owner).post(f"{url}/rotate-mcp-token", headers).status_code == 200
        assert not any(decides(user, run_id) for user in (cast.admin, cast.owner, cast.operator))
        assert set(asking.approval_of(waits)["barred"]) == changers
        assert decides(cast.viewer, run_id)

    def test_nobody_ends_the_bar_of_the_own_change_by_an_own_decision(
        self, cast: Cast, asking: Runs
    ) -> None:
        """A rule about another tool may let them decide."""
        url = f"/api/v1/triggers/{asking.trigger_id}"
        rules = [RULES[0], RULES[0] | {"tools": ["pay"], "notRequester": True}]
        assert cast.client(cast.admin).patch(url, {"approvals": rules}).status_code == 200
        first, second = asking.running(), asking.running()
        asking.ask(first)
        assert _decide(cast.client(cast.admin), asking.approval_of(first)["id"]).status_code == 200
        asking.ask(second, approval={**QUESTION, "tool": "pay"})
        assert asking.approval_of(second)["barred"] == [cast.admin.id]

    def test_not_who_gave_the_trigger_another_worker_by_deregistering_its_own(
        self, cast: Cast, asking: Runs
    ) -> None:
        Trigger.objects.update(approvals=[RULES[0] | {"notRequester": True}], changed_by=None)
        heir = cast.register("two", max_concurrency=2).worker_id
        url = f"/api/v1/workers/{cast.worker.worker_id}?reassignTo={heir}"
        assert cast.client(cast.admin).delete(url).status_code == 204
        asking.take_approvals(heir)
        run_id = asking.running(worker_id=heir)
        asking.ask(run_id, worker_id=heir)
        assert asking.approval_of(run_id)["barred"] == [cast.admin.id]

    def test_the_strictest_of_several_rules_holds_and_without_one_an_owner_decides(
        self, asking: Runs
    ) -> None:
        strict = {**RULES[0], "tools": "*", "approverRole": "admin", "expiresAfterSeconds": 60}
        Trigger.objects.update(approvals=[*RULES, strict])
        first, second = asking.running(), None
        asking.ask(first)
        approval = asking.approval_of(first)
        assert approval["role"] == "admin"
        assert (approval["expires_at"] - approval["created_at"]).total_seconds() == 60
        second = asking.running()
        Trigger.objects.update(approvals=None)
        asking.ask(second)
        assert asking.approval_of(second)["role"] == "owner"


@cases("late", ["decided", "canceled", "expired", "about to expire"], undone=True)
def test_a_decision_that_comes_too_late_says_why(cast: Cast, asking: Runs, late: str) -> None:
    if "expire" in late:
        asking.wait(minutes=-10)
    run_id = asking.running()
    asking.ask(run_id)
    if late == "decided":
        asking.decide(run_id, approve=False)
    elif late == "canceled":
        asking.cancel(run_id)
    elif late == "expired":
        asking.now = database_now()
        asking.expire_queued()
    answer = _decide(cast.client(cast.owner), asking.approval_of(run_id)["id"])
    told = (answer.json()["code"], answer.json()["approvalStatus"])
    assert answer.status_code == 409
    assert told == {
        "decided": ("approval_decided", "rejected"),
        "canceled": ("approval_decided", "withdrawn"),
    }.get(late, ("approval_expired", "expired"))


def test_nobody_decides_in_time(asking: Runs) -> None:
    run_id = asking.waiting()
    asking.wait(minutes=10)
    asking.expire_queued()
    run = asking.stored(run_id)
    assert (run["status"], run["fault_class"], run["ended_by"]) == (
        "failed", "client", "approval_expired",
    )  # fmt: skip
    assert "reject" not in run["error_message"].replace("approved or rejected", "")
    assert (asking.approval_of(run_id)["status"], asking.retry_of(run_id)) == ("expired", None)


def test_the_machine_has_an_hour_after_a_late_decision(asking: Runs) -> None:
    run_id = asking.waiting()
    asking.wait(minutes=9)
    asking.decide(run_id)
    asking.wait(minutes=59)
    assert (asking.expire_queued(), asking.polled()) == (0, [run_id])
    asking.wait(minutes=1)
    assert (asking.polled(), asking.expire_queued()) == ([], 1)
    run = asking.stored(run_id)
    assert (run["status"], run["fault_class"], run["ended_by"]) == (
        "failed", "infra", "approval_unreachable",
    )  # fmt: skip
    assert asking.retry_of(run_id) is None


def test_a_decided_run_stays_its_workers_whatever_the_trigger_becomes(
    cast: Cast, asking: Runs
) -> None:
    run_id = asking.waiting()
    asking.decide(run_id)
    url = f"/api/v1/triggers/{asking.trigger_id}"
    other = cast.register("two").worker_id
    assert cast.client(cast.owner).patch(url, {"workerId": str(other)}).status_code == 200
    assert cast.client(cast.owner).delete(url).json()["code"] == "unfinished_runs"
    Worker.objects.filter(id=other).update(features=["approvals"])
    assert (asking.polled(other), asking.polled()) == ([], [run_id])


def test_what_waits_for_a_deregistered_worker_ends(cast: Cast, asking: Runs) -> None:
    waiting, worker_id = asking.waiting(), cast.worker.worker_id
    assert count_unfinished_runs(worker_id=worker_id) == 1
    url = f"/api/v1/workers/{worker_id}"
    assert cast.client(cast.owner).delete(url).json()["code"] == "has_children"
    heir = cast.register("two").worker_id
    assert cast.client(cast.owner).delete(f"{url}?reassignTo={heir}").status_code == 204
    asking.now = database_now()
    asking.expire_queued()
    assert asking.stored(waiting)["ended_by"] == "approval_unreachable"


class TestSpells:
    """What a worker reports counts for one spell, and the run has the sums."""

    def test_numbers_and_durations_add_up(self, asking: Runs) -> None:
        told: dict[str, Any] = {
            "inputTokens": 2,
            "outputTokens": 3,
            "numTurns": 1,
            "costUsd": "0.5",
        }
        call = {"at": "2026-05-04T12:00:00.000Z", "outcome": "ok", "effect": "none"}
        run_id = asking.running()
        asking.wait(seconds=7)
        asking.ask(
            run_id,
            **told,
            toolCalls={"total": 2, "effects": 1, "unknown": 1},
            toolCallList=[{**call, "tool": "a"}],
            denials={"total": 1, "tools": ["x"]},
        )
        asking.wait(seconds=100)
        asking.decide(run_id)
        asking.claim(run_id)
        asking.start(run_id)
        asking.heartbeat(run_id, (1, 0, 1))
        assert asking.counts(run_id) == (3, 1, 2)
        asking.wait(seconds=5)
        ended = asking.complete(
            run_id,
            **told,
            toolCalls={"total": 3, "effects": 3, "unknown": 0},
            toolCallList=[{**call, "tool": "b"}],
            denials={"total": 2, "tools": ["y"]},
        )
        assert (ended["input_tokens"], ended["output_tokens"], ended["num_turns"]) == (4, 6, 2)
        assert (ended["cost_usd"], ended["active_ms"]) == (1, 7000)
        run = asking.stored(run_id)
        assert asking.counts(run_id) == (5, 4, 1)
        assert [each["tool"] for each in run["tool_calls"]] == ["a", "b"]
        assert (run["denials_total"], run["denied_tools"]) == (3, ["x", "y"])
        shown = asking.cast.client(asking.cast.viewer).get(f"/api/v1/runs/{run_id}").json()
        assert (shown["durationMs"], shown["denials"]) == (
            12_000,
            {"total": 3, "tools": ["x", "y"]},
        )
        seconds = [
            (
                each["phase"],
                (datetime.fromisoformat(each["to"]) - datetime.fromisoformat(each["from"])).seconds,
            )
            for each in shown["phases"]
        ]
        assert seconds == [("running", 7), ("waiting", 100), ("running", 5)]

    def test_the_time_of_waiting_is_none_of_the_duration(self, asking: Runs) -> None:
        run_id = asking.running()
        asking.wait(seconds=3)
        asking.ask(run_id)
        asking.wait(minutes=5)
        asking.cancel(run_id)
        shown = asking.cast.client(asking.cast.viewer).get(f"/api/v1/runs/{run_id}").json()
        assert (shown["status"], shown["durationMs"]) == ("canceled", 3000)

    def test_sums_stay_within_their_columns(self, asking: Runs) -> None:
        most: dict[str, Any] = {
            "inputTokens": 2**63 - 1,
            "numTurns": 2**31 - 1,
            "costUsd": "99999999",
            "toolCalls": {"total": 2**31 - 1, "effects": 2**31 - 1, "unknown": 0},
        }
        run_id = asking.running()
        asking.ask(run_id, **most)
        asking.decide(run_id)
        asking.claim(run_id)
        asking.heartbeat(run_id, (2**31 - 1, 1, 1))
        ended = asking.complete(run_id, **most)
        assert (ended["input_tokens"], ended["num_turns"]) == (2**63 - 1, 2**31 - 1)

    def test_budgets_settle_each_spell_and_count_the_run_once(self, asking: Runs) -> None:
        budget = add_budget(asking.cast, limit_usd="3", limit_runs=1, reserve_usd="2")
        run_id = asking.running()
        asking.ask(run_id, costUsd="0.5")
        assert used(budget) == ("0.5", "0", 1)
        asking.decide(run_id)
        assert asking.polled() == [run_id]
        asking.claim(run_id)
        assert used(budget) == ("0.5", "2", 1)
        asking.ask(run_id, costUsd="0.25")
        assert used(budget) == ("0.75", "0", 1)
        asking.decide(run_id)
        asking.wait(days=1)
        Run.objects.filter(id=run_id).update(resume_until=asking.wait(hours=1))
        asking.wait(hours=-1)
        asking.claim(run_id)
        # The next day's window does not count the run again.
        assert used(budget) == ("0", "2", 0)
        asking.start(run_id)
        asking.lost(run_id)
        assert used(budget) == ("2", "0", 0)
        asking.complete(run_id, "succeeded", costUsd="1")
        assert used(budget) == ("1", "0", 0)

    def test_a_spell_waits_for_money(self, asking: Runs) -> None:
        add_budget(asking.cast, limit_usd="2", reserve_usd="2")
        run_id = asking.running()
        asking.ask(run_id, costUsd="0.5")
        asking.decide(run_id)
        assert asking.polled() == []

    def test_a_spell_that_waits_for_money_is_not_told_that_runs_are_used_up(
        self, asking: Runs
    ) -> None:
        budget = add_budget(asking.cast, limit_usd="2", reserve_usd="2", limit_runs=1)
        run_id = asking.running()
        asking.ask(run_id, costUsd="0.5")
        asking.decide(run_id)
        Budget.objects.filter(id=budget.id).update(limit_runs=0)
        told = explain_run(run_id, now=asking.now)
        assert told is not None
        (reason,) = (each for each in told.waiting_for if each.code == "budget_exhausted")
        assert "of its $2 for this day, $0.5 is spent and $0 reserved" in reason.message
        assert reason.until is not None, "the next day has room"
        assert str(reason.remedy).startswith("Raise its limit with PATCH /budgets/:id (limitUsd)")


class TestDenials:
    def test_a_success_with_denied_calls_fails_if_the_trigger_says_so(self, runs: Runs) -> None:
        denied: dict[str, Any] = {"denials": {"total": 30, "tools": [f"t{n}" for n in range(30)]}}
        run_id = runs.ended("succeeded", **denied)
        stored = runs.stored(run_id)
        assert (stored["status"], len(stored["denied_tools"])) == ("succeeded", 20)
        Trigger.objects.update(fail_on_denied=True)
        run_id = runs.ended("succeeded", **denied)
        stored = runs.stored(run_id)
        assert (stored["status"], stored["fault_class"]) == ("failed", "client")
        assert "failOnDenied" in stored["error_message"]
        assert runs.complete(run_id, "succeeded", **denied)["status"] == "failed"
        assert runs.stored(runs.ended("succeeded", denials={"total": 0, "tools": []}))[
            "status"
        ] == ("succeeded")

    @cases("denials", [None, 5, {}, {"total": -1}, {"total": "1"}, {"tools": ["a"]}], undone=True)
    def test_malformed_ones_are_ignored(self, runs: Runs, denials: Any) -> None:
        stored = runs.stored(runs.ended("succeeded", denials=denials))
        assert (stored["denials_total"], stored["denied_tools"]) == (None, None)


@cases(
    ("change", "field"),
    [
        ({"approval": None}, "approval"),
        ({"sessionId": None}, "sessionId"),
        ({"approval": {**QUESTION, "tool": ""}}, "approval"),
        ({"approval": {**QUESTION, "tool": "send\u200bmail"}}, "approval"),
        ({"approval": {**QUESTION, "argumentsHash": "A" * 64}}, "approval"),
        ({"approval": {**QUESTION, "arguments": "x" * (MAX_ARGUMENTS_BYTES - 1)}}, "approval"),
        ({"approval": {"tool": "send_mail"}}, "approval"),
    ],
    undone=True,
)
def test_a_question_that_nobody_could_answer_is_a_field_error(
    asking: Runs, calls: WorkerCalls, change: Any, field: str
) -> None:
    run_id = asking.running()
    body = {"status": "waiting", "sessionId": "s", "approval": QUESTION, **change}
    answer = calls.complete(run_id, **body)
    assert answer.status_code == 400
    assert list(answer.json()["details"]["fieldErrors"]) == [field]


def test_arguments_of_the_most_bytes_are_taken(asking: Runs) -> None:
    most = {**QUESTION, "arguments": "x" * (MAX_ARGUMENTS_BYTES - 2)}
    assert asking.stored(asking.waiting(approval=most))["status"] == "waiting"


def test_a_foreign_approval_is_not_there(cast: Cast, asking: Runs, calls: WorkerCalls) -> None:
    """Neither to another environment's owner, nor to a run that did not ask."""
    run_id, other = asking.waiting(), asking.running()
    approval_id = asking.approval_of(run_id)["id"]
    stranger = cast.client(cast.stranger)
    assert stranger.get(f"/api/v1/approvals/{approval_id}").status_code == 404
    assert _decide(stranger, approval_id).status_code == 404
    assert _spend(calls, other, approval_id).status_code == 404
    mate = bearer(cast.register("two").worker_token)
    worker_id = Worker.objects.get(hostname="two").id
    url = f"/api/v1/workers/{worker_id}/runs/{run_id}/approvals/{approval_id}/spend"
    assert mate.post(url).status_code == 404
