"""Counts of tool calls, the list of the calls, and retries after effects."""

from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from pipedai.api.errors import ApiError
from testing.probes.shapes import NOT_FOUND
from testing.probes.statement_count import counted
from testing.processes.racing import ROUNDS, at_once
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.runs import Runs
from testing.world.tool_calls import CALL, shown
from triggers.models import RunResult, Trigger
from workers.models import Worker


def told(total: Any, effects: Any, unknown: Any) -> dict[str, Any]:
    return {"total": total, "effects": effects, "unknown": unknown}


@pytest.fixture
def careful(cast: Cast) -> Runs:
    """Runs of a trigger that is not retried after effects."""
    return Runs.of(cast, retry_after_effects=False)


# --- Counts


@cases(
    ("beats", "kept"),
    [
        ([], (None, None, None)),
        ([(0, 0, 0)], (0, 0, 0)),
        ([(3, 1, 1)], (3, 1, 1)),
        ([(1, 1, 1), (1, 1, 0)], (1, 1, 0)),
        ([(1, 1, 0), (1, 1, 1)], (1, 1, 0)),
        ([(2, 1, 1), (3, 1, 0)], (3, 1, 0)),
        ([(3, 2, 0), (2, 1, 1)], (3, 2, 0)),
        ([(3, 2, 0), (5, 1, 5)], (5, 2, 5)),
        ([(3, 1, 1), None], (3, 1, 1)),
    ],
    undone=True,
)
def test_a_late_heartbeat_takes_no_count_back(runs: Runs, beats: list[Any], kept: Any) -> None:
    run_id = runs.running()
    for beat in beats:
        runs.heartbeat(run_id, beat)
    assert runs.counts(run_id) == kept


@cases(
    ("counts", "kept"),
    [
        ((6, 4, 1), (6, 4, 1)),
        ((5, 3, 0), (5, 3, 0)),
        ((4, 2, 0), (5, 3, 2)),
        ((0, 0, 0), (5, 3, 2)),
    ],
    undone=True,
)
def test_an_outcome_takes_no_count_back(runs: Runs, counts: Any, kept: Any) -> None:
    run_id = runs.running()
    runs.heartbeat(run_id, (5, 3, 2))
    runs.complete(run_id, toolCalls=told(*counts))
    assert runs.counts(run_id) == kept


@cases("report", [{}, {"toolCalls": None}, {"toolCalls": told(-1, 0, 0)}], undone=True)
def test_an_outcome_without_counts_leaves_those_of_the_heartbeats(runs: Runs, report: Any) -> None:
    run_id = runs.running()
    runs.heartbeat(run_id, (5, 3, 2))
    runs.complete(run_id, **report)
    assert runs.counts(run_id) == (5, 3, 2)


def test_a_heartbeat_with_counts_takes_one_statement_too(runs: Runs) -> None:
    run_id = runs.running()
    with counted() as statements:
        runs.heartbeat(run_id, (1, 1, 1))
    assert len(statements) == 1


def test_a_run_without_output_and_list_has_no_row_for_them(runs: Runs) -> None:
    runs.ended(toolCalls=told(1, 0, 0), toolCallList=[])
    assert not RunResult.objects.exists()


# --- The list


class TestTheEndpoint:
    def get(self, cast: Cast, run_id: Any, user: Any = None) -> Any:
        return cast.client(user or cast.viewer).get(f"/api/v1/runs/{run_id}/tool-calls")

    def test_it_has_the_calls_and_how_many_there_were(self, cast: Cast, runs: Runs) -> None:
        run_id = runs.ended(toolCalls=told(700, 1, 0), toolCallList=[CALL, {**CALL, "tool": "b"}])
        assert self.get(cast, run_id).json() == {
            "items": [shown(CALL), shown({**CALL, "tool": "b"})],
            "total": 700,
        }
        run = cast.client(cast.viewer).get(f"/api/v1/runs/{run_id}").json()
        assert run["toolCalls"] == told(700, 1, 0)

    def test_a_run_of_a_worker_that_tells_nothing_has_none(self, cast: Cast, runs: Runs) -> None:
        assert self.get(cast, runs.ended()).json() == {"items": [], "total": None}

    def test_a_stranger_finds_nothing(self, cast: Cast, runs: Runs) -> None:
        run_id = runs.ended(toolCallList=[CALL])
        response = self.get(cast, run_id, cast.stranger)
        assert (response.status_code, response.json()) == (404, NOT_FOUND)
        assert self.get(cast, uuid4()).status_code == 404

    def test_it_takes_as_many_statements_for_one_call_as_for_500(
        self, cast: Cast, runs: Runs
    ) -> None:
        costs = []
        for size in (1, 500):
            run_id = runs.ended(toolCallList=[CALL] * size)
            with counted() as statements:
                assert len(self.get(cast, run_id).json()["items"]) == size
            costs.append(len(statements))
        assert costs[0] == costs[1]


