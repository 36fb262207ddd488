"""POST /workers/:id/claim-next, and `start` of a claim."""

from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db.models.functions import Now
from structlog.testing import capture_logs

from pipedai.ids import new_id
from pipedai.server.memory_budget import HOLDING, MIB, Holding, MemoryBudget
from pipedai.server.outer import LOG
from pipedai.server.ticket import POLL, PollTicket
from pipedai.sql import database_now, execute
from testing.probes.shapes import A_TIME, NOT_FOUND, invalid
from testing.probes.statement_count import counted
from testing.processes.worker_calls import WorkerCalls
from testing.world.budgets import add_budget
from testing.world.cast import Cast, register
from testing.world.pools import add_pool
from testing.world.runs import Runs, allow
from triggers.models import Run, RunReservation, RunText, Trigger
from triggers.runs import claim_next, handout
from workers.authentication import locked_limits
from workers.models import Worker, WorkerEvent
from workers.protocol import worker_views
from workspaces.models import Environment

HEADERS = {"x-api-key": "planted-secret-1"}
CLAIM_FIELDS = ("status", "claimedAt", "startedAt", "source", "cancelRequested", "environmentId")


@pytest.fixture
def calls(cast: Cast) -> WorkerCalls:
    return WorkerCalls(cast.worker)


@pytest.fixture
def runs(cast: Cast) -> Runs:
    runs = Runs.of(cast, mcp_headers=HEADERS)
    runs.now = database_now()
    return runs


def _taken(answer: Any) -> Any:
    assert answer.status_code == 200, answer.json()
    return answer.json()["run"]


def _id(answer: Any) -> UUID | None:
    run = _taken(answer)
    return run and UUID(run["id"])


class TestTheAnswer:
    def test_it_has_all_that_a_poll_and_a_claim_say(self, calls, runs):
        run_id = runs.queue(payload={"day": "monday"})
        (polled,) = calls.poll().json()["runs"]
        taken = _taken(calls.claim_next(claimId="mine"))
        assert {name: taken[name] for name in polled} == polled
        assert taken["mcpHeaders"] == HEADERS
        claimed = calls.claim(run_id, claimId="mine").json()
        assert {name: taken[name] for name in claimed} == claimed
        assert set(taken) == {*polled, *claimed}

    def test_without_a_run_it_is_null_beside_what_a_poll_tells(self, calls):
        assert calls.claim_next(claimId="mine").json() == {
            "run": None,
            "endedRuns": [],
            "serverTime": A_TIME,
            "authMode": "claude_max",
            "limitedUntil": None,
        }

    def test_the_run_is_claimed(self, calls, runs):
        run_id = runs.queue()
        assert _taken(calls.claim_next(claimId="mine"))["status"] == "claimed"
        stored = runs.stored(run_id)
        assert (stored["status"], stored["claim_id"], stored["slot"]) == ("claimed", "mine", 1)
        assert runs.actions(run_id) == ["run.created", "run.claimed"]
        assert stored["mcp_url"] == "https://mcp.example/v1"

    def test_with_start_it_is_running_and_both_are_audited(self, calls, runs):
        run_id = runs.queue()
        taken = _taken(calls.claim_next(claimId="mine", start=True))
        assert (taken["status"], taken["startedAt"]) == ("running", taken["claimedAt"])
        assert runs.actions(run_id) == ["run.created", "run.claimed", "run.started"]
        states = [entry.metadata["status"] for entry in runs.audited(run_id)]
        assert states == ["queued", "claimed", "running"]
        assert runs.stored(run_id)["deadline_at"] > runs.now + timedelta(seconds=1800 + 59)

    def test_the_first_run_that_a_poll_would_return_comes_first(self, cast, calls, runs):
        allow(cast.worker.worker_id, 9)
        later = runs.queue()
        pool_id = add_pool(cast, cast.worker.worker_id)
        of_pool = Runs.of(cast, worker_id=None, pool_id=pool_id)
        of_pool.now = runs.now - timedelta(minutes=2)
        runs.now -= timedelta(minutes=1)
        first, second = of_pool.queue(), runs.queue()
        listed = [UUID(run["id"]) for run in calls.poll().json()["runs"]]
        assert listed == [first, second, later]
        assert [_id(calls.claim_next(claimId=str(n))) for n in range(4)] == [*listed, None]

    def test_the_hand_out_is_logged_and_remembered_as_a_poll_s_is(self, cast, calls, runs):
        run_id = runs.queue()
        client, path = cast.worker_client(), f"/api/v1/workers/{cast.worker.worker_id}"
        with capture_logs() as logs:
            assert client.get(f"{path}/poll", REMOTE_ADDR="192.0.2.1").status_code == 200
            body = {"claimId": "mine"}
            answer = client.post(f"{path}/claim-next", body, REMOTE_ADDR="192.0.2.2")
        assert _id(answer) == run_id
        told = [line["address"] for line in logs if line["event"] == "run.handed_out"]
        assert told == ["192.0.2.1", "192.0.2.2"]
        assert sorted(runs.actions(run_id)) == ["run.claimed", "run.created", "run.handed-out"]
        handed_to = RunText.objects.get(run_id=run_id).handed_to
        assert handed_to is not None
        assert handed_to[0].endswith("192.0.2.2")

    def test_the_worker_is_seen_and_may_name_its_account(self, cast):
        url = f"/api/v1/workers/{cast.worker.worker_id}/claim-next"
        cast.worker_client().post(url, {"claimId": "mine"}, HTTP_X_PIPEDAI_ACCOUNT_ID="an-account")
        worker = Worker.objects.get(id=cast.worker.worker_id)
        assert worker.last_seen_at is not None
        assert worker.account_id == "an-account"


