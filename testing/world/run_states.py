"""Makes a run in each state in which its worker, a user or the scheduler can find it."""

from collections.abc import Callable
from typing import Final
from uuid import UUID

from testing.world.runs import Runs
from triggers.models import Trigger


def _asked_to_stop(runs: Runs, run_id: UUID) -> UUID:
    runs.cancel(run_id)
    return run_id


def _waiting_retry(runs: Runs) -> UUID:
    return _retry_of(runs, runs.lost())


def _waiting_for_a_worker(runs: Runs) -> UUID:
    run_id = runs.running()
    Trigger.objects.filter(id=runs.trigger_id).update(worker=None)
    retry_id = _retry_of(runs, runs.lost(run_id))
    runs.wait(hours=1)
    return retry_id


def _lost_with_retry_claimed(runs: Runs) -> UUID:
    run_id = runs.lost()
    runs.claimed_retry_of(run_id)
    return run_id


def _lost_with_retry_ended(runs: Runs) -> UUID:
    run_id = runs.lost()
    runs.complete(runs.claimed_retry_of(run_id), "failed")
    return run_id


def _lost_with_retry_canceled(runs: Runs) -> UUID:
    run_id = runs.lost()
    runs.cancel(_retry_of(runs, run_id))
    return run_id


def _lost_without_retry(runs: Runs) -> UUID:
    Trigger.objects.filter(id=runs.trigger_id).update(max_retries=0)
    return runs.lost()


def _lost_then_reported(runs: Runs) -> UUID:
    run_id = runs.lost()
    runs.complete(run_id, "succeeded")
    return run_id


def _made_needless(runs: Runs) -> UUID:
    run_id = runs.lost()
    retry_id = _retry_of(runs, run_id)
    runs.complete(run_id, "succeeded")
    return retry_id


def _canceled_by_its_worker(runs: Runs) -> UUID:
    run_id = _asked_to_stop(runs, runs.running())
    runs.complete(run_id, "canceled")
    return run_id


def _anothers(runs: Runs) -> UUID:
    """Gives the trigger to another worker, and returns that worker's id."""
    other = runs.cast.register("host-2").worker_id
    Trigger.objects.filter(id=runs.trigger_id).update(worker=other)
    return other


def _retry_of(runs: Runs, run_id: UUID) -> UUID:
    retry = runs.retry_of(run_id)
    assert retry is not None
    retry_id: UUID = retry["id"]
    return retry_id


def _queued_for_another(runs: Runs) -> UUID:
    _anothers(runs)
    return runs.queue()


def _in_a_hurry(runs: Runs) -> UUID:
    Trigger.objects.filter(id=runs.trigger_id).update(start_deadline_seconds=60)
    return runs.queue()


def _not_started_in_time(runs: Runs) -> UUID:
    run_id = _in_a_hurry(runs)
    runs.wait(minutes=1)
    runs.expire_queued()
    return run_id


def _continues_a_session(runs: Runs) -> UUID:
    """Makes a due retry that must continue its session, because the session may have changed something."""
    Trigger.objects.filter(id=runs.trigger_id).update(retry_mode="resume")
    told = {"total": 1, "effects": 1, "unknown": 0}
    report = {"faultClass": "infra", "sessionId": "s", "toolCalls": told}
    retry_id = _retry_of(runs, runs.ended("failed", **report))
    runs.wait(minutes=1)
    return retry_id


def _session_not_continued(runs: Runs) -> UUID:
    retry_id = _continues_a_session(runs)
    runs.wait(hours=2)
    runs.expire_queued()
    return retry_id


def _decision_expired(runs: Runs) -> UUID:
    run_id = runs.waiting()
    runs.wait(minutes=10)
    runs.expire_queued()
    return run_id


def _not_continued(runs: Runs) -> UUID:
    run_id = runs.decided()
    runs.wait(hours=1)
    runs.expire_queued()
    return run_id


def _running_again(runs: Runs) -> UUID:
    run_id = runs.decided()
    runs.claim(run_id)
    runs.start(run_id)
    return run_id


# Each function makes a run and brings it into its state through the lifecycle. The run's worker is the cast's, unless
# the name of the state says otherwise.
STATES: Final[dict[str, Callable[[Runs], UUID]]] = {
    "queued, due": lambda runs: runs.queue(),
    "queued, not due": _waiting_retry,
    "queued, no worker": _waiting_for_a_worker,
    "queued, in a hurry": _in_a_hurry,
    "queued, in a session": _continues_a_session,
    "claimed with mine": lambda runs: runs.claimed(claim_id="mine"),
    "claimed with other": lambda runs: runs.claimed(claim_id="other"),
    "claimed with a third": lambda runs: runs.claimed(claim_id="third"),
    "claimed with none": lambda runs: runs.claimed(claim_id=None),
    "claimed, asked to stop": lambda runs: _asked_to_stop(runs, runs.claimed()),
    "running": lambda runs: runs.running(),
    "running, asked to stop": lambda runs: _asked_to_stop(runs, runs.running()),
    "waiting": lambda runs: runs.waiting(),
    "decided": lambda runs: runs.decided(),
    "running, decided": _running_again,
    "decision expired": _decision_expired,
    "decided, not continued": _not_continued,
    "canceled while waiting": lambda runs: _asked_to_stop(runs, runs.waiting()),
    "succeeded": lambda runs: runs.ended("succeeded"),
    "failed, client": lambda runs: runs.ended("failed"),
    "failed, infra": lambda runs: runs.ended("failed", faultClass="infra"),
    "timed_out": lambda runs: runs.ended("timed_out"),
    "not started in time": _not_started_in_time,
    "session not continued": _session_not_continued,
    "canceled in the queue": lambda runs: _asked_to_stop(runs, runs.queue()),
    "canceled by its worker": _canceled_by_its_worker,
    "canceled as needless": _made_needless,
    "lost, retry waiting": lambda runs: runs.lost(),
    "lost, retry claimed": _lost_with_retry_claimed,
    "lost, retry ended": _lost_with_retry_ended,
    "lost, retry canceled": _lost_with_retry_canceled,
    "lost, no retry": _lost_without_retry,
    "lost, then reported": _lost_then_reported,
    "lost, asked to stop": lambda runs: runs.lost(_asked_to_stop(runs, runs.running())),
    "overdue": lambda runs: runs.overdue(),
    "overdue, asked to stop": lambda runs: runs.overdue(_asked_to_stop(runs, runs.running())),
    "another's, queued": _queued_for_another,
    "another's, claimed": lambda runs: runs.claimed(worker_id=_anothers(runs)),
    "another's, running": lambda runs: runs.running(worker_id=_anothers(runs)),
    "another's, lost": lambda runs: runs.lost(runs.running(worker_id=_anothers(runs))),
}
