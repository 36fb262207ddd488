"""Finds the reasons why no worker takes a run: those of its own worker, and in sum those of its pool's workers."""

from collections.abc import Iterable, Iterator, Sequence

from pipedai.sql import Row
from triggers.explain.answers import Reason, Subject
from triggers.explain.candidates import Candidates
from triggers.explain.clock_words import moment_words
from triggers.reasons import HINDRANCES, NEVER_CALLED, WaitingFor

_ADD = "add a worker to the pool with PUT /pools/:id/workers/:workerId."
START_ONE = f"Start the worker program on one of them, or {_ADD}"


def own_reasons(run: Row, worker: Row, codes: Iterable[WaitingFor]) -> Iterator[Reason]:
    """Yields a reason for each of the hindrances of the run's own worker. `run` is a row of `triggers.explain.runs`,
    and `worker` one of its candidates.
    """
    subject = Subject("worker", worker["worker_id"], worker["label"])
    for code in codes:
        if code is WaitingFor.WORKER_REVOKED and worker["deleted_at"] is not None:
            message = f"Worker {subject.name} is deregistered."
            remedy = give_it_to_another(run)
            yield Reason(
                code,
                message,
                subject,
                since=worker["deleted_at"],
                remedy=remedy[0].upper() + remedy[1:],
            )
        else:
            yield _reason(run, code, [worker], subject, who="")


def pool_reasons(run: Row, held_back: Iterable[tuple[Row, list[WaitingFor]]]) -> Iterator[Reason]:
    """Yields the reasons why these workers of the run's pool do not take it. Each worker has its hindrances with it, of
    which the first counts. The run's own worker is not among them, because it has reasons of its own.
    """
    groups: dict[WaitingFor, list[Row]] = {}
    for worker, codes in held_back:
        groups.setdefault(codes[0], []).append(worker)
    total = sum(len(workers) for workers in groups.values())
    for code, workers in groups.items():
        yield _reason(run, code, workers, _pool(run), who=_who(run, workers, total))


def empty(run: Row) -> Reason:
    return Reason(
        WaitingFor.POOL_EMPTY,
        f"Pool {run['pool_name']} has no workers.",
        _pool(run),
        remedy=_ADD[0].upper() + _ADD[1:],
    )


def _reason(
    run: Row, code: WaitingFor, workers: Sequence[Row], subject: Subject, *, who: str
) -> Reason:
    """Returns the reason why the run's own worker, or some workers of its pool, don't take it. `who` is the beginning
    of a sentence about the latter, and empty for the former.
    """
    if code is WaitingFor.FIRST_WORKER:
        until = run["avoided_until"]
        at = moment_words(until, run["now"], to_the_second=True)
        message = f"Worker {workers[0]['label']} failed the attempt before, so it may take this one only from {at}."
        return Reason(code, message, subject, until=until)
    words = HINDRANCES[code]
    since = (
        max((row[words.since] for row in workers if row[words.since]), default=None)
        if words.since
        else None
    )
    until = min(row[words.until] for row in workers) if words.until else None
    if code is WaitingFor.WORKER_OFFLINE and since is None:
        words = NEVER_CALLED
    moment = until or since
    said = words.own if not who else words.one if len(workers) == 1 else words.several
    message = said.format(
        name=subject.name,
        at=moment_words(moment, run["now"]) if moment else "",
        most=workers[0].get("max_concurrency"),
    )
    message = f"{who} {message}".lstrip()
    remedy = words.remedy.format(
        it="one" if who else "it", name="one of them" if who else subject.name
    )
    return Reason(
        words.pool_code or code if who else code,
        message,
        subject,
        since=since,
        until=until,
        remedy=f"{remedy}, or {_ADD if who else give_it_to_another(run)}",
    )


def _who(run: Row, workers: list[Row], total: int) -> str:
    """Returns whom a sentence is about, as its beginning: `2 of the 3 workers of pool linux`."""
    pool = f"{'other ' if run['worker_is_member'] else ''}workers of pool {run['pool_name']}"
    if total == 1:
        return f"Worker {workers[0]['label']}, the only one of the {pool},"
    if len(workers) == total:
        return f"All {total} {pool}"
    return f"{len(workers)} of the {total} {pool}"


def _pool(run: Row) -> Subject:
    return Subject("pool", run["pool_id"], run["pool_name"])


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
