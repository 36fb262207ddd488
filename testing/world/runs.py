"""Makes runs of the cast and moves them through the real lifecycle, with a clock that only `wait` moves."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from audit.models import AuditEntry
from pipedai.api.errors import NotFound
from pipedai.events import Actor
from pipedai.sql import Row, fetch_one
from testing.world.cast import Cast
from triggers.approvals.services import decide_approval, spend_approval
from triggers.models import Approval, Delivery, Run, RunResult, RunText, Trigger
from triggers.runs import lifecycle, queueing, reports
from triggers.runs.conditions import Limits, limits_of
from triggers.runs.handout import choose_runs
from triggers.runs.outcome import ToolCalls
from triggers.states import Source
from workers.models import Worker
from workers.protocol.serializers import CompleteBody, as_reported, outcome_of

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
WEBHOOK_URL = "https://hooks.example/runs/done?key=1"

USER = Actor("user")
# What `ask` asks for, and the rules by which a person has to decide.
QUESTION = {
    "tool": "send_mail",
    "arguments": {"to": "ada@example.com"},
    "argumentsHash": "a" * 64,
    "toolSchemaHash": "b" * 64,
}
LOOK = {"tool": "list_pulls", "arguments": {"state": "open"}, "runIf": "changed"}
RULES = [
    {
        "tools": ["send_mail"],
        "when": "always",
        "approverRole": "operator",
        "notRequester": False,
        "expiresAfterSeconds": 600,
    }
]


@dataclass
class Runs:
    """Runs of one trigger of the cast, which has a webhook. Everything happens at `now`.

    Methods such as `claim` are named as in the API, return what the lifecycle returns, and act for the cast's worker
    unless `worker_id` names another. Methods that bring a run into a state (`running`, `lost`…) return its id.
    """

    cast: Cast
    trigger_id: UUID
    now: datetime = NOON

    @classmethod
    def of(cls, cast: Cast, **trigger: Any) -> "Runs":
        """Makes a new trigger with these values, for runs of it."""
        return cls(cast, cast.add_trigger(**{"webhook_url": WEBHOOK_URL, **trigger}))

    def wait(self, **duration: float) -> datetime:
        """Moves the clock on by a duration in the units of timedelta, and returns the new time."""
        self.now += timedelta(**duration)
        return self.now

    # --- Verbs

    def queue(
        self,
        *,
        payload: Any = None,
        force: bool = False,
        look_only: bool = False,
        source: Source = Source.MANUAL,
        trigger_id: UUID | None = None,
    ) -> UUID:
        """Queues a new run of the trigger."""
        with transaction.atomic():
            run: Row = queueing.queue_run(
                trigger_id=trigger_id or self.trigger_id,
                source=source,
                actor=USER,
                payload=payload,
                force=force,
                look_only=look_only,
                now=self.now,
            )
        run_id: UUID = run["id"]
        return run_id

    def claim(
        self, run_id: UUID, claim_id: str | None = "mine", *, worker_id: UUID | None = None
    ) -> Row:
        """Claims a run as the endpoint does: it locks the worker's row and respects the worker's capacity."""
        worker_id = worker_id or self.cast.worker.worker_id
        with transaction.atomic():
            return lifecycle.claim_run(
                worker_id=worker_id,
                run_id=run_id,
                claim_id=claim_id,
                **locked_limits(worker_id, self.now),
                actor=Actor("worker", worker_id),
                now=self.now,
            )

    def start(self, run_id: UUID, *, worker_id: UUID | None = None) -> Row:
        return lifecycle.start_run(**self._by(worker_id), run_id=run_id, now=self.now)

    def heartbeat(
        self,
        run_id: UUID,
        counts: tuple[int, int, int] | None = None,
        *,
        session_id: str | None = None,
        worker_id: UUID | None = None,
    ) -> Row:
        """Sends a heartbeat of a run. `counts` are `total`, `effects` and `unknown` of its tool calls."""
        return lifecycle.heartbeat_run(
            worker_id=worker_id or self.cast.worker.worker_id,
            run_id=run_id,
            tool_calls=None if counts is None else ToolCalls(*counts),
            session_id=session_id,
            now=self.now,
        )

    def complete(
        self,
        run_id: UUID,
        status: str = "succeeded",
        *,
        worker_id: UUID | None = None,
        **report: Any,
    ) -> Row:
        """Completes a run with what a worker would send, under the API's names (`faultClass="infra"`)."""
        body = CompleteBody(data={"status": status, **report})
        body.is_valid(raise_exception=True)
        values = dict(body.validated_data)
        return reports.complete_run(
            **self._by(worker_id),
            run_id=run_id,
            outcome=outcome_of(values),
            reported=as_reported(values),
            now=self.now,
        )

    def ask(self, run_id: UUID, *, worker_id: UUID | None = None, **report: Any) -> Row:
        """Lets a run wait for a decision about QUESTION, as its worker reports, which claimed it as `claim` does."""
        asked = {"approval": QUESTION, "sessionId": "s-1", "claimId": "mine", **report}
        return self.complete(run_id, "waiting", worker_id=worker_id, **asked)

    def decide(
        self,
        run_id: UUID,
        *,
        approve: bool = True,
        reason: str | None = None,
        by: UUID | None = None,
    ) -> Row:
        """Decides as the environment's owner, or as the user `by`, about what a run asked for last. Returns the whole
        run. Raises NotFound if it never asked.
        """
        decide_approval(
            approval_id=self.approval_of(run_id)["id"],
            approve=approve,
            reason=reason,
            actor=Actor("user", by or self.cast.owner.id),
            now=self.now,
        )
        return self.stored(run_id)

    def spend(self, run_id: UUID, *, worker_id: UUID | None = None) -> Row:
        """Uses the last approval of a run, as its worker's gateway does."""
        approval_id = self.approval_of(run_id)["id"]
        return spend_approval(
            **self._by(worker_id), run_id=run_id, approval_id=approval_id, now=self.now
        )

    def cancel(self, run_id: UUID) -> Row:
        """Cancels a run as a user."""
        return lifecycle.cancel_run(run_id=run_id, actor=USER, now=self.now)

    def expire(self, *, limit: int = 100) -> int:
        """Expires claimed and running runs as the scheduler does."""
        return lifecycle.expire_runs(limit=limit, now=self.now)

    def expire_queued(self) -> int:
        """Ends the queued runs that no worker may claim any more, as the scheduler does."""
        return lifecycle.expire_queued_runs(now=self.now)

    def polled(self, worker_id: UUID | None = None) -> list[UUID]:
        """Returns the ids of the runs that a poll of the worker would return now."""
        worker_id = worker_id or self.cast.worker.worker_id
        with transaction.atomic():
            limits = locked_limits(worker_id, self.now)
        chosen = choose_runs(worker_id=worker_id, **limits, now=self.now)
        return [run.row["id"] for run in chosen]

    def take_approvals(self, worker_id: UUID | None = None) -> None:
        """Lets a worker name approvals among its features from now on."""
        self.take_features("approvals", worker_id=worker_id)

    def take_features(self, *features: str, worker_id: UUID | None = None) -> None:
        """Lets a worker name these features from now on."""
        workers = Worker.objects.filter(id=worker_id or self.cast.worker.worker_id)
        workers.update(features=list(features))

    def call(self, *worker_ids: UUID) -> None:
        """Lets these workers be online at `now`, as a call of each would."""
        Worker.objects.filter(id__in=worker_ids).update(last_seen_at=self.now)

    # --- Ways into a state

    def claimed(
        self, *, claim_id: str | None = "mine", worker_id: UUID | None = None, **queue: Any
    ) -> UUID:
        """Makes a claimed run."""
        run_id = self.queue(**queue)
        self.claim(run_id, claim_id, worker_id=worker_id)
        return run_id

    def running(self, *, worker_id: UUID | None = None, **queue: Any) -> UUID:
        """Makes a run that its worker executes."""
        run_id = self.claimed(worker_id=worker_id, **queue)
        self.start(run_id, worker_id=worker_id)
        return run_id

    def ended(self, status: str = "succeeded", *, payload: Any = None, **report: Any) -> UUID:
        """Makes a run that its worker ended."""
        run_id = self.running(payload=payload)
        self.complete(run_id, status, **report)
        return run_id

    def quiet(self, digest: str = "a" * 64) -> UUID:
        """Makes a run that looked, and found nothing new. Its trigger has `before`, and its worker can look."""
        self.take_features("before")
        run_id = self.running()
        looked = {"digest": digest, "lookedAt": self.now.isoformat(), "nothingNew": True}
        self.complete(run_id, before=looked)
        return run_id

    def waiting(self, *, worker_id: UUID | None = None, **report: Any) -> UUID:
        """Makes a run that waits for a decision. Its trigger has RULES from then on, and its worker takes approvals."""
        run_id = self.running(worker_id=worker_id)
        Trigger.objects.filter(id=self.trigger_id).update(approvals=RULES)
        self.take_approvals(worker_id)
        self.ask(run_id, worker_id=worker_id, **report)
        return run_id

    def decided(self, *, approve: bool = True) -> UUID:
        """Makes a run about whose call somebody has decided, and which is queued again."""
        run_id = self.waiting()
        self.decide(run_id, approve=approve)
        return run_id

    def lost(self, run_id: UUID | None = None) -> UUID:
        """Lets the lease of a run end, of a new running one unless one is given."""
        run_id = run_id or self.running()
        self.now = self.stored(run_id)["lease_expires_at"]
        self.expire()
        return run_id

    def overdue(self, run_id: UUID | None = None, *, worker_id: UUID | None = None) -> UUID:
        """Lets a run miss its deadline while it keeps its lease, a new running one unless one is given."""
        run_id = run_id or self.running(worker_id=worker_id)
        deadline = self.stored(run_id)["deadline_at"]
        self.now = deadline - timedelta(seconds=1)
        self.heartbeat(run_id, worker_id=worker_id)
        self.now = deadline
        self.expire()
        return run_id

    def claimed_retry_of(self, run_id: UUID) -> UUID:
        """Waits until the retry of a run is due, and claims it."""
        retry = self.retry_of(run_id)
        assert retry is not None
        self.now = max(self.now, retry["available_at"])
        self.claim(retry["id"])
        retry_id: UUID = retry["id"]
        return retry_id

    # --- What there is

    def stored(self, run_id: UUID) -> Row:
        """Returns the whole run as the database has it, with its long text, its output and its list of tool calls."""
        run = dict(Run.objects.values().get(id=run_id))
        text = RunText.objects.filter(run_id=run_id).values().first()
        result = RunResult.objects.filter(run_id=run_id).values().first()
        return (
            run
            | (text or dict.fromkeys(_TEXT_COLUMNS))
            | (result or dict.fromkeys(("output", "tool_calls")))
        )

    def counts(self, run_id: UUID) -> tuple[int | None, ...]:
        """Returns the counts of a run's tool calls: `total`, `effects` and `unknown`."""
        run = self.stored(run_id)
        return tuple(run[f"tool_calls_{part}"] for part in ("total", "effects", "unknown"))

    def retry_of(self, run_id: UUID) -> Row | None:
        """Returns the whole run that retries this one, or None."""
        retry_id = Run.objects.filter(retry_of_id=run_id).values_list("id", flat=True).first()
        return self.stored(retry_id) if retry_id else None

    def approval_of(self, run_id: UUID) -> Row:
        """Returns what a run asked for last. Raises NotFound."""
        found = Approval.objects.filter(run_id=run_id).order_by("created_at", "id").values().last()
        if found is None:
            raise NotFound
        return dict(found)

    def deliveries(self, run_id: UUID) -> list[Row]:
        """Returns the deliveries of a run, oldest first."""
        return [dict(row) for row in Delivery.objects.filter(run_id=run_id).order_by("id").values()]

    def audited(self, run_id: UUID) -> list[AuditEntry]:
        """Returns the audit entries of a run, oldest first."""
        return list(AuditEntry.objects.filter(target_id=run_id).order_by("created_at", "id"))

    def actions(self, run_id: UUID) -> list[str]:
        """Returns the actions of a run's audit entries, oldest first."""
        return [entry.action for entry in self.audited(run_id)]

    def _by(self, worker_id: UUID | None) -> dict[str, Any]:
        worker_id = worker_id or self.cast.worker.worker_id
        return {"worker_id": worker_id, "actor": Actor("worker", worker_id)}


_TEXT_COLUMNS = ("mcp_url", "payload", "error_message", "late_result", "handed_to")


_LOCKED_LIMITS = """
SELECT max_concurrency, disabled_at IS NOT NULL AS disabled, unapproved_since IS NULL AS approved, features,
    coalesce(limited_until > coalesce(%(now)s, statement_timestamp()), false) AS limited
FROM worker WHERE id = %(id)s FOR NO KEY UPDATE
"""


def locked_limits(worker_id: UUID, now: datetime | None = None) -> Limits:
    """Locks a worker's row until the transaction ends, and returns what it may claim: nothing if it is disabled or
    limited.
    """
    row = fetch_one(_LOCKED_LIMITS, {"id": worker_id, "now": now})
    assert row is not None
    return limits_of(**row)


def allow(worker_id: UUID, max_concurrency: int) -> None:
    """Sets how many runs a worker may hold."""
    Worker.objects.filter(id=worker_id).update(max_concurrency=max_concurrency)
