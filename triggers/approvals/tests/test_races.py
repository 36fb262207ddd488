"""When calls about one approval race on real connections, one of them counts."""

from functools import partial
from typing import Any

import pytest
from django.db import transaction

from pipedai.api.errors import ApiError, Forbidden
from pipedai.events import Actor
from testing.processes.racing import ROUNDS, Started, at_once
from testing.world.runs import RULES, Runs
from triggers.models import Approval, Trigger
from triggers.services import TRIGGERS


@pytest.fixture
def runs(committed_runs: Runs) -> Runs:
    return committed_runs


def _refused(answers: list[Any]) -> list[bool]:
    return [isinstance(answer, ApiError) for answer in answers]


@pytest.mark.parametrize("round_", ROUNDS)
def test_one_of_many_decisions_counts(runs: Runs, round_: int) -> None:
    run_id = runs.waiting()
    decisions = [partial(runs.decide, run_id, approve=n % 2 == 0) for n in range(6)]
    answers = at_once(*decisions)
    assert sorted(_refused(answers)) == [False] + [True] * 5
    approved = next(n for n, refused in enumerate(_refused(answers)) if not refused) % 2 == 0
    assert Approval.objects.get().status == ("approved" if approved else "rejected")
    assert runs.stored(run_id)["status"] == "queued"


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_a_decision_and_a_cancel_the_run_is_canceled_in_each_case(
    runs: Runs, round_: int
) -> None:
    run_id = runs.waiting()
    decided, canceled = at_once(partial(runs.decide, run_id), partial(runs.cancel, run_id))
    assert not isinstance(canceled, ApiError)
    assert runs.stored(run_id)["status"] == "canceled"
    lost = isinstance(decided, ApiError)
    assert Approval.objects.get().status == ("withdrawn" if lost else "approved")


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_a_decision_and_the_expiry_one_counts(runs: Runs, round_: int) -> None:
    """The decision comes a moment before the time is over, by a clock that says so."""
    run_id = runs.waiting()
    early = Runs(runs.cast, runs.trigger_id, runs.wait(minutes=9))
    runs.wait(minutes=1)
    decided, expired = at_once(partial(early.decide, run_id), runs.expire_queued)
    run, approval = runs.stored(run_id), Approval.objects.get()
    if isinstance(decided, ApiError):
        assert (expired, run["ended_by"], approval.status) == (1, "approval_expired", "expired")
    else:
        assert (expired, run["status"], approval.status) == (0, "queued", "approved")


def _change(runs: Runs) -> None:
    """Changes the trigger as the environment's admin."""
    values = {"description": "changed"}
    actor = Actor("user", runs.cast.admin.id)
    TRIGGERS.update(runs.trigger_id, values=values, actor=actor)


def _bar_requesters(runs: Runs) -> None:
    rules = [RULES[0] | {"notRequester": True}]
    Trigger.objects.update(approvals=rules, changed_by=None, also_changed_by=None)


def test_a_decision_waits_for_a_change_of_the_trigger_that_bars_who_decides(runs: Runs) -> None:
    run_id = runs.running()
    _bar_requesters(runs)
    runs.ask(run_id)
    with transaction.atomic():
        _change(runs)
        decided = Started(partial(runs.decide, run_id, by=runs.cast.admin.id))
        decided.wait_until_blocked()
    assert isinstance(decided.answer(), Forbidden)
    assert runs.stored(run_id)["status"] == "waiting"


def test_a_question_waits_for_a_change_of_the_trigger_and_bars_its_author(runs: Runs) -> None:
    run_id = runs.running()
    _bar_requesters(runs)
    with transaction.atomic():
        _change(runs)
        asked = Started(partial(runs.ask, run_id))
        asked.wait_until_blocked()
    assert not isinstance(asked.answer(), ApiError)
    assert runs.approval_of(run_id)["barred"] == [runs.cast.admin.id]


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_a_change_and_a_decision_of_one_person_the_change_comes_after(
    runs: Runs, round_: int
) -> None:
    run_id = runs.running()
    _bar_requesters(runs)
    runs.ask(run_id)
    _, decided = at_once(
        partial(_change, runs), partial(runs.decide, run_id, by=runs.cast.admin.id)
    )
    barred = runs.approval_of(run_id)["barred"]
    assert barred == ([runs.cast.admin.id] if isinstance(decided, ApiError) else [])
    assert Trigger.objects.get(id=runs.trigger_id).changed_by == runs.cast.admin.id


@pytest.mark.parametrize("round_", ROUNDS)
def test_an_approval_is_spent_once(runs: Runs, round_: int) -> None:
    run_id = runs.decided()
    runs.claim(run_id)
    answers = at_once(*[partial(runs.spend, run_id)] * 8)
    assert sorted(_refused(answers)) == [False] + [True] * 7


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_a_question_a_cancel_and_a_lost_lease_one_decides(runs: Runs, round_: int) -> None:
    run_id = runs.running()
    runs.now = runs.stored(run_id)["lease_expires_at"]
    asked, canceled, _ = at_once(
        partial(runs.ask, run_id), partial(runs.cancel, run_id), runs.expire
    )
    run = runs.stored(run_id)
    assert not Approval.objects.filter(status="pending").exists()
    if isinstance(asked, ApiError):
        assert run["ended_by"] == "lease"
    else:
        assert (run["status"], run["ended_by"] in ("user", "worker")) == ("canceled", True)
    assert not isinstance(canceled, ApiError) or run["ended_by"] in ("lease", "worker")