class TestTheCostLimit:
    """What a claim reserves in a budget is what it tells, also if the trigger changes meanwhile."""

    @pytest.fixture(autouse=True)
    def budget(self, cast, request):
        if "without_a_budget" not in request.node.name:
            add_budget(cast, reserve_usd="3")

    def cap(self, runs, amount):
        Trigger.objects.filter(id=runs.trigger_id).update(max_cost_usd=amount)

    @pytest.mark.parametrize("caps", [("150", "1"), (None, "1"), ("150", None)])
    @pytest.mark.parametrize("most_at_once", [None, 1])
    def test_it_is_what_was_reserved(self, calls, runs, monkeypatch, caps, most_at_once):
        self._change_between_the_statements(calls, runs, monkeypatch, caps, most_at_once)
        (reserved,) = RunReservation.objects.all()
        assert reserved.amount_usd == Decimal(caps[1] or "3")

    def test_without_a_budget_it_is_what_the_claim_reads(self, calls, runs, monkeypatch):
        self._change_between_the_statements(calls, runs, monkeypatch, ("150", "1"), None)
        assert not RunReservation.objects.exists()

    def _change_between_the_statements(self, calls, runs, monkeypatch, caps, most_at_once):
        """The trigger is changed after the call has read its run, and before it claims it."""

        def change(worker, **features):
            self.cap(runs, caps[1])
            return locked_limits(worker, **features)

        monkeypatch.setattr(worker_views, "locked_limits", change)
        Trigger.objects.filter(id=runs.trigger_id).update(max_concurrent_runs=most_at_once)
        self.cap(runs, caps[0])
        runs.queue()
        assert _taken(calls.claim_next(claimId="mine"))["maxCostUsd"] == caps[1]

    @pytest.mark.parametrize("caps", [("1", "150"), ("1", None), (None, "1")])
    @pytest.mark.parametrize("start", [False, True])
    def test_a_repeated_call_tells_the_same(self, calls, runs, caps, start):
        self.cap(runs, caps[0])
        run_id = runs.queue()
        add_budget(runs.cast, reserve_usd="0.5", trigger_id=runs.trigger_id)
        tell = [
            lambda: _taken(calls.claim_next(claimId="mine", start=start)),
            lambda: calls.claim(run_id, claimId="mine", start=start).json(),
        ]
        for told in (tell[0], *tell, tell[1]):
            assert told()["maxCostUsd"] == caps[0]
            self.cap(runs, caps[1])
        if not start:
            assert calls.claim(run_id, claimId="mine", start=True).json()["maxCostUsd"] == caps[0]
            assert calls.claim(run_id, claimId="mine", start=True).json()["maxCostUsd"] == caps[0]

    @pytest.mark.parametrize("start", [False, True])
    def test_a_claim_answers_it_where_the_poll_told_another(self, calls, runs, start):
        self.cap(runs, "150")
        run_id = runs.queue()
        assert calls.poll().json()["runs"][0]["maxCostUsd"] == "150"
        self.cap(runs, "2.5")
        assert calls.claim(run_id, claimId="mine", start=start).json()["maxCostUsd"] == "2.5"
        (reserved,) = RunReservation.objects.all()
        assert reserved.amount_usd == Decimal("2.5")

    def test_a_repeated_call_without_a_budget_tells_the_present_one(self, calls, runs):
        self.cap(runs, "1")
        run_id = runs.queue()
        assert _taken(calls.claim_next(claimId="mine"))["maxCostUsd"] == "1"
        self.cap(runs, "2")
        assert _taken(calls.claim_next(claimId="mine"))["maxCostUsd"] == "2"
        assert calls.claim(run_id, claimId="mine").json()["maxCostUsd"] == "2"