# --- Retries

WAYS = ("report", "lease", "late result")
COUNTS = [
    ((0, 0, 0), True),
    ((5, 0, 0), True),
    ((5, 1, 0), False),
    ((5, 0, 1), False),
    (None, True),
]


def end(runs: Runs, way: str, counts: tuple[int, int, int] | None) -> Any:
    """Ends a running run by infrastructure's fault, after a heartbeat with these counts. Returns its id."""
    run_id = runs.running()
    runs.heartbeat(run_id, counts)
    if way == "report":
        runs.complete(run_id, "failed", faultClass="infra")
    elif way == "lease":
        runs.lost(run_id)
    else:
        runs.overdue(run_id)
        assert runs.retry_of(run_id) is None, "a deadline is the client's fault"
        runs.complete(run_id, "timed_out", faultClass="infra")
    return run_id


@cases("way", WAYS)
@cases(("counts", "is_retried"), COUNTS, undone=True)
def test_a_run_that_may_have_had_effects_is_not_retried(
    careful: Runs, way: str, counts: Any, is_retried: bool
) -> None:
    run_id = end(careful, way, counts)
    assert (careful.retry_of(run_id) is not None) is is_retried
    ended = [row for row in careful.audited(run_id) if "faultClass" in row.metadata][-1]
    assert ended.metadata.get("retry") == (None if is_retried else "had_effects")


@cases("way", WAYS)
@cases("counts", [(5, 5, 5), None], undone=True)
def test_by_default_effects_change_nothing(runs: Runs, way: str, counts: Any) -> None:
    run_id = end(runs, way, counts)
    assert runs.retry_of(run_id) is not None
    assert all("retry" not in row.metadata for row in runs.audited(run_id))


def test_a_run_that_never_started_had_none(careful: Runs) -> None:
    assert careful.retry_of(careful.lost(careful.claimed())) is not None


def _revoked(runs: Runs, run_id: UUID) -> None:
    """Lets a machine lose its run because its token is revoked."""
    Worker.objects.filter(id=runs.cast.worker.worker_id).update(token_digest=None)
    runs.lost(run_id)


def _late(runs: Runs, run_id: UUID) -> None:
    """Lets a run miss its deadline, before its machine says that this was the fault of infrastructure."""
    runs.overdue(run_id)
    runs.complete(run_id, "timed_out", faultClass="infra")


@pytest.mark.parametrize(
    "fail",
    [
        lambda runs, run_id: runs.lost(run_id),
        lambda runs, run_id: runs.complete(run_id, "failed", faultClass="infra"),
        lambda runs, run_id: runs.complete(run_id, "timed_out", faultClass="infra"),
        _late,
        _revoked,
    ],
    ids=["lost lease", "failed", "timed out", "deadline", "revoked"],
)
def test_a_worker_that_tells_no_tool_calls_has_its_runs_retried(cast: Cast, fail: Any) -> None:
    runs = Runs.of(cast, max_retries=2)
    run_id = runs.running()
    for attempt in (1, 2, 3):
        assert runs.stored(run_id)["attempt"] == attempt
        fail(runs, run_id)
        if attempt < 3:
            run_id = runs.claimed_retry_of(run_id)
            runs.start(run_id)
    assert runs.retry_of(run_id) is None


def test_an_outcome_that_takes_effects_back_is_not_believed(careful: Runs) -> None:
    run_id = careful.running()
    careful.heartbeat(run_id, (5, 5, 0))
    careful.complete(run_id, "failed", faultClass="infra", toolCalls=told(0, 0, 0))
    assert careful.retry_of(run_id) is None


