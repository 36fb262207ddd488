"""The output of a run, and what becomes of a success that lacks it."""

from typing import Any

import pytest

from testing.probes.statement_count import counted
from testing.processes.worker_calls import WorkerCalls
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.runs import Runs
from triggers.models import RunResult
from triggers.runs.lifecycle import Refused

NONE = "The machine reported no output, although the trigger has an output schema."
LONG = "The output is longer than 64 KiB."
DEEP = "The output is nested more than 63 levels deep."


@pytest.fixture
def asking(cast: Cast) -> Runs:
    """Runs of a trigger with an output schema."""
    return Runs.of(cast, output_schema={"type": "object"}, webhook_url=None)


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


@cases(
    "output", [None, False, 0, "", [], {}, {"a": [1.0, None]}, 10**300, "x" * (64 * 1024 - 2)], undone=True,
)  # fmt: skip
def test_any_json_is_an_output(cast: Cast, asking: Runs, output: Any) -> None:
    run_id = asking.ended(output=output)
    shown = cast.client(cast.viewer).get(f"/api/v1/runs/{run_id}").json()
    assert (shown["status"], shown["output"]) == ("succeeded", output)
    assert RunResult.objects.filter(run_id=run_id, output__isnull=False).exists()


@cases(
    ("report", "sentence"),
    [({}, NONE), ({"output": "x" * (64 * 1024 - 1)}, LONG), ({"output": "é" * (32 * 1024)}, LONG)],
)
@cases("way", ["held", "late"], undone=True)
def test_a_success_that_lacks_it_is_the_client_s_failure(
    asking: Runs, report: dict[str, Any], sentence: str, way: str
) -> None:
    run_id = asking.running() if way == "held" else asking.lost()
    answer = asking.complete(run_id, shortMessage="Done.", costUsd="0.5", **report)
    run = asking.stored(run_id)
    assert (answer["status"], answer["error_message"]) == ("failed", sentence)
    assert (run["status"], run["fault_class"], run["ended_by"]) == ("failed", "client", "worker")
    assert (run["error_message"], run["short_message"]) == (sentence, "Done.")
    assert str(run["cost_usd"]) == "0.500000"
    assert not RunResult.objects.exists()
    ended = asking.audited(run_id)[-1]
    assert (ended.action, ended.metadata["status"]) == ("run.completed", "failed")
    retry = asking.retry_of(run_id)
    assert retry is None or retry["status"] == "canceled"


def test_its_repeat_is_answered_with_the_run_as_stored(asking: Runs) -> None:
    run_id = asking.ended()
    assert asking.complete(run_id)["status"] == "failed"
    assert asking.complete(run_id, "failed")["status"] == "failed"
    with pytest.raises(Refused):
        asking.complete(run_id, output={})


@cases("status", ["failed", "timed_out"], undone=True)
def test_no_other_outcome_needs_one(asking: Runs, status: str) -> None:
    assert asking.stored(asking.ended(status))["status"] == status


def test_a_run_of_another_worker_tells_nothing(cast: Cast, asking: Runs) -> None:
    run_id = asking.running()
    stranger = WorkerCalls(cast.register("host-2"))
    assert stranger.complete(run_id, status="succeeded").status_code == 404
    assert asking.stored(run_id)["status"] == "running"


@cases(("output", "kept"), [({"a": 1}, {"a": 1}), ("x" * 70_000, None)], undone=True)
def test_without_a_schema_one_that_fits_is_kept(runs: Runs, output: Any, kept: Any) -> None:
    run = runs.stored(runs.ended(output=output))
    assert (run["status"], run["output"]) == ("succeeded", kept)


def test_an_output_costs_one_statement_and_none_costs_none(cast: Cast, asking: Runs) -> None:
    plain = Runs.of(cast, webhook_url=None)
    costs = []
    reports: list[tuple[Runs, dict[str, Any]]] = [(plain, {}), (asking, {"output": 1})]
    for runs, report in reports:
        run_id = runs.running()
        with counted() as statements:
            runs.complete(run_id, **report)
        costs.append(len(statements))
    assert costs[1] == costs[0] + 1


class TestOverHttp:
    @pytest.fixture
    def complete(self, cast: Cast, asking: Runs) -> Any:
        run_id = asking.running()
        calls = WorkerCalls(cast.worker)
        client = cast.client(cast.viewer)

        def completing(**body: Any) -> Any:
            response = calls.complete(run_id, **{"status": "succeeded", **body})
            assert response.status_code == 200, response.json()
            return client.get(f"/api/v1/runs/{run_id}").json()

        return completing

    def test_one_that_is_nested_as_deep_as_it_may_be_is_kept(self, complete: Any) -> None:
        assert complete(output=deep(63))["output"] == deep(63)

    @cases("levels", [64, 200, 700], undone=True)
    def test_one_that_is_nested_too_deep_costs_no_outcome(self, complete: Any, levels: int) -> None:
        run = complete(output=deep(levels), shortMessage="Done.")
        assert (run["status"], run["errorMessage"]) == ("failed", DEEP)
        assert run["output"] is None

    def test_what_the_database_cannot_hold_is_replaced(self, complete: Any) -> None:
        assert complete(output={"a\x00": "\ud800é"})["output"] == {"a\ufffd": "\ufffdé"}
