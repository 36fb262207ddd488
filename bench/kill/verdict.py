"""Compares the ledger with the client's requests, with what the program executed, and with the workers' files."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.figures import Json
from bench.kill.client import Request
from bench.kill.processes import Worker
from testing.processes.failure import ProcessFailed
from testing.processes.stack import Database

Row = dict[str, Any]

_RUNS = """
SELECT r.id::text, r.retry_of_id::text AS retry_of, r.attempt, r.status, r.fault_class, r.exit_code, r.ended_by,
    r.short_message, r.source, r.worker_id, r.pool_id,
    r.claimed_at > r.available_at + t.prefer_seconds * interval '1 second' AS claimed_late,
    x.error_message, x.late_result ->> 'status' AS late_status
FROM run r JOIN trigger t ON t.id = r.trigger_id LEFT JOIN run_text x ON x.run_id = r.id
"""
_AUDIT = """
SELECT target_id::text AS id, action, coalesce((metadata ->> 'late')::boolean, false) AS late
FROM audit_entry WHERE target_type = 'run'
"""
_BEGUN = {"run.created", "run.retried"}
_ENDED = {"run.completed", "run.lost", "run.timed-out", "run.not-started", "run.canceled"}


@dataclass(frozen=True, slots=True)
class Execution:
    """What the program recorded about one run."""

    began: int = 0
    ended: tuple[tuple[str, int], ...] = ()


class Evidence:
    """All evidence, collected when every run has ended."""

    def __init__(self, on: Database, workers: Sequence[Worker], answers: dict[str, str]) -> None:
        self.runs = {row["id"]: row for row in on.all(_RUNS)}
        self.answers = answers
        self.interrupted = {run_id for worker in workers for run_id in worker.interrupted}
        self.reached = {
            run_id: body for worker in workers for run_id, body in worker.reached.items()
        }
        self.retry_of = {run["retry_of"]: run for run in self.runs.values() if run["retry_of"]}
        self.left_behind = [
            f"{worker.directory.name} kept {what}"
            for worker in workers
            for what in (
                *worker.spooled("held"),
                *worker.spooled("outcomes"),
                *(path.name for path in worker.temporary.iterdir()),
            )
        ]
        self._audit: dict[str, Counter[str]] = defaultdict(Counter)
        for row in on.all(_AUDIT):
            late = " late" if row["late"] else ""
            self._audit[row["id"]][row["action"] + late] += 1
        self._executions = _executions(workers)

    def audited(self, run_id: str) -> Counter[str]:
        """How often the audit log has each action on the run. Actions of late results have ` late` at their end."""
        return self._audit[run_id]

    def execution(self, run_id: str) -> Execution:
        """What the program recorded about the run."""
        return self._executions.get(run_id, Execution())

    def attempts(self, run_id: str) -> list[Row]:
        """Return a run and its retries, in order."""
        found = [self.runs[run_id]]
        while found[-1]["id"] in self.retry_of:
            found.append(self.retry_of[found[-1]["id"]])
        return found

    def summary(self) -> Json:
        """Count what happened, for the table."""
        actions = sum(self._audit.values(), Counter[str]())
        return {
            "attempts": len(self.runs),
            "executed": sum(execution.began for execution in self._executions.values()),
            "interruptedInHand": len(self.interrupted),
            "outcomesThatSurvivedTheWorker": len(self.reached),
            "leasesLost": actions["run.lost"],
            "retriesByAnotherWorker": sum(
                run["worker_id"] not in {None, self.runs[first]["worker_id"]}
                for first, run in self.retry_of.items()
            ),
            "lateResultsTaken": actions["run.completed late"],
            "lateResultsKept": actions["run.late-result"],
            "succeeded": sum(run["status"] == "succeeded" for run in self.runs.values()),
        }


def complaints(evidence: Evidence, requests: Sequence[Request]) -> list[str]:
    """Return what is wrong, a sentence each. The list is empty if every run ended once and no outcome was lost."""
    found = list(evidence.left_behind)
    for run in evidence.runs.values():
        found += [f"Run {run['id']} {words}: {run}" for words in _of_run(evidence, run)]
    found += _of_requests(evidence, requests)
    return found


def judge(evidence: Evidence, requests: Sequence[Request]) -> None:
    """Raise ProcessFailed with what is wrong, if anything is."""
    if wrong := complaints(evidence, requests):
        raise ProcessFailed("\n".join(wrong))


def judge_given_up(evidence: Evidence, allowed: set[str]) -> None:
    """Raise ProcessFailed unless exactly the allowed runs, those of dead workers, were given up and retried."""
    given_up = {run_id for run_id in evidence.runs if evidence.audited(run_id)["run.lost"]}
    retried = {run["retry_of"] for run in evidence.runs.values() if run["retry_of"]}
    if wrong := (given_up | retried) - allowed:
        runs = [evidence.attempts(run_id) for run_id in sorted(wrong)]
        raise ProcessFailed(f"Runs were given up though their workers lived: {runs}")
    if lacking := allowed - (given_up & retried):
        runs = [evidence.attempts(run_id) for run_id in sorted(lacking)]
        raise ProcessFailed(f"Runs of dead workers were not given up and retried: {runs}")


def judge_lost(evidence: Evidence, lost: set[str]) -> None:
    """Raise ProcessFailed unless these runs of pools failed with their workers, and others of the pool did them."""
    if not lost:
        raise ProcessFailed("No worker was killed while it executed a run of a pool.")
    wrong = []
    for run_id in lost:
        run, *retries = evidence.attempts(run_id)
        # The worker that failed is passed over for some time only.
        others = [
            retry
            for retry in retries
            if retry["worker_id"] != run["worker_id"] or retry["claimed_late"]
        ]
        failed = (run["status"], run["fault_class"]) == ("failed", "infra")
        if not failed or not others[:1] == retries[:1] != []:
            wrong.append([run, *retries])
    if wrong:
        raise ProcessFailed(f"Runs of pools were not done by another worker: {wrong}")


def _of_run(evidence: Evidence, run: Row) -> Iterator[str]:
    """Yield what is wrong with one attempt."""
    execution, audited = evidence.execution(run["id"]), evidence.audited(run["id"])
    if run["status"] not in {"succeeded", "failed", "canceled"}:
        yield "has not ended as it should"
    if execution.began > 1:
        yield f"was executed {execution.began} times"
    if sum(audited[action] for action in _BEGUN) != 1:
        yield f"began not once but {audited}"
    if max(audited["run.claimed"], audited["run.started"]) > 1:
        yield f"was claimed or started twice: {audited}"
    if execution.began > audited["run.started"]:
        yield f"was executed but not started: {audited}"
    needless = run["ended_by"] == "late_result"
    if sum(audited[action] for action in _ENDED) != (0 if needless else 1):
        yield f"ended not once: {audited}"
    if audited["run.completed late"] > audited["run.lost"]:
        yield f"had a late result without being lost: {audited}"
    if needless and execution.began:
        yield "was executed though its predecessor's result counts"
    yield from _of_outcome(evidence, run, execution)


def _of_outcome(evidence: Evidence, run: Row, execution: Execution) -> Iterator[str]:
    """Yield what is wrong with the attempt's end and with what followed it."""
    before = evidence.runs.get(run["retry_of"])
    if (
        before
        and run["pool_id"]
        and before["worker_id"] == run["worker_id"]
        # It is None if nobody has claimed the retry, as of one that a late result canceled.
        and run["claimed_late"] is False
    ):
        yield "was retried by the worker that was lost, though others of the pool could take it"
    said = (run["short_message"], run["exit_code"])
    if _is_effective(run) and execution.ended != (said,):
        yield f"ended with what its program did not do ({execution})"
    if run["status"] == "failed" and run["fault_class"] == "infra":
        lost = run["ended_by"] == "lease"
        if not lost and run["id"] not in evidence.interrupted:
            yield "was given up though its worker lived"
        if run["id"] not in evidence.retry_of:
            yield "was not retried"
    elif (retry := evidence.retry_of.get(run["id"])) and retry["ended_by"] != "late_result":
        yield "was retried though it had an outcome"
    reached = evidence.reached.get(run["id"])
    if reached is not None and reached["status"] not in {run["status"], run["late_status"]}:
        yield f"lost the outcome that its worker had on disk ({reached})"


