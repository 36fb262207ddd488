"""One table has the result of every verb in every state of the run state machine."""

# ruff: noqa: E501 - the rows of the table are long.

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from pipedai.api.errors import ApiError
from pipedai.sql import fetch_one
from testing.world.run_states import STATES
from testing.world.runs import Runs
from testing.world.undone import undone
from triggers.runs.lifecycle import Refused
from triggers.states import EndedBy, Status

# --- Verbs: the calls that may change a run. Where a worker makes one, it is the cast's worker.


def _expire_lease(runs: Runs, run_id: UUID) -> None:
    runs.now = runs.stored(run_id)["lease_expires_at"] or runs.now + timedelta(days=2)
    runs.expire()


def _expire_deadline(runs: Runs, run_id: UUID) -> None:
    run = runs.stored(run_id)
    deadline = run["deadline_at"] or runs.now + timedelta(days=2)
    runs.now = deadline - timedelta(seconds=1)
    # A worker can't renew the lease of a run that it does not hold.
    with contextlib.suppress(ApiError):
        runs.heartbeat(run_id, worker_id=run["worker_id"])
    runs.now = deadline
    runs.expire()


def _expire_in_the_queue(runs: Runs, _: UUID) -> None:
    runs.wait(days=2)
    runs.expire_queued()


Verb = Callable[[Runs, UUID], Any]

VERBS: dict[str, Verb] = {
    "claim as mine": lambda runs, run_id: runs.claim(run_id, "mine"),
    "claim as other": lambda runs, run_id: runs.claim(run_id, "other"),
    "claim as none": lambda runs, run_id: runs.claim(run_id, None),
    "start": lambda runs, run_id: runs.start(run_id),
    "heartbeat": lambda runs, run_id: runs.heartbeat(run_id),
    "complete: succeeded": lambda runs, run_id: runs.complete(run_id, "succeeded"),
    "complete: failed, client": lambda runs, run_id: runs.complete(run_id, "failed"),
    "complete: failed, infra": lambda runs, run_id: runs.complete(
        run_id, "failed", faultClass="infra"
    ),
    "complete: timed_out, client": lambda runs, run_id: runs.complete(run_id, "timed_out"),
    "complete: timed_out, infra": lambda runs, run_id: runs.complete(
        run_id, "timed_out", faultClass="infra"
    ),
    "complete: canceled": lambda runs, run_id: runs.complete(run_id, "canceled"),
    "complete: waiting": lambda runs, run_id: runs.ask(run_id),
    "cancel": lambda runs, run_id: runs.cancel(run_id),
    "approve": lambda runs, run_id: runs.decide(run_id),
    "lease runs out": _expire_lease,
    "deadline passes": _expire_deadline,
    "nobody claims it": _expire_in_the_queue,
}

# --- Results of a verb


@dataclass(frozen=True)
class Change:
    """The result of a verb.

    It has the answer's status (None if the verb is the scheduler's), the run's state and who decided it (None
    if unchanged), what happened to the retry, the number of new deliveries, the audit rows, and whether
    the run's row changed.
    """

    answer: int | None
    state: tuple[str, str | None] | None = None
    retry: str | None = None
    deliveries: int = 0
    audit: tuple[str, ...] = ()
    changed: bool = True


REPORTED = ("as reported", "worker")