class TestARepeatedCall:
    @pytest.mark.parametrize("start", [False, True])
    def test_it_gets_the_same_run_with_its_headers(self, cast, calls, runs, start):
        allow(cast.worker.worker_id, 5)
        run_id, other = runs.queue(), runs.queue()
        first = _taken(calls.claim_next(claimId="mine", start=start))
        again = _taken(calls.claim_next(claimId="mine", start=start))
        assert first == again
        assert (UUID(again["id"]), again["mcpHeaders"]) == (run_id, HEADERS)
        assert runs.stored(other)["status"] == "queued"
        claims = [action for action in runs.actions(run_id) if action == "run.claimed"]
        assert len(claims) == 1

    def test_also_where_the_worker_is_full_disabled_or_its_environment_paused(
        self, cast, calls, runs
    ):
        run_id = runs.queue()
        calls.claim_next(claimId="mine")
        assert _id(calls.claim_next(claimId="mine")) == run_id
        Worker.objects.update(disabled_at=Now(), limited_until=Now() + timedelta(hours=1))
        assert _id(calls.claim_next(claimId="mine")) == run_id
        Environment.objects.filter(id=cast.environment.id).update(paused_at=Now())
        assert _id(calls.claim_next(claimId="mine")) == run_id

    def test_after_its_start_it_gets_the_running_run(self, calls, runs):
        run_id = runs.queue()
        calls.claim_next(claimId="mine")
        calls.start(run_id)
        assert _taken(calls.claim_next(claimId="mine"))["status"] == "running"

    def test_with_start_it_starts_what_was_only_claimed(self, calls, runs):
        run_id = runs.queue()
        calls.claim_next(claimId="mine")
        assert _taken(calls.claim_next(claimId="mine", start=True))["status"] == "running"
        assert runs.actions(run_id) == ["run.created", "run.claimed", "run.started"]

    def test_it_tells_of_a_cancel(self, cast, calls, runs):
        run_id = runs.queue()
        calls.claim_next(claimId="mine")
        runs.cancel(run_id)
        assert _taken(calls.claim_next(claimId="mine"))["cancelRequested"] is True

    def test_when_the_run_has_ended_it_gets_another(self, calls, runs):
        first, second = runs.queue(), runs.queue()
        assert _id(calls.claim_next(claimId="mine")) == first
        calls.complete(first, status="succeeded")
        assert _id(calls.claim_next(claimId="mine")) == second

    def test_it_continues_the_session_that_it_was_to_continue(self, calls, runs):
        Trigger.objects.filter(id=runs.trigger_id).update(retry_mode="resume")
        run_id = runs.running()
        calls.complete(run_id, status="failed", faultClass="infra", sessionId="a-session")
        Run.objects.filter(retry_of=run_id).update(
            available_at=Now(), resume_until=Now() + timedelta(hours=1)
        )
        first = _taken(calls.claim_next(claimId="mine"))
        assert first["resumeSessionId"] == "a-session"
        assert _taken(calls.claim_next(claimId="mine")) == first

    def test_it_is_of_another_worker_another_call(self, cast, calls, runs):
        runs.queue()
        calls.claim_next(claimId="mine")
        other = WorkerCalls(cast.register("host-2"))
        assert _taken(other.claim_next(claimId="mine")) is None

    def test_a_worker_that_is_no_more_approved_gets_no_headers(self, calls, runs):
        runs.queue()
        calls.claim_next(claimId="mine")
        Worker.objects.update(unapproved_since=Now())
        assert _taken(calls.claim_next(claimId="mine")) is None

    def test_headers_that_do_not_open_any_more_hold_back_the_run(self, cast, calls, runs):
        allow(cast.worker.worker_id, 5)
        runs.queue()
        calls.claim_next(claimId="mine")
        other = runs.queue(trigger_id=cast.trigger_id)
        _spoil_headers(runs)
        assert _taken(calls.claim_next(claimId="mine")) is None
        assert runs.stored(other)["status"] == "queued"

    def test_it_does_not_take_a_run_that_ends_in_this_moment(self, calls, runs, monkeypatch):
        run_id = runs.queue()
        calls.claim_next(claimId="mine")
        read = handout.read_claimed

        def reading(**which: Any) -> Any:
            held = read(**which)
            calls.complete(run_id, status="succeeded")
            return held

        monkeypatch.setattr(claim_next, "read_claimed", reading)
        assert _taken(calls.claim_next(claimId="mine")) is None
        assert _taken(calls.claim_next(claimId="mine", start=True)) is None


