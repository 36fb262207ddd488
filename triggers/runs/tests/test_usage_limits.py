"""A usage limit stops the workers of its account, and their runs wait or go to others."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from audit.models import AuditEntry
from pipedai.api.errors import Conflict
from pipedai.api.renderers import iso_time
from pipedai.sql import database_now
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.models import Run
from triggers.runs.handout import outlook
from workers.models import Worker
from workers.presence import set_account


def hit(runs: Runs, *, hours: float = 5, worker_id: UUID | None = None, **more: Any) -> UUID:
    """Runs a new run into a usage limit that ends after so many hours."""
    run_id = runs.running(worker_id=worker_id)
    resets_at = iso_time(runs.now + timedelta(hours=hours))
    runs.complete(
        run_id,
        "failed",
        faultClass="infra",
        usageLimit={"resetsAt": resets_at, "kind": "five_hour"},
        worker_id=worker_id,
        **more,
    )
    return run_id


def limited_until(worker_id: UUID) -> datetime | None:
    return Worker.objects.values_list("limited_until", flat=True).get(id=worker_id)


def test_the_worker_gets_nothing_until_the_limit_ends(runs: Runs) -> None:
    began = runs.now
    run_id = hit(runs)
    retry = runs.retry_of(run_id)
    assert retry is not None
    assert retry["available_at"] == began
    assert runs.polled() == []
    with pytest.raises(Conflict) as refused:
        runs.claim(retry["id"])
    assert refused.value.code == "worker_limited"
    until = limited_until(runs.cast.worker.worker_id)
    assert until is not None
    assert timedelta(hours=5) <= until - began <= timedelta(hours=5, seconds=60)
    waiting = outlook(worker_id=runs.cast.worker.worker_id, capacity=0, now=runs.now)
    assert waiting[0] == until - began
    runs.now = until
    assert runs.polled() == [retry["id"]]


def test_workers_of_the_account_are_limited_with_it_and_no_others(cast: Cast, runs: Runs) -> None:
    same, other = (cast.register(name).worker_id for name in ("same", "other"))
    Worker.objects.filter(id__in=[cast.worker.worker_id, same]).update(account_id="a")
    Worker.objects.filter(id=other).update(account_id="b")
    hit(runs)
    assert limited_until(same) is not None
    assert limited_until(other) is None
    entry = AuditEntry.objects.get(action="worker.limited")
    assert entry.metadata["workers"] == sorted(map(str, (cast.worker.worker_id, same)))
    assert entry.metadata["kind"] == "five_hour"


def test_another_worker_of_the_pool_takes_the_run_at_once(cast: Cast) -> None:
    two = cast.register("two").worker_id
    pool_id = add_pool(cast, cast.worker.worker_id, two)
    runs = Runs.of(cast, pool_id=pool_id)
    runs.call(cast.worker.worker_id, two)
    waiting = runs.queue()
    Worker.objects.filter(id=cast.worker.worker_id).update(max_concurrency=2)
    run_id = hit(runs)
    retry = runs.retry_of(run_id)
    assert retry is not None
    Worker.objects.filter(id=two).update(max_concurrency=2)
    assert set(runs.polled(two)) == {waiting, retry["id"]}


def test_limits_do_not_count_against_the_retries_but_have_a_bound_of_their_own(
    cast: Cast,
) -> None:
    runs = Runs.of(cast, max_retries=1)
    run_id = hit(runs)
    for _ in range(3):
        until = limited_until(cast.worker.worker_id)
        assert until is not None
        runs.now = until
        run_id = runs.claimed_retry_of(run_id)
        runs.start(run_id)
        resets_at = iso_time(runs.now + timedelta(hours=1))
        runs.complete(run_id, "failed", faultClass="infra", usageLimit={"resetsAt": resets_at})
    retry = runs.retry_of(run_id)
    assert retry is not None
    assert (retry["attempt"], retry["limit_retries"]) == (5, 4)
    runs.wait(hours=2)
    runs.claim(retry["id"])
    runs.complete(retry["id"], "failed", faultClass="infra")
    last = runs.retry_of(retry["id"])
    assert last is not None
    runs.wait(hours=1)
    runs.claim(last["id"])
    runs.complete(last["id"], "failed", faultClass="infra")
    assert runs.retry_of(last["id"]) is None


def test_the_fiftieth_limit_is_the_last(runs: Runs) -> None:
    run_id = runs.running()
    Run.objects.filter(id=run_id).update(limit_retries=50)
    runs.complete(run_id, "failed", faultClass="infra", usageLimit={"resetsAt": iso_time(runs.now)})
    assert runs.retry_of(run_id) is None


def test_a_limit_is_never_longer_than_eight_days(runs: Runs) -> None:
    hit(runs, hours=24 * 365)
    until = limited_until(runs.cast.worker.worker_id)
    assert until is not None
    assert until - runs.now <= timedelta(days=8, seconds=60)


@cases(
    "limit",
    [
        None,
        "soon",
        {},
        {"resetsAt": 5},
        {"resetsAt": "tomorrow"},
        {"resetsAt": "2026-02-31T00:00:00Z"},
        {"resetsAt": "2026-11-26T12:00:00"},
        {"resetsAt": None, "kind": 7},
        {"resetsAt": "9999-12-31T23:59:59-12:00"},
        {"resetsAt": "0001-01-01T00:00:00+14:00"},
    ],
    undone=True,
)
def test_a_malformed_limit_is_ignored(runs: Runs, limit: Any) -> None:
    run_id = runs.running()
    runs.complete(run_id, "failed", faultClass="infra", usageLimit=limit)
    assert runs.stored(run_id)["status"] == "failed"
    assert limited_until(runs.cast.worker.worker_id) is None
    assert not runs.stored(run_id)["at_limit"]


def test_a_limit_that_is_reported_late_limits_and_counts_as_any_other(cast: Cast) -> None:
    runs = Runs.of(cast, max_retries=1)
    run_id = runs.lost()
    began = runs.now
    limit = {"resetsAt": iso_time(runs.now + timedelta(hours=5))}
    runs.complete(run_id, "failed", faultClass="infra", usageLimit=limit)
    until = limited_until(cast.worker.worker_id)
    assert until is not None
    assert until >= began + timedelta(hours=5)
    retry = runs.retry_of(run_id)
    assert retry is not None
    assert (retry["limit_retries"], retry["available_at"]) == (1, began)
    assert runs.polled() == []


def test_a_late_limit_lets_the_run_before_it_be_resumed_after_it(cast: Cast) -> None:
    runs = Runs.of(cast, retry_mode="resume")
    run_id = runs.running()
    runs.heartbeat(run_id, session_id="s-1")
    runs.lost(run_id)
    limit = {"resetsAt": iso_time(runs.now + timedelta(hours=5))}
    run = runs.complete(run_id, "failed", faultClass="infra", usageLimit=limit)
    until = limited_until(cast.worker.worker_id)
    assert until is not None
    assert run["resume_until"] == until + timedelta(hours=1)


def test_a_worker_that_turns_out_to_share_a_limited_account_is_waited_for_too(
    cast: Cast,
) -> None:
    runs = Runs.of(cast, retry_mode="resume")
    run_id = runs.running()
    runs.heartbeat(run_id, session_id="s-1")
    runs.complete(run_id, "failed", faultClass="infra")
    until = database_now() + timedelta(hours=5)
    mate = cast.register("mate").worker_id
    Worker.objects.filter(id=mate).update(account_id="a", limited_until=until)
    Run.objects.filter(retry_of_id=run_id).update(resume_until=database_now() + timedelta(hours=1))
    set_account(environment_id=cast.environment.id, worker_id=cast.worker.worker_id, account_id="a")
    retry = runs.retry_of(run_id)
    assert retry is not None
    assert retry["resume_until"] == until + timedelta(hours=1)


@cases(("status", "fault"), [("failed", "client"), ("succeeded", None)], undone=True)
def test_a_limit_counts_only_for_a_failure_of_infrastructure(
    runs: Runs, status: str, fault: str | None
) -> None:
    run_id = runs.running()
    limit = {"resetsAt": iso_time(runs.now + timedelta(hours=1))}
    runs.complete(run_id, status, faultClass=fault, usageLimit=limit)
    assert limited_until(runs.cast.worker.worker_id) is None