CODES: dict[str, Change] = {
    # Nothing changes.
    "409": Change(409, changed=False),
    "404": Change(404, changed=False),
    "same": Change(200, changed=False),
    "-": Change(None, changed=False),
    # The run goes on to another state, or stays in hand.
    "claim": Change(200, ("claimed", None), audit=("run.claimed",)),
    "start": Change(200, ("running", None), audit=("run.started",)),
    "beat": Change(200),
    "waits": Change(200, ("waiting", None), audit=("run.waiting",)),
    # Somebody decides. The audit row is the approval's.
    "goes": Change(200, ("queued", None)),
    "asks": Change(200, audit=("run.cancel-requested",)),
    # The worker ends the run. `+` means that a retry is made.
    "ends": Change(200, REPORTED, deliveries=1, audit=("run.completed",)),
    "ends+": Change(200, REPORTED, "made", 1, ("run.completed", "run.retried")),
    "ackn": Change(200, ("canceled", "worker"), deliveries=1, audit=("run.canceled",)),
    # A user or the scheduler ends the run.
    "drop": Change(200, ("canceled", "user"), deliveries=1, audit=("run.canceled",)),
    "lost+": Change(None, ("failed", "lease"), "made", 1, ("run.lost", "run.retried")),
    "lost": Change(None, ("canceled", "lease"), deliveries=1, audit=("run.lost",)),
    "over": Change(None, ("timed_out", "deadline"), deliveries=1, audit=("run.timed-out",)),
    "tardy": Change(None, ("failed", "start_deadline"), deliveries=1, audit=("run.not-started",)),
    "stuck": Change(None, ("failed", "had_effects"), deliveries=1, audit=("run.not-started",)),
    "ignored": Change(
        None, ("failed", "approval_expired"), deliveries=1, audit=("run.approval-expired",)
    ),
    "away": Change(
        None, ("failed", "approval_unreachable"), deliveries=1, audit=("run.not-started",)
    ),
    # A late result comes. `-` cancels the waiting retry, `=` leaves it, `+` makes one. A `kept` one comes too
    # late to count, and is only stored for people to read.
    "late": Change(200, REPORTED, deliveries=1, audit=("run.completed",)),
    "late-": Change(200, REPORTED, "canceled", 1, ("run.completed",)),
    "late=": Change(200, REPORTED, "stands", 1, ("run.completed",)),
    "late+": Change(200, REPORTED, "made", 1, ("run.completed", "run.retried")),
    "kept": Change(409, audit=("run.late-result",)),
}

# --- The table

