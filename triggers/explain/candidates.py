"""Finds the workers that could take a queued run, and says what keeps each from it.

One statement evaluates the conditions of `triggers.runs.conditions` for all of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipedai.sql import NOW, Row, fetch_all
from triggers.explain.answers import Advice, Reason, Subject, moment_words
from triggers.reasons import HINDRANCES, NEVER_CALLED, WaitingFor
from triggers.runs.conditions import (
    EVALUATED,
    FREE_IN_TRIGGER,
    Limits,
    about,
    is_online,
    limits_of,
)

# Evaluates the conditions for the run, and for each worker that could take it: the run's own worker and the workers of
# its pool. If there is no such worker, it returns one row without a worker.
_EVALUATE = f"""
SELECT {about(EVALUATED, "c")},
    CASE WHEN t.max_concurrent_runs IS NOT NULL THEN {FREE_IN_TRIGGER} END AS free_in_trigger,
    r.resume_until > {NOW} AS is_resuming, r.pool_from > greatest({NOW}, r.available_at) AS is_for_worker_first,
    c.id AS worker_id, c.id = r.worker_id AS is_own, c.label, c.max_concurrency, c.disabled_at, c.unapproved_since,
    c.features,
    coalesce(c.signed_off_at, c.last_seen_at) AS called_until, c.deleted_at, c.token_digest IS NOT NULL AS has_token,
    {is_online("c")} AS is_online,
    EXISTS (SELECT FROM pool_member m WHERE m.pool_id = r.pool_id AND m.worker_id = c.id) AS is_member
FROM run r JOIN trigger t ON t.id = r.trigger_id
LEFT JOIN LATERAL (
    SELECT w.* FROM (
        SELECT r.worker_id AS id UNION SELECT m.worker_id FROM pool_member m WHERE m.pool_id = r.pool_id) given
    JOIN worker w ON w.id = given.id) c ON true
WHERE r.id = %(run_id)s
ORDER BY c.id
"""


# The problems that the run's worker and the workers of its pool report about their machines. OFFSET 0 makes PostgreSQL
# look up each of these workers, instead of reading all workers.
_PROBLEMS = """
SELECT w.id, w.label, p ->> 'code' AS code, p ->> 'message' AS message
FROM (
    SELECT %(worker_id)s::uuid AS id
    UNION SELECT m.worker_id FROM pool_member m WHERE m.pool_id = %(pool_id)s AND %(asks_pool)s) given
CROSS JOIN LATERAL (SELECT * FROM worker WHERE id = given.id OFFSET 0) w
CROSS JOIN LATERAL jsonb_array_elements(w.problems) WITH ORDINALITY AS each (p, n)
WHERE w.problems_since IS NOT NULL AND w.disabled_at IS NULL AND w.deleted_at IS NULL
ORDER BY w.id <> %(worker_id)s, w.label, w.id, n LIMIT %(most)s
"""
MOST_ADVICE = 10


def advice(run: Row) -> tuple[Advice, ...]:
    """Returns the problems of the machines that may take or hold the run, a row of `triggers.explain.runs`."""
    params = {**run, "asks_pool": run["claimed_at"] is None, "most": MOST_ADVICE}
    return tuple(
        Advice(row["code"], row["message"], Subject("worker", row["id"], row["label"]))
        for row in fetch_all(_PROBLEMS, params)
    )


@dataclass(frozen=True, slots=True)
class Candidates:
    """The workers that could take a queued run, and in `run` the conditions of the run itself. `own` is the run's
    worker. `others` are the other workers of its pool; they may not take it while the run is reserved for `own`.
    """

    run: Row
    own: Row | None
    others: list[Row]

    @property
    def is_for_one(self) -> bool:
        """Returns whether only the run's own worker may take it, now or when it comes due."""
        return self.own is not None and bool(
            self.run["is_resuming"] or self.run["is_for_worker_first"]
        )

    @property
    def pool_is_empty(self) -> bool:
        """Returns whether the run's pool has no worker at all. It does not say whether the run has a pool."""
        return not self.others and not (self.own is not None and self.own["is_member"])

    @property
    def eligible(self) -> list[Row]:
        own = [self.own] if self.own is not None else []
        return own if self.is_for_one else [*own, *self.others]


def find_candidates(run: Row, *, now: datetime | None) -> Candidates:
    """Returns the workers that could take a queued run, a row of `triggers.explain.runs`. It takes one statement."""
    params = {
        "run_id": run["id"],
        "environment_id": run["environment_id"],
        "now": now,
    }
    rows = fetch_all(_EVALUATE, params)
    assert rows, "a queued run is never deleted"
    workers = [row for row in rows if row["worker_id"] is not None]
    return Candidates(
        run=rows[0],
        own=next((row for row in workers if row["is_own"]), None),
        others=[row for row in workers if not row["is_own"]],
    )


def limits_of_candidate(worker: Row) -> Limits:
    return limits_of(
        max_concurrency=worker["max_concurrency"],
        disabled=worker["disabled_at"] is not None,
        limited=worker["limited_until"] is not None,
        approved=worker["unapproved_since"] is None,
        features=worker["features"],
    )