def _spoil_headers(runs: Runs) -> None:
    execute(
        "UPDATE trigger SET mcp_headers = set_byte(mcp_headers, 40, get_byte(mcp_headers, 40) # 1)"
        " WHERE id = %(id)s",
        {"id": runs.trigger_id},
    )


class TestWhatIsNotGivenOut:
    """What a poll would not return, and what a claim would refuse."""

    def test_a_run_whose_headers_do_not_open_lets_the_next_one_by(self, cast, calls, runs):
        broken, sound = runs.queue(), runs.queue(trigger_id=cast.trigger_id)
        _spoil_headers(runs)
        assert _id(calls.claim_next(claimId="mine")) == sound
        assert runs.stored(broken)["status"] == "queued"

    def test_a_full_trigger_lets_another_by(self, cast, calls, runs):
        allow(cast.worker.worker_id, 5)
        Trigger.objects.filter(id=runs.trigger_id).update(max_concurrent_runs=1)
        first, _, other = runs.queue(), runs.queue(), runs.queue(trigger_id=cast.trigger_id)
        assert [_id(calls.claim_next(claimId=str(n))) for n in range(3)] == [first, other, None]
        assert runs.stored(first)["trigger_slot"] == 1

    def test_with_start_too_it_has_its_place(self, calls, runs):
        Trigger.objects.filter(id=runs.trigger_id).update(max_concurrent_runs=1)
        first = runs.queue()
        assert _taken(calls.claim_next(claimId="mine", start=True))["status"] == "running"
        assert runs.stored(first)["trigger_slot"] == 1

    def test_a_budget_without_room_holds_it(self, cast, calls, runs):
        allow(cast.worker.worker_id, 5)
        add_budget(cast, limit_runs=1)
        first, _ = runs.queue(), runs.queue()
        assert [_id(calls.claim_next(claimId=str(n))) for n in range(2)] == [first, None]

    def test_a_budget_that_fills_in_this_moment_undoes_the_claim(
        self, cast, calls, runs, monkeypatch
    ):
        add_budget(cast, limit_runs=5)
        run_id = runs.queue()
        monkeypatch.setattr("triggers.runs.lifecycle.reserve", lambda _: False)
        assert _taken(calls.claim_next(claimId="mine")) is None
        assert runs.stored(run_id)["status"] == "queued"
        assert runs.actions(run_id) == ["run.created"]

    @pytest.mark.parametrize("now_is", ["disabled", "limited", "unapproved", "paused"])
    def test_as_a_poll_would_not(self, cast, calls, runs, now_is):
        runs.queue()
        _bring(cast, now_is)
        assert _taken(calls.claim_next(claimId="mine")) is None

    @pytest.mark.parametrize("now_is", ["disabled", "limited", "unapproved", "paused"])
    def test_also_if_that_changes_between_reading_and_claiming(
        self, cast, calls, runs, monkeypatch, now_is
    ):
        run_id, choose = runs.queue(), handout.choose_runs

        def choosing(**which: Any) -> Any:
            chosen = choose(**which)
            _bring(cast, now_is)
            return chosen

        monkeypatch.setattr(claim_next, "choose_runs", choosing)
        assert _taken(calls.claim_next(claimId="mine")) is None
        assert runs.stored(run_id)["status"] == "queued"