# The columns follow VERBS: claim by the same claimId, by another, without one; start; heartbeat | complete:
# succeeded, client, infra, timed_out client, timed_out infra, canceled, waiting | cancel, approve | lease, deadline.
# IN_THE_QUEUE has the last column.
TABLE = {
    "queued, due":            "claim claim claim 409   409   | 409   409   409   409   409   409   409   | drop 404   | -     -",
    "queued, not due":        "409   409   409   409   409   | 409   409   409   409   409   409   409   | drop 404   | -     -",
    "queued, no worker":      "404   404   404   404   404   | 404   404   404   404   404   404   404   | drop 404   | -     -",
    "queued, in a hurry":     "claim claim claim 409   409   | 409   409   409   409   409   409   409   | drop 404   | -     -",
    "queued, in a session":   "claim claim claim 409   409   | 409   409   409   409   409   409   409   | drop 404   | -     -",
    "claimed with mine":      "same  409   409   start beat  | ends  ends  ends+ ends  ends+ 409   waits | asks 404   | lost+ over",
    "claimed with other":     "409   same  409   start beat  | ends  ends  ends+ ends  ends+ 409   409   | asks 404   | lost+ over",
    "claimed with a third":   "409   409   409   start beat  | ends  ends  ends+ ends  ends+ 409   409   | asks 404   | lost+ over",
    "claimed with none":      "409   409   same  start beat  | ends  ends  ends+ ends  ends+ 409   409   | asks 404   | lost+ over",
    "claimed, asked to stop": "same  409   409   start beat  | ends  ends  ends  ends  ends  ackn  ackn  | same 404   | lost  over",
    "running":                "409   409   409   same  beat  | ends  ends  ends+ ends  ends+ 409   waits | asks 404   | lost+ over",
    "running, asked to stop": "409   409   409   same  beat  | ends  ends  ends  ends  ends  ackn  ackn  | same 404   | lost  over",
    "waiting":                "409   409   409   409   409   | 409   409   409   409   409   409   same  | drop  goes  | -     -",
    "decided":                "claim claim claim 409   409   | 409   409   409   409   409   409   same  | drop  409   | -     -",
    "running, decided":       "409   409   409   same  beat  | ends  ends  ends+ ends  ends+ 409   waits | asks  409   | lost+ over",
    "decision expired":       "409   409   409   409   409   | 409   409   409   409   409   409   same  | 409   409   | -     -",
    "decided, not continued": "409   409   409   409   409   | 409   409   409   409   409   409   same  | 409   409   | -     -",
    "canceled while waiting": "409   409   409   409   409   | 409   409   409   409   409   409   same  | 409   409   | -     -",
    "succeeded":              "409   409   409   409   409   | same  409   409   409   409   409   409   | 409  404   | -     -",
    "failed, client":         "409   409   409   409   409   | 409   same  same  409   409   409   409   | 409  404   | -     -",
    "failed, infra":          "409   409   409   409   409   | 409   same  same  409   409   409   409   | 409  404   | -     -",
    "timed_out":              "409   409   409   409   409   | 409   409   409   same  same  409   409   | 409  404   | -     -",
    "not started in time":    "409   409   409   409   409   | 409   409   409   409   409   409   409   | 409  404   | -     -",
    "session not continued":  "409   409   409   409   409   | 409   409   409   409   409   409   409   | 409  404   | -     -",
    "canceled in the queue":  "409   409   409   409   409   | 409   409   409   409   409   409   409   | 409  404   | -     -",
    "canceled by its worker": "409   409   409   409   409   | 409   409   409   409   409   same  same  | 409  404   | -     -",
    "canceled as needless":   "409   409   409   409   409   | 409   409   409   409   409   409   409   | 409  404   | -     -",
    "lost, retry waiting":    "409   409   409   409   409   | late- late- late= late- late= 409   409   | 409  404   | -     -",
    "lost, retry claimed":    "409   409   409   409   409   | kept  kept  kept  kept  kept  409   409   | 409  404   | -     -",
    "lost, retry ended":      "409   409   409   409   409   | kept  kept  kept  kept  kept  409   409   | 409  404   | -     -",
    "lost, retry canceled":   "409   409   409   409   409   | late  late  late  late  late  409   409   | 409  404   | -     -",
    "lost, no retry":         "409   409   409   409   409   | late  late  late  late  late  409   409   | 409  404   | -     -",
    "lost, then reported":    "409   409   409   409   409   | same  409   409   409   409   409   409   | 409  404   | -     -",
    "lost, asked to stop":    "409   409   409   409   409   | late  late  late  late  late  late  409   | 409  404   | -     -",
    "overdue":                "409   409   409   409   409   | late  late  late+ late  late+ 409   409   | 409  404   | -     -",
    "overdue, asked to stop": "409   409   409   409   409   | late  late  late  late  late  late  409   | 409  404   | -     -",
    "another's, queued":      "404   404   404   404   404   | 404   404   404   404   404   404   404   | drop 404   | -     -",
    "another's, claimed":     "404   404   404   404   404   | 404   404   404   404   404   404   404   | asks 404   | lost+ over",
    "another's, running":     "404   404   404   404   404   | 404   404   404   404   404   404   404   | asks 404   | lost+ over",
    "another's, lost":        "404   404   404   404   404   | 404   404   404   404   404   404   404   | 409  404   | -     -",
}  # fmt: skip

# What happens to a run that nobody claims, in the states in which that is the end of it.
IN_THE_QUEUE = {
    "queued, in a hurry": "tardy",
    "queued, in a session": "stuck",
    "waiting": "ignored",
    "decided": "away",
}