def _of_requests(evidence: Evidence, requests: Sequence[Request]) -> Iterator[str]:
    """Yield what is wrong between the client's requests and the ledger."""
    roots = {run["id"] for run in evidence.runs.values() if run["retry_of"] is None}
    if roots != set(evidence.answers.values()):
        yield f"{len(requests)} runs were asked for and {len(roots)} made."
    if len(set(evidence.answers.values())) != len(requests):
        yield f"{len(requests)} requests had {len(set(evidence.answers.values()))} answers."
    for request in requests:
        root = evidence.answers[request.key]
        if root not in evidence.runs:
            yield f"Run {root} was answered and is not in the ledger."
            continue
        attempts = evidence.attempts(root)
        effective = [run for run in attempts if _is_effective(run)]
        if len(effective) != 1:
            yield f"{request.key} had {len(effective)} outcomes: {attempts}"
        elif effective[0]["exit_code"] != request.payload["exitCode"]:
            yield f"{request.key} ended otherwise than its payload says: {effective[0]}"


def _is_effective(run: Row) -> bool:
    """Whether the run's program ended it, and not a lost lease, a time limit or a cancellation."""
    return (run["status"], run["fault_class"]) in {("succeeded", "none"), ("failed", "client")}


def _executions(workers: Sequence[Worker]) -> dict[str, Execution]:
    began: Counter[str] = Counter()
    ended: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for worker in workers:
        if not worker.executed.exists():
            continue
        for line in worker.executed.read_text().splitlines():
            what, run_id, *rest = line.split()
            if what == "began":
                began[run_id] += 1
            else:
                ended[run_id].append((rest[0], int(rest[1])))
    return {
        run_id: Execution(count, tuple(ended.get(run_id, ()))) for run_id, count in began.items()
    }