def _bring(cast: Cast, state: str) -> None:
    if state == "paused":
        Environment.objects.filter(id=cast.environment.id).update(paused_at=Now())
        return
    column = {"disabled": "disabled_at", "unapproved": "unapproved_since"}.get(state)
    values = {column: Now()} if column else {"limited_until": Now() + timedelta(hours=1)}
    Worker.objects.update(**values)


class TestARaceWithOthers:
    @pytest.fixture
    def pool(self, cast: Cast, runs: Runs) -> Runs:
        """Runs that any of two workers may take."""
        self.rival = cast.register("host-2", max_concurrency=50)
        pool_id = add_pool(cast, cast.worker.worker_id, self.rival.worker_id)
        of_pool = Runs.of(cast, worker_id=None, pool_id=pool_id)
        of_pool.now = runs.now
        return of_pool

    def _lose(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        """Lets the rival claim each run that was read, `times` times."""
        choose, rival, left = handout.choose_runs, WorkerCalls(self.rival), [times]

        def choosing(**which: Any) -> Any:
            chosen = choose(**which)
            if left[0]:
                left[0] -= 1
                assert rival.claim(chosen[0].row["id"]).status_code == 200
            return chosen

        monkeypatch.setattr(claim_next, "choose_runs", choosing)

    def test_if_another_is_faster_it_gets_the_next_one(self, calls, pool, monkeypatch):
        queued = [pool.queue() for _ in range(3)]
        self._lose(monkeypatch, 2)
        assert _id(calls.claim_next(claimId="mine")) == queued[2]

    def test_after_a_few_tries_it_gives_up_and_a_waiting_call_asks_again_soon(
        self, cast, pool, monkeypatch
    ):
        for _ in range(handout.MOST_TRIES + 1):
            pool.queue()
        self._lose(monkeypatch, handout.MOST_TRIES)
        ticket = PollTicket(cast.worker.worker_id)
        environ: Any = {"asgi.scope": {POLL: ticket}}
        ask = partial(
            cast.worker_client().post,
            f"/api/v1/workers/{cast.worker.worker_id}/claim-next",
            {"claimId": "mine", "wait": 5},
        )
        assert _taken(ask(**environ)) is None
        assert (ticket.empty, ticket.next_due_seconds) == (True, 1.0)
        assert _taken(ask()) is not None


class TestTheBody:
    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "claimId"),
            ({"claimId": None}, "claimId"),
            ({"claimId": ""}, "claimId"),
            ({"claimId": 7}, "claimId"),
            ({"claimId": "x" * 65}, "claimId"),
            ({"claimId": "mine", "start": "yes"}, "start"),
            ({"claimId": "mine", "start": 1}, "start"),
            ({"claimId": "mine", "start": None}, "start"),
            ({"claimId": "mine", "wait": 31}, "wait"),
            ({"claimId": "mine", "wait": -1}, "wait"),
            ({"claimId": "mine", "wait": 0.5}, "wait"),
            ({"claimId": "mine", "wait": "5"}, "wait"),
            ({"claimId": "mine", "wait": None}, "wait"),
        ],
    )
    def test_a_bad_one_is_a_field_error_and_claims_nothing(self, calls, runs, body, field):
        run_id = runs.queue()
        response = calls.claim_next(**body)
        assert response.status_code == 400
        assert response.json()["code"] == "validation_failed"
        assert set(response.json()["details"]["fieldErrors"]) == {field}
        assert runs.stored(run_id)["status"] == "queued"

    def test_what_it_does_not_know_is_ignored(self, calls, runs):
        run_id = runs.queue()
        assert _id(calls.claim_next(claimId=" mine ", newer=[1])) == run_id
        assert runs.stored(run_id)["claim_id"] == " mine "

    def test_a_long_one_is_a_413(self, calls):
        response = calls.claim_next(claimId="mine", newer="x" * 16 * 1024)
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("which", ["a neighbour's", "a stranger's", "nobody's"])
def test_the_claim_of_another_worker_is_a_404(cast: Cast, which: str) -> None:
    other = {
        "a neighbour's": cast.register("host-2").worker_id,
        "a stranger's": register(cast.mint_elsewhere("wrk"), "host-3").worker_id,
        "nobody's": new_id(),
    }[which]
    url = f"/api/v1/workers/{other}/claim-next"
    response = cast.worker_client().post(url, {"claimId": "mine"})
    assert (response.status_code, response.json()) == (404, NOT_FOUND)