def room_of(worker: Row) -> int:
    """Returns how many more runs a worker of `find_candidates` may claim: none if it is disabled or limited."""
    free: int = worker["free_slots"]
    return min(limits_of_candidate(worker)["capacity"], free)


def hindrances(worker: Row, *, is_due: bool) -> list[WaitingFor]:
    """Returns what keeps a candidate from taking the run, the longest-lasting hindrance first. Whether a retry passes
    the worker over is known only when the run `is_due`.
    """
    holds = {
        WaitingFor.WORKER_REVOKED: not worker["has_token"],
        WaitingFor.WORKER_DISABLED: worker["disabled_at"] is not None,
        WaitingFor.WORKER_LIMITED: worker["limited_until"] is not None,
        WaitingFor.WORKER_OFFLINE: worker["has_token"] and not worker["is_online"],
        WaitingFor.WORKER_UNAPPROVED: not worker["headers_may_go"],
        WaitingFor.WORKER_LACKS_FEATURES: not worker["features_may_go"],
        WaitingFor.BUDGET_EXHAUSTED: not worker["budgets_have_room"],
        WaitingFor.FIRST_WORKER: is_due and not (worker["is_offered"] and worker["is_not_avoided"]),
        WaitingFor.WORKER_FULL: limits_of_candidate(worker)["capacity"] > 0
        and not worker["free_slots"],
    }
    return [code for code, holds_it_back in holds.items() if holds_it_back]


_ADD = "add a machine to the pool with PUT /pools/:id/workers/:workerId."

START_ONE = f"Start the worker program on one of them, or {_ADD}"


def own_reasons(run: Row, worker: Row, codes: Iterable[WaitingFor]) -> Iterator[Reason]:
    """Yields a reason for each hindrance of the run's own worker. `run` is a row of `triggers.explain.runs`, and
    `worker` one of its candidates.
    """
    subject = Subject("worker", worker["worker_id"], worker["label"])
    for code in codes:
        if code is WaitingFor.WORKER_REVOKED and worker["deleted_at"] is not None:
            message = f"Machine {subject.name} was deleted."
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
    """Yields the reasons why these workers of the run's pool do not take it. Each worker comes with its hindrances, of
    which only the first counts. The run's own worker is not among them, because it has reasons of its own.
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
        f"Pool {run['pool_name']} has no machines.",
        _pool(run),
        remedy=_ADD[0].upper() + _ADD[1:],
    )


def _reason(
    run: Row, code: WaitingFor, workers: Sequence[Row], subject: Subject, *, who: str
) -> Reason:
    """Returns the reason why some workers don't take the run. `who` is the beginning of a sentence about workers of the
    pool; it is empty if the reason is about the run's own worker.
    """
    if code is WaitingFor.FIRST_WORKER:
        until = run["avoided_until"]
        at = moment_words(until, run["now"], to_the_second=True)
        message = f"Machine {workers[0]['label']} failed the attempt before, so it may take this one only from {at}."
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
    """Returns the beginning of a sentence about some workers: `2 of the 3 machines of pool linux`."""
    pool = f"{'other ' if run['worker_is_member'] else ''}machines of pool {run['pool_name']}"
    if total == 1:
        return f"Machine {workers[0]['label']}, the only one of the {pool},"
    if len(workers) == total:
        return f"All {total} {pool}"
    return f"{len(workers)} of the {total} {pool}"


def _pool(run: Row) -> Subject:
    return Subject("pool", run["pool_id"], run["pool_name"])


def why_only_one(run: Row, found: Candidates) -> Reason:
    """Returns the reason why no other worker may take the run: it continues a session, or is for its worker first."""
    assert found.own is not None
    worker = Subject("worker", found.own["worker_id"], found.own["label"])
    if not found.run["is_resuming"]:
        opens = moment_words(run["pool_from"], run["now"], to_the_second=True)
        return Reason(
            WaitingFor.FIRST_WORKER,
            f"It is for machine {worker.name} first. All machines of pool {run['pool_name']} may take it from {opens}.",
            worker,
            until=run["pool_from"],
        )
    only, then = f"Only machine {worker.name} can continue its session.", "it is started anew"
    if run["spells"]:
        only = (
            f"Somebody has decided about its call, and only machine {worker.name} can continue it."
        )
        then = "it ends as failed"
    elif run["had_effects"]:
        then = "it ends as failed, because the run before it may have changed something"
    until = moment_words(run["resume_until"], run["now"], to_the_second=True)
    return Reason(
        WaitingFor.RESUME_WORKER,
        f"{only} If it does not by {until}, {then}.",
        worker,
        until=run["resume_until"],
    )


def give_it_to_another(run: Row) -> str:
    """Returns the end of a remedy, which says how another worker gets the run."""
    if run["pool_id"] is not None:
        return "add a machine to the pool with PUT /pools/:id/workers/:workerId."
    return "give the trigger another machine with PATCH /triggers/:id (workerId)."
