"""Words the reasons why a run's own worker does not take it (SPEC §13)."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from pipedai.sql import Row
from triggers.explain.answers import Reason, Subject, WaitingFor
from triggers.explain.candidates import Candidates
from triggers.explain.clock_words import moment_words


def reasons(run: Row, worker: Row, codes: Iterable[WaitingFor]) -> Iterator[Reason]:
    """Yields a reason for each of the hindrances of the run's own worker. `run` is a row of `triggers.explain.runs`,
    and `worker` one of its candidates.
    """
    for code in codes:
        message, since, until, remedy = _WORDS[code](run, worker)
        yield Reason(
            code,
            message,
            Subject("worker", worker["worker_id"], worker["label"]),
            since=since,
            until=until,
            remedy=remedy,
        )


def why_only_one(run: Row, found: Candidates) -> Reason:
    """Returns the reason why no other worker may take the run: it continues a session, or is for its worker first."""
    assert found.own is not None
    worker = Subject("worker", found.own["worker_id"], found.own["label"])
    if run["spells"] and found.run["is_resuming"]:
        until = moment_words(run["resume_until"], run["now"], to_the_second=True)
        return Reason(
            WaitingFor.RESUME_WORKER,
            f"Somebody has decided about its call, and only worker {worker.name} can continue it. If it does not by"
            f" {until}, it ends as failed.",
            worker,
            until=run["resume_until"],
        )
    if found.run["is_resuming"]:
        until = moment_words(run["resume_until"], run["now"], to_the_second=True)
        then = (
            "it ends as failed, because the run before it may have changed something"
            if run["had_effects"]
            else "it is started anew"
        )
        return Reason(
            WaitingFor.RESUME_WORKER,
            f"Only worker {worker.name} can continue its session. If it does not by {until}, {then}.",
            worker,
            until=run["resume_until"],
        )
    opens = moment_words(run["pool_from"], run["now"], to_the_second=True)
    return Reason(
        WaitingFor.FIRST_WORKER,
        f"It is for worker {worker.name} first. All workers of pool {run['pool_name']} may take it from {opens}.",
        worker,
        until=run["pool_from"],
    )


def give_it_to_another(run: Row) -> str:
    """Returns the end of a remedy: how another worker gets the run."""
    if run["pool_id"] is not None:
        return "add a worker to the pool with PUT /pools/:id/workers/:workerId."
    return "give the trigger another worker with PATCH /triggers/:id (workerId)."


# What is told of one hindrance: the message, since when and until when it lasts, and the remedy.
_Told = tuple[str, datetime | None, datetime | None, str | None]


def _revoked(run: Row, worker: Row) -> _Told:
    name, deleted, another = worker["label"], worker["deleted_at"], give_it_to_another(run)
    if deleted is not None:
        return f"Worker {name} is deregistered.", deleted, None, another[0].upper() + another[1:]
    return (
        f"Worker {name} has no token: its token was revoked, and it has not registered again.",
        None,
        None,
        f"Register {name} again (POST /workers/register), or {another}",
    )


def _disabled(run: Row, worker: Row) -> _Told:
    since = worker["disabled_at"]
    return (
        f"Worker {worker['label']} is disabled since {moment_words(since, run['now'])}.",
        since,
        None,
        f"Enable it with PATCH /workers/:id (disabled: false), or {give_it_to_another(run)}",
    )


def _limited(run: Row, worker: Row) -> _Told:
    until = worker["limited_until"]
    message = (
        f"Worker {worker['label']} gets no runs until {moment_words(until, run['now'])}, because the usage limit of its"
        " account was reached."
    )
    return (
        message,
        None,
        until,
        f"Wait until then, try at once with PATCH /workers/:id (limitedUntil: null), or {give_it_to_another(run)}",
    )


def _offline(run: Row, worker: Row) -> _Told:
    name, seen = worker["label"], worker["called_until"]
    message = (
        f"Waits for worker {name}, which has never called."
        if seen is None
        else f"Waits for worker {name}, offline since {moment_words(seen, run['now'])}."
    )
    return (
        message,
        seen,
        None,
        f"Start the worker program on {name}, or {give_it_to_another(run)}",
    )


def _unapproved(run: Row, worker: Row) -> _Told:
    return (
        f"Worker {worker['label']} is not approved for triggers with MCP headers: an API key registered it.",
        worker["unapproved_since"],
        None,
        f"Approve it with POST /workers/:id/approve, or {give_it_to_another(run)}",
    )


def _lacks_approvals(run: Row, worker: Row) -> _Told:
    return (
        f"Worker {worker['label']} can't wait for approvals, and the run may need one.",
        None,
        None,
        f"Update its program, or {give_it_to_another(run)}",
    )


def _passed_over(run: Row, worker: Row) -> _Told:
    until = run["avoided_until"]
    at = moment_words(until, run["now"], to_the_second=True)
    message = f"Worker {worker['label']} failed the attempt before, so it may take this one only from {at}."
    return message, None, until, None


def _full(_: Row, worker: Row) -> _Told:
    return (
        f"Worker {worker['label']} holds as many runs as it may: {worker['max_concurrency']}.",
        worker["last_claimed_at"],
        None,
        "Wait until one of them ends, or raise maxConcurrency with PATCH /workers/:id.",
    )


_WORDS = {
    WaitingFor.WORKER_REVOKED: _revoked,
    WaitingFor.WORKER_DISABLED: _disabled,
    WaitingFor.WORKER_LIMITED: _limited,
    WaitingFor.WORKER_OFFLINE: _offline,
    WaitingFor.WORKER_UNAPPROVED: _unapproved,
    WaitingFor.WORKER_LACKS_APPROVALS: _lacks_approvals,
    WaitingFor.FIRST_WORKER: _passed_over,
    WaitingFor.WORKER_FULL: _full,
}