def _ended(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.json()
    ended: list[str] = answer.json()["endedRuns"]
    return ended


class TestWaiting:
    def ask(self, cast: Cast, ticket: PollTicket, log: dict[str, Any], **body: Any) -> Any:
        environ: Any = {"asgi.scope": {POLL: ticket, LOG: log}}
        url = f"/api/v1/workers/{cast.worker.worker_id}/claim-next"
        return cast.worker_client().post(url, {"claimId": "mine", **body}, **environ)

    def test_its_lane_learns_how_long_and_for_what_it_waits(self, cast, runs):
        ticket = PollTicket(cast.worker.worker_id)
        log: dict[str, Any] = {}
        pool_id = add_pool(cast, cast.worker.worker_id)
        ticket.begin()
        assert _taken(self.ask(cast, ticket, log, wait=7)) is None
        assert (ticket.wait_seconds, ticket.empty, log["runs"]) == (7, True, 0)
        assert ticket.workspace_id == cast.workspace.id
        assert list(ticket.pool_ids) == [pool_id]
        assert ticket.order > 0
        runs.queue()
        ticket.begin()
        assert _taken(self.ask(cast, ticket, log, wait=7)) is not None
        assert (ticket.empty, log["runs"]) == (False, 1)

    def test_it_is_answered_as_soon_as_a_run_waits_for_no_person_any_more(self, cast, runs):
        """One with a retry may go on, and so may one that somebody decided about."""
        canceled, expired, decided, retried, other = (runs.waiting() for _ in range(5))
        ticket = PollTicket(cast.worker.worker_id)
        named = [*map(str, (canceled, expired, retried)), str(new_id())]
        assert _ended(self.ask(cast, ticket, {}, wait=7, waitingRuns=named)) == named[3:]
        ticket.begin()
        assert _ended(self.ask(cast, ticket, {}, wait=7, waitingRuns=named[:3])) == []
        waits = [ticket.empty]
        runs.cancel(canceled)
        Run.objects.filter(id=expired).update(resume_until=runs.now)
        assert runs.expire_queued() == 1
        runs.decide(decided, approve=False)
        Run.objects.filter(id=retried).update(
            status="failed", fault_class="infra", ended_at=Now(), ended_by="lease", retried=True
        )
        ticket.begin()
        named = [*named[:3], str(decided), str(other)]
        Worker.objects.update(disabled_at=Now())
        assert _ended(self.ask(cast, ticket, {}, wait=7, waitingRuns=named)) == named[:2]
        assert [*waits, ticket.empty] == [True, False]
        stranger = register(cast.mint_elsewhere("wrk"), "host-3")
        path = f"/api/v1/workers/{stranger.worker_id}/claim-next"
        client = cast.worker_client(stranger)
        answer = client.post(path, {"claimId": "a", "waitingRuns": [str(other)]})
        assert _ended(answer) == [str(other)]
        for wrong in ("x", ["x"], named * 21):
            answer = self.ask(cast, ticket, {}, waitingRuns=wrong)
            assert (answer.status_code, answer.json()["code"]) == (400, "validation_failed")

    def test_one_that_does_not_wait_ends_no_other(self, cast):
        ticket = PollTicket(cast.worker.worker_id)
        ticket.begin()
        with counted() as statements:
            self.ask(cast, ticket, {}, wait=0)
        assert ticket.order == 0
        assert not any("pg_notify" in statement for statement in statements.sql)

    def test_two_that_do_not_wait_may_be_under_way_polls_included(self, cast):
        holding = [Holding(MemoryBudget(MIB), "192.0.2.1") for _ in range(3)]
        client, path = cast.worker_client(), f"/api/v1/workers/{cast.worker.worker_id}"
        scopes: list[Any] = [{"asgi.scope": {HOLDING: each}} for each in holding]
        assert client.get(f"{path}/poll", **scopes[0]).status_code == 200
        body = {"claimId": "mine"}
        assert client.post(f"{path}/claim-next", body, **scopes[1]).status_code == 200
        refused = client.post(f"{path}/claim-next", body, **scopes[2])
        assert (refused.status_code, refused.json()["code"]) == (429, "throttled")
        assert (
            client.post(f"{path}/claim-next", {**body, "wait": 5}, **scopes[2]).status_code == 200
        )
        holding[0].leave()
        assert client.post(f"{path}/claim-next", body, **scopes[2]).status_code == 200
        for each in holding[1:]:
            each.leave()


class TestTheStatements:
    @pytest.mark.parametrize("start", [False, True])
    def test_they_are_as_many_for_many_runs(self, cast, calls, runs, start):
        allow(cast.worker.worker_id, 50)
        Worker.objects.update(last_seen_at=Now())
        counts = []
        for number in range(3):
            for _ in range(1 + 9 * number):
                runs.queue()
            with counted() as statements:
                calls.claim_next(claimId=str(number), start=start)
            counts.append(len(statements))
        # The token, the run, the lock of the worker, the claim, the audit rows, and who received the headers.
        assert counts == [6, 6, 6]

    def test_without_a_run_nothing_is_locked(self, calls):
        Worker.objects.update(last_seen_at=Now())
        with counted() as statements:
            calls.claim_next(claimId="mine")
        assert len(statements) == 3


class TestAClaimWithStart:
    def test_it_is_running_at_once_and_both_are_audited(self, calls, runs):
        run_id = runs.queue()
        answer = calls.claim(run_id, claimId="mine", start=True)
        assert (answer.status_code, answer.json()["status"]) == (200, "running")
        assert runs.actions(run_id) == ["run.created", "run.claimed", "run.started"]
        assert calls.heartbeat(run_id).json()["status"] == "running"

    @pytest.mark.parametrize("claim_id", ["mine", None])
    def test_repeated_it_answers_the_same(self, calls, runs, claim_id):
        run_id = runs.queue()
        first = calls.claim(run_id, claimId=claim_id, start=True)
        again = calls.claim(run_id, claimId=claim_id, start=True)
        assert (again.status_code, again.json()) == (200, first.json())

    def test_repeated_with_another_claim_id_it_is_refused(self, calls, runs):
        run_id = runs.queue()
        calls.claim(run_id, claimId="mine", start=True)
        again = calls.claim(run_id, claimId="other", start=True)
        assert (again.status_code, again.json()["code"]) == (409, "claimed_by_another")
        assert again.json()["status"] == "running"

    def test_repeated_without_start_it_is_a_repeat_of_an_earlier_transition(self, calls, runs):
        run_id = runs.queue()
        calls.claim(run_id, claimId="mine", start=True)
        again = calls.claim(run_id, claimId="mine")
        assert (again.status_code, again.json()["code"]) == (409, "run_state")

    def test_it_starts_what_was_claimed_with_the_same_claim_id(self, calls, runs):
        run_id = runs.queue()
        calls.claim(run_id, claimId="mine")
        assert calls.claim(run_id, claimId="mine", start=True).json()["status"] == "running"

    def test_an_ended_run_is_refused(self, calls, runs):
        run_id = runs.running()
        calls.complete(run_id, status="succeeded")
        again = calls.claim(run_id, claimId="mine", start=True)
        assert (again.status_code, again.json()["status"]) == (409, "succeeded")

    def test_a_trigger_s_place_is_taken(self, calls, runs):
        Trigger.objects.filter(id=runs.trigger_id).update(max_concurrent_runs=1)
        run_id = runs.queue()
        assert calls.claim(run_id, start=True).json()["status"] == "running"
        assert runs.stored(run_id)["trigger_slot"] == 1

    @pytest.mark.parametrize("start", ["yes", 1, []])
    def test_a_bad_start_is_a_field_error(self, calls, runs, start):
        response = calls.claim(runs.queue(), start=start)
        assert response.status_code == 400
        assert response.json() == invalid({"start": ["Must be true or false."]})


def test_a_stream_of_the_worker_tells_of_both(cast: Cast, runs: Runs) -> None:
    Worker.objects.update(is_streamed=True)
    runs.queue()
    WorkerCalls(cast.worker).claim_next(claimId="mine", start=True)
    told = WorkerEvent.objects.filter(type__startswith="run.").order_by("id")
    assert list(told.values_list("type", flat=True)) == ["run.claimed", "run.started"]