def test_the_outcome_s_own_counts_decide(careful: Runs) -> None:
    run_id = careful.running()
    careful.complete(run_id, "failed", faultClass="infra", toolCalls=told(1, 0, 0))
    assert careful.retry_of(run_id) is not None
    run_id = careful.running()
    careful.complete(run_id, "failed", faultClass="infra", toolCalls=told(1, 1, 0))
    assert careful.retry_of(run_id) is None


def test_a_late_result_that_tells_of_effects_cancels_the_waiting_retry(careful: Runs) -> None:
    run_id = careful.running()
    careful.heartbeat(run_id, (0, 0, 0))
    careful.lost(run_id)
    careful.complete(run_id, "failed", faultClass="infra", toolCalls=told(2, 1, 0))
    retry = careful.retry_of(run_id)
    assert retry is not None
    assert (retry["status"], retry["ended_by"]) == ("canceled", "late_result")


def test_a_late_result_that_tells_of_none_brings_the_retry(careful: Runs) -> None:
    run_id = careful.running()
    careful.heartbeat(run_id, (1, 0, 1))
    careful.lost(run_id)
    assert careful.retry_of(run_id) is None
    careful.complete(run_id, "failed", faultClass="infra", toolCalls=told(2, 0, 0))
    assert careful.retry_of(run_id) is not None


def test_the_reason_is_not_told_where_there_is_another(careful: Runs) -> None:
    run_id = careful.running()
    careful.heartbeat(run_id, (1, 1, 0))
    careful.cancel(run_id)
    careful.complete(run_id, "failed", faultClass="infra")
    assert all("retry" not in row.metadata for row in careful.audited(run_id))


def test_the_setting_at_the_end_of_the_run_decides(careful: Runs) -> None:
    run_id = careful.running()
    careful.heartbeat(run_id, (1, 1, 0))
    Trigger.objects.filter(id=careful.trigger_id).update(retry_after_effects=True)
    assert careful.retry_of(careful.lost(run_id)) is not None


def test_a_result_that_is_too_late_is_kept_without_its_list(runs: Runs) -> None:
    run_id = runs.lost()
    runs.claimed_retry_of(run_id)
    with pytest.raises(ApiError):
        runs.complete(run_id, toolCalls=told(1, 1, 0), toolCallList=[CALL], output={"a": None})
    late = runs.stored(run_id)["late_result"]
    assert (late["toolCalls"], late["output"]) == (told(1, 1, 0), {"a": None})
    assert "toolCallList" not in late
    assert runs.counts(run_id) == (None, None, None)


# --- Races


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_a_heartbeat_and_an_outcome_the_greatest_counts_hold(
    committed_runs: Runs, round_: int
) -> None:
    runs = committed_runs
    run_id = runs.running()
    counts = told(9, 4, 0)
    beat, _ = at_once(
        partial(runs.heartbeat, run_id, (9, 5, 1)), partial(runs.complete, run_id, toolCalls=counts)
    )
    assert runs.stored(run_id)["status"] == "succeeded"
    if isinstance(beat, ApiError):
        assert beat.status_code == 409
        assert runs.counts(run_id) == (9, 4, 0)
    else:
        assert runs.counts(run_id) == (9, 5, 0)


@pytest.mark.parametrize("round_", ROUNDS)
def test_heartbeats_at_once_keep_the_greatest(committed_runs: Runs, round_: int) -> None:
    run_id = committed_runs.running()
    at_once(*(partial(committed_runs.heartbeat, run_id, (n, n // 2, 0)) for n in range(8)))
    assert committed_runs.counts(run_id) == (7, 3, 0)


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_a_sweep_and_a_heartbeat_of_effects_either_comes_first(
    committed_cast: Cast, committed_runs: Runs, round_: int
) -> None:
    runs = Runs.of(committed_cast, retry_after_effects=False)
    runs.now = committed_runs.now
    run_id = runs.running()
    runs.heartbeat(run_id, (1, 0, 0))
    runs.wait(seconds=180)
    beat, _ = at_once(partial(runs.heartbeat, run_id, (2, 1, 1)), runs.expire)
    if isinstance(beat, ApiError):
        assert runs.stored(run_id)["status"] == "failed"
        assert runs.counts(run_id) == (1, 0, 0)
        assert runs.retry_of(run_id) is not None
    else:
        assert runs.counts(run_id) == (2, 1, 1)
        assert runs.stored(run_id)["status"] == "running"
        runs.lost(run_id)
        assert runs.retry_of(run_id) is None