def test_each_verb_does_what_the_table_says_and_these_are_all_states(
    runs: Runs, subtests: pytest.Subtests
) -> None:
    found = set()
    for state, make in STATES.items():
        with subtests.test(state), undone():
            of_state = replace(runs)
            cells = zip(VERBS, _codes(state), strict=True)
            expected = {verb: _settled(CODES[code], verb) for verb, code in cells}
            run_id = make(of_state)
            of_state.wait(seconds=1)
            before = _Seen.of(run_id)
            found.add(before.state)
            assert {verb: _change(of_state, run_id, before, verb) for verb in VERBS} == expected
    assert {status for status, _ in found} == set(Status.values)
    assert {ended_by for _, ended_by in found} == {None, *EndedBy.values}


def test_the_table_has_every_state_and_every_verb() -> None:
    assert set(TABLE) == set(STATES)
    assert {state: len(_codes(state)) for state in TABLE} == dict.fromkeys(TABLE, len(VERBS))
    used = {code for state in TABLE for code in _codes(state)}
    assert used == set(CODES)


def _codes(state: str) -> list[str]:
    return [*TABLE[state].replace("|", " ").split(), IN_THE_QUEUE.get(state, "-")]


def _settled(change: Change, verb: str) -> Change:
    """Replaces the words "as reported" by the status that this verb reports."""
    if change.state != REPORTED:
        return change
    reported = verb.removeprefix("complete: ").partition(",")[0]
    return replace(change, state=(reported, "worker"))


def _change(runs: Runs, run_id: UUID, before: "_Seen", verb: str) -> Change:
    """Calls the verb, returns what changed, and rolls everything back."""
    with undone():
        runs = replace(runs)  # this copy has a clock of its own
        answer = _answer(VERBS[verb], runs, run_id, before.state[0])
        after = _Seen.of(run_id)
        state_changed = before.state != after.state
        return Change(
            answer,
            after.state if state_changed else None,
            _fate(before.retry, after.retry) if state_changed else None,
            after.deliveries - before.deliveries,
            tuple(sorted(after.audit - before.audit)),
            before.run != after.run,
        )


_SEEN = """
SELECT run.status, run.ended_by, jsonb_build_array(to_jsonb(run), to_jsonb(t), to_jsonb(r)) AS run,
    retry.status AS retry,
    (SELECT count(*) FROM delivery WHERE delivery.run_id = run.id) AS deliveries,
    ARRAY(SELECT action FROM audit_entry WHERE target_id = run.id
        OR action = 'run.retried' AND metadata ->> 'retryOf' = run.id::text) AS audit
FROM run LEFT JOIN run retry ON retry.retry_of_id = run.id
    LEFT JOIN run_text t ON t.run_id = run.id LEFT JOIN run_result r ON r.run_id = run.id
WHERE run.id = %(id)s
"""


@dataclass(frozen=True)
class _Seen:
    """A run with all of its rows, the status of its retry, and what was told about it."""

    state: tuple[str, str | None]
    run: Any
    retry: str | None
    deliveries: int
    audit: Counter[str]

    @classmethod
    def of(cls, run_id: UUID) -> "_Seen":
        row = fetch_one(_SEEN, {"id": run_id})
        assert row is not None
        audit: Counter[str] = Counter(row["audit"])
        state = (row["status"], row["ended_by"])
        return cls(state, row["run"], row["retry"], row["deliveries"], audit)


def _answer(verb: Verb, runs: Runs, run_id: UUID, before: str) -> int | None:
    """Calls the verb and returns the answer's status. Checks that a refusal names the run's state."""
    try:
        answer = verb(runs, run_id)
    except ApiError as error:
        answer = error
    if isinstance(answer, Refused):
        told = {"error": answer.message, "code": answer.code, "status": before}
        assert answer.body() == told
    if isinstance(answer, ApiError):
        return answer.status_code
    if answer is None:
        return None
    assert answer["status"] == runs.stored(run_id)["status"]
    return 200


def _fate(before: str | None, after: str | None) -> str | None:
    """Returns what happened to the retry, given its status before and after."""
    if before is None:
        return after and "made"
    if before != Status.QUEUED:
        return None
    return "stands" if after == before else after
