"""Makes up the rows of runs and their retries for the demo: times, outcome, tokens and cost of each."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pipedai.sql import Row
from triggers.runs.retries import BACKOFF
from triggers.states import EndedBy, FaultClass, Source, Status

RUN_COLUMNS = (
    "id", "environment_id", "trigger_id", "revision_id", "worker_id", "status", "source", "attempt", "max_retries",
    "timeout_seconds", "retry_of_id", "retried", "scheduled_for", "available_at", "queued_at", "claimed_at",
    "started_at", "ended_at", "ended_by", "slot", "claim_id", "lease_expires_at", "deadline_at",
    "cancel_requested_at", "exit_code", "fault_class", "short_message", "model", "input_tokens", "output_tokens",
    "cache_read_tokens", "cache_creation_tokens", "cost_usd", "num_turns", "session_id", "active_ms",
    "tool_calls_total", "tool_calls_effects", "tool_calls_unknown",
)  # fmt: skip
_LEASE_SECONDS = 180
_GRACE_SECONDS = 60
# How long after its worker fell silent, or after its time limit, the server ends a run.
_LATE_SECONDS = {EndedBy.LEASE: _LEASE_SECONDS, EndedBy.DEADLINE: _GRACE_SECONDS}
# How a run ends whose chance is below the number: its status, who ended it, and whose fault it was.
_ENDINGS = (
    (0.90, Status.SUCCEEDED, EndedBy.WORKER, FaultClass.NONE),
    (0.95, Status.FAILED, EndedBy.WORKER, FaultClass.CLIENT),
    (0.965, Status.FAILED, EndedBy.WORKER, FaultClass.INFRA),
    (0.975, Status.FAILED, EndedBy.LEASE, FaultClass.INFRA),
    (0.985, Status.TIMED_OUT, EndedBy.WORKER, FaultClass.CLIENT),
    (0.992, Status.TIMED_OUT, EndedBy.DEADLINE, FaultClass.CLIENT),
    (1.0, Status.CANCELED, EndedBy.WORKER, FaultClass.NONE),
)
_SUCCESS = ("Done: nothing needed attention.", "Three items need an answer, and are listed in the report.",
            "Updated the sheet and told the team.", "All checks passed.")  # fmt: skip
_FAILURE = (
    "The MCP server answered 401.",
    "The tool is not known to the server.",
    "The page has another layout.",
)


@dataclass
class Capacity:
    """How many runs each worker may execute (`limits`), and the slots below it that are taken (`held`)."""

    limits: dict[UUID, int]
    held: dict[UUID, set[int]] = field(default_factory=dict)

    def take(self, worker_id: UUID) -> int | None:
        held = self.held.setdefault(worker_id, set())
        free = next((slot for slot in range(self.limits[worker_id]) if slot not in held), None)
        if free is not None:
            held.add(free)
        return free


class Ids:
    """Makes UUIDv7 ids for made-up moments. The same text `place` makes the same ids."""

    def __init__(self, place: str) -> None:
        self._rng = random.Random(place)  # noqa: S311 - reproducible, and no secret

    def at(self, moment: float) -> UUID:
        random_bits = self._rng.getrandbits(12) << 64 | 2 << 62 | self._rng.getrandbits(62)
        return UUID(int=int(moment * 1000) << 80 | 7 << 76 | random_bits)


def time_of(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


class Storyteller:
    """Makes up runs, one after another. No event in them lies after `until`, in seconds since 1970."""

    def __init__(self, rng: random.Random, ids: Ids, until: float, capacity: Capacity) -> None:
        self._rng, self._ids, self._until, self._capacity = rng, ids, until, capacity

    def tell(self, trigger: Any, source: Source, queued: float, tick: int | None) -> Iterator[Row]:
        """Yields the row of a run, then those of its retries, with RUN_COLUMNS, `error_message` and `payload`. Times
        are in seconds since 1970; `tick` is the due time of a scheduled run.
        """
        run = self._queued(trigger, source, queued, queued)
        run["scheduled_for"] = None if tick is None else time_of(tick)
        if source is Source.API and self._rng.random() < 0.5:
            run["payload"] = f'{{"ticket": {self._rng.randrange(10**6)}}}'
        while True:
            ended = self._live(run, trigger)
            run["retried"] = (
                run["fault_class"] == FaultClass.INFRA and run["attempt"] <= run["max_retries"]
            )
            yield run
            if ended is None or not run["retried"]:
                return
            delay = BACKOFF[min(run["attempt"], len(BACKOFF)) - 1].total_seconds()
            before = run
            run = self._queued(trigger, Source.RETRY, ended, ended + delay)
            run |= {
                "attempt": before["attempt"] + 1,
                "retry_of_id": before["id"],
                "scheduled_for": before["scheduled_for"],
                "payload": before["payload"],
            }

    def _queued(self, trigger: Any, source: Source, queued: float, available: float) -> Row:
        return {
            **dict.fromkeys(RUN_COLUMNS),
            "id": self._ids.at(queued),
            "environment_id": trigger.environment_id,
            "trigger_id": trigger.id,
            "revision_id": trigger.revision_id,
            "worker_id": trigger.worker_id,
            "status": Status.QUEUED,
            "source": source,
            "attempt": 1,
            "retried": False,
            "max_retries": trigger.max_retries,
            "timeout_seconds": trigger.timeout_seconds,
            "queued_at": time_of(queued),
            "available_at": time_of(available),
            "model": trigger.revision.model,
            "payload": None,
            "error_message": None,
        }

    def _live(self, run: Row, trigger: Any) -> float | None:
        rng = self._rng
        available: float = run["available_at"].timestamp()
        claimed = available + 0.1 + rng.expovariate(0.3)
        started = claimed + 0.2 + rng.random()
        seconds = min(math.exp(rng.gauss(4.3, 1.0)), trigger.timeout_seconds - 1)
        chance = rng.random()
        if chance < 0.01 and claimed < self._until:
            self._end(run, claimed, Status.CANCELED, EndedBy.USER, FaultClass.NONE)
            return claimed
        _, status, by, fault = next(each for each in _ENDINGS if chance < each[0])
        if status == Status.TIMED_OUT:
            seconds = float(run["timeout_seconds"])
        ended: float = started + seconds + _LATE_SECONDS.get(by, 0)
        if ended < self._until:
            run["claimed_at"], run["started_at"] = time_of(claimed), time_of(started)
            run["claim_id"] = f"{run['id'].hex[-12:]}"
            self._use(run, ended - started)
            self._end(run, ended, status, by, fault)
            return ended
        self._leave_unfinished(run, claimed, started)
        return None

    def _use(self, run: Row, seconds: float) -> None:
        """Fills in tokens, cost and tool calls of so many seconds of work."""
        rng = self._rng
        turns = 1 + int(seconds / 12)
        run["num_turns"], run["input_tokens"] = turns, turns * rng.randint(150, 900)
        run["output_tokens"] = turns * rng.randint(60, 400)
        run["cache_read_tokens"] = turns * rng.randint(2_000, 20_000)
        run["cache_creation_tokens"] = rng.randint(3_000, 30_000)
        run["tool_calls_total"], run["tool_calls_effects"] = turns - 1, (turns - 1) // 3
        run["tool_calls_unknown"] = 0
        micros = (
            run["input_tokens"] * 3
            + run["output_tokens"] * 15
            + run["cache_read_tokens"] * 0.3
            + run["cache_creation_tokens"] * 3.75
        )
        run["cost_usd"] = f"{micros / 1e6:.6f}"
        run["session_id"] = f"{rng.getrandbits(128):032x}"

    def _end(self, run: Row, ended: float, status: str, by: str, fault: str) -> None:
        rng = self._rng
        run |= {
            "status": status,
            "ended_at": time_of(ended),
            "ended_by": by,
            "fault_class": fault,
        }
        if by in (EndedBy.LEASE, EndedBy.DEADLINE):
            # A run that the server ended by its lease or deadline has no tokens and no cost, because its worker never
            # reported them.
            used = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens",
                    "cost_usd", "num_turns", "session_id")  # fmt: skip
            run |= dict.fromkeys(used)
        if by == EndedBy.LEASE:
            run["error_message"] = f"worker lost: no heartbeat for {_LEASE_SECONDS} s"
        elif status == Status.SUCCEEDED:
            run["exit_code"], run["short_message"] = 0, rng.choice(_SUCCESS)
        elif status == Status.FAILED:
            run["exit_code"], run["short_message"] = 1, "It failed."
            run["error_message"] = rng.choice(_FAILURE)
        elif status == Status.CANCELED and by == EndedBy.WORKER:
            run["cancel_requested_at"] = time_of(ended - min(5, rng.random() * 5))

    def _leave_unfinished(self, run: Row, claimed: float, started: float) -> None:
        """Leaves the run claimed, running, or queued if its worker is busy, as it is at `until`."""
        slot = self._capacity.take(run["worker_id"]) if claimed < self._until else None
        if slot is None:
            return
        is_running = started < self._until
        run |= {
            "status": Status.RUNNING if is_running else Status.CLAIMED,
            "slot": slot,
            "claimed_at": time_of(claimed),
            "started_at": time_of(started) if is_running else None,
            "claim_id": run["id"].hex[-12:],
            "lease_expires_at": time_of(self._until + _LEASE_SECONDS),
            "deadline_at": time_of(claimed + run["timeout_seconds"] + _GRACE_SECONDS),
        }
