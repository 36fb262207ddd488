"""Statements that name rows by their ids read no others, whether PostgreSQL plans them for their values or keeps one
plan for all. For that plan it expects as many rows of an environment as the average one has.
"""

from itertools import product
from uuid import UUID

import pytest

from pipedai.sql import execute
from testing.probes.plans import explained
from testing.world.cast import Cast
from testing.world.copied_rows import copy_ended_run
from testing.world.runs import Runs
from testing.world.undone import undone
from triggers.changes import kinds
from triggers.models import Run
from triggers.runs.waiting import ended_runs
from triggers.serializers import with_last_runs

_MANY, _FEW = 3_000, 10


@pytest.fixture
def cast(committed_cast: Cast) -> Cast:
    """What ANALYZE notes outlives a transaction, so it goes with a database of the test's own."""
    return committed_cast


@pytest.fixture
def ids(cast: Cast) -> list[UUID]:
    """Makes the runs of a large environment among a thousand small ones, and returns the ids of some. PostgreSQL notes
    that there are a thousand environments and workers, and so expects few runs of one.
    """
    run_id = Runs.of(cast).ended()
    copy_ended_run(run_id, _MANY)
    for column in ("environment_id", "worker_id"):
        execute(f"ALTER TABLE run ALTER COLUMN {column} SET (n_distinct = 1000)", {})
    execute("ANALYZE run", {})
    return list(Run.objects.values_list("id", flat=True)[:_FEW])


def test_rows_that_are_named_by_their_ids_are_all_that_is_read(
    cast: Cast, ids: list[UUID], subtests: pytest.Subtests
) -> None:
    """This is one test, because the rows take longer to make than to read."""
    parts = (
        _the_states_of_changed_runs_are_read_by_their_ids,
        _the_last_runs_of_triggers_are_read_by_their_ids,
        _whether_the_sessions_of_a_worker_go_on_is_read_by_the_ids_of_its_runs,
    )
    for part, kept in product(parts, (False, True)):
        with subtests.test(part.__name__, kept=kept), undone():
            part(cast, ids, kept)


def _the_states_of_changed_runs_are_read_by_their_ids(
    cast: Cast, ids: list[UUID], kept: bool
) -> None:
    (kind,) = (kind for kind in kinds() if kind.name == "run")
    with explained("SELECT", kept=kept) as plans:
        states = kind.read(cast.environment.id, ids)
    assert {state.id: state.status for state in states} == dict.fromkeys(ids, "succeeded")
    assert plans.rows_read("run") == _FEW
    assert plans.indexes <= {"run_pkey", "run_in_environment"}


def _the_last_runs_of_triggers_are_read_by_their_ids(
    cast: Cast, ids: list[UUID], kept: bool
) -> None:
    triggers = [{"environment_id": cast.environment.id, "last_run_id": id_} for id_ in ids]
    with explained("SELECT", kept=kept) as plans:
        found = with_last_runs([*triggers, {**triggers[0], "last_run_id": None}])
    assert [row["last_run"] and row["last_run"]["id"] for row in found] == [*ids, None]
    assert plans.rows_read("run") == _FEW
    assert plans.indexes <= {"run_pkey", "run_in_environment"}


def _whether_the_sessions_of_a_worker_go_on_is_read_by_the_ids_of_its_runs(
    cast: Cast, ids: list[UUID], kept: bool
) -> None:
    Run.objects.filter(id=ids[0]).update(retried=True)
    with explained("SELECT", kept=kept) as plans:
        assert set(ended_runs(cast.worker.worker_id, ids)) == set(ids[1:])
    # PostgreSQL tells the mean number of rows of each look, rounded.
    assert plans.rows_read("run") < 2 * _FEW
