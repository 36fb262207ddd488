"""Every job of the scheduler takes turns between workspaces: one with thousands of rows delays another by no turn."""

from dataclasses import replace

import pytest
from django.conf import settings

from pipedai.loop import Job, register_job, registered_jobs, table_of_jobs
from pipedai.outgoing.pool import Lane
from pipedai.sql import database_now, execute
from pipedai.timeouts import JOB, overriding
from testing.probes.plans import explained
from testing.processes.racing import accepted, at_once
from testing.world.cast import Cast, make_cast
from testing.world.floods import FLOODS
from workspaces.models import Environment

MANY = 2_000
# The tables from which a turn reads its rows by an index of (environment, due time).
TABLES = {
    "decide-ends": "event",
    "tell-outcomes": "untold_outcome",
    "send-summaries": "channel",
    "find-late-triggers": "trigger_health",
    "find-reached-budgets": "budget_window",
    "remind-of-incidents": "incident",
    "remind-of-questions": "approval",
}
JOBS = {job.name: job for job in registered_jobs()}


def is_lane(job: Job) -> bool:
    """Whether the job is a lane's, whose turns are those of `pipedai.outgoing.due` for every lane."""
    return isinstance(getattr(job.work, "__self__", None), Lane)


def test_the_page_of_jobs_has_this_table() -> None:
    assert table_of_jobs() in (settings.BASE_DIR / "docs" / "jobs.md").read_text()


def test_each_job_says_what_it_does_and_each_with_turns_is_tried_here() -> None:
    turns = {job.name for job in JOBS.values() if job.turns and not is_lane(job)}
    assert turns == set(FLOODS)


@pytest.mark.parametrize(
    "values", [{}, {"does": "It works."}, {"does": "It works.", "turns": "a", "alone": "b"}]
)
def test_a_job_that_does_not_say_how_tenants_share_it_is_refused(values: dict[str, str]) -> None:
    new = replace(Job("new", 1.0, int), **values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must have `does`, and either `turns` or `alone`"):
        register_job(new)


@pytest.mark.parametrize("is_paused", [False, True], ids=["", "paused"])
@pytest.mark.parametrize("name", FLOODS)
def test_thousands_of_one_workspace_delay_another_by_no_turn(
    name: str, is_paused: bool, committed_cast: Cast
) -> None:
    flooding, neighbour = committed_cast, make_cast()
    left = FLOODS[name](flooding, MANY)
    waits = FLOODS[name](neighbour, 1)
    if is_paused:
        Environment.objects.filter(id=flooding.environment.id).update(paused_at=database_now())
    assert 1 <= waits() <= 3  # Some are copies of a row that waits as well.
    turn = overriding(JOB)(JOBS[name].work)
    assert sum(accepted(at_once(turn, turn))) > 0
    assert waits() == 0
    assert left() > 0, "the turn had no end"
    if table := TABLES.get(name):
        execute(f"ANALYZE {table}", {})
        with explained() as plans:
            turn()
        assert table not in plans.read_whole
