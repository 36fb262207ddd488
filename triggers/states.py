"""The states of a run, and other fixed words of runs, ticks and triggers (docs/run-lifecycle.md)."""

from typing import Final

from django.db.models import TextChoices


class Status(TextChoices):
    """The state of a run. The text below each says what it means, who moves the run on, and who ends it otherwise."""

    QUEUED = "queued"
    """The run waits for its worker, or for a worker of its pool, which may claim it from `availableAt` on. Moved on by
    the claim, by a user's cancel, or by the late result that makes a retry needless. It is reaped by
    `expire_queued_runs` when its start deadline has passed, or when it can no longer continue a session that must not
    be started anew. Without such a time, it waits until its worker is back or its trigger is given another worker or
    pool."""

    CLAIMED = "claimed"
    """A worker has claimed the run, which now holds one of that worker's slots and a lease. Moved on by the worker's
    start, or by its complete if the launch failed. It is reaped by `expire_runs` when the lease or the deadline has
    passed; the deadline counts from the claim."""

    RUNNING = "running"
    """The worker executes the run and renews its lease by heartbeats. Moved on by the worker's complete. It is
    reaped by `expire_runs` when the lease or the deadline has passed; the deadline counts from the start."""

    WAITING = "waiting"
    """The run asked whether it may call a tool, and no worker holds it. It keeps its worker, whose machine has its
    session. Moved on by a person's decision, after which it is queued again, or by a user's cancel. It is reaped by
    `expire_queued_runs` when nobody has decided in time."""

    SUCCEEDED = "succeeded"
    """Ended: the worker reported success. Final: nothing changes the run any more."""

    FAILED = "failed"
    """Ended: the worker reported a failure, or the lease ran out and the server gave the run up. Final if the worker
    ended it; a late result of the worker may still replace the verdict of the server. A failure with the fault class
    `infra` queues a retry, which is another run."""

    TIMED_OUT = "timed_out"
    """Ended: the run took too long, as the worker reported or as the server found when the deadline had passed. Final
    if the worker ended it; a late result of the worker may still replace the verdict of the server."""

    CANCELED = "canceled"
    """Ended: a user canceled the run in the queue, or the worker stopped it at a user's request, or the lease ran out
    after that request, or a late result made this retry needless. Final, except after a lost lease: then a late result
    of the worker may still replace the verdict of the server."""


# The states in which a worker holds the run. Such a run takes one of the worker's slots, and has a lease and a
# deadline. `expire_runs` ends it when its lease or its deadline has passed.
HELD: Final = (Status.CLAIMED, Status.RUNNING)
# The states in which a run is unfinished and no worker holds it.
UNHELD: Final = (Status.QUEUED, Status.WAITING)
# The states in which a run has ended.
TERMINAL: Final = (Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT, Status.CANCELED)
# The states that a worker may report.
REPORTED: Final = (*TERMINAL, Status.WAITING)
FAILURES: Final = (Status.FAILED, Status.TIMED_OUT)


class Source(TextChoices):
    """Why a run exists. It is written when the run is queued."""

    # A person with a browser session requested the run.
    MANUAL = "manual"
    # A program with an API key (`pwk_`) requested the run.
    API = "api"
    # The scheduler made the run, because the trigger's schedule came due.
    SCHEDULE = "schedule"
    # The run repeats one that failed through the fault of infrastructure.
    RETRY = "retry"
    # An event came from a source to which the trigger listens.
    EVENT = "event"
    # A run of a trigger to which the trigger listens ended.
    CHAIN = "chain"


class FaultClass(TextChoices):
    """Whose fault the end of a run was. Only `infra` leads to a retry."""

    # Something that the run depends on failed: its worker was lost, or a network or an API was away.
    INFRA = "infra"
    # The trigger is to blame (its prompt, MCP server, a limit), so another attempt would probably end in the same
    # way.
    CLIENT = "client"
    # The run succeeded or was canceled.
    NONE = "none"


class EndedBy(TextChoices):
    """Who ended a run, or which rule of the server did."""

    # The worker reported that the run had ended.
    WORKER = "worker"
    # A user canceled the run while it was queued or waiting.
    USER = "user"
    # `expire_runs` gave the run up, because its worker had not renewed the lease.
    LEASE = "lease"
    # `expire_runs` ended the run, because its deadline had passed.
    DEADLINE = "deadline"
    # The run was a retry. While it waited in the queue, the worker of the run that it repeats reported a result after
    # all, so the retry was canceled.
    LATE_RESULT = "late_result"
    # `expire_queued_runs` ended the run, because no worker had claimed it within the trigger's `startDeadlineSeconds`.
    START_DEADLINE = "start_deadline"
    # `expire_queued_runs` ended the run. It could only continue a session, which is no longer possible. It must not
    # start anew, because the session's tool calls may have changed something.
    HAD_EFFECTS = "had_effects"
    # `expire_queued_runs` ended the run, because nobody had decided about its tool call in time.
    APPROVAL_EXPIRED = "approval_expired"
    # `expire_queued_runs` ended the run, because its worker did not continue it in time after a decision.
    APPROVAL_UNREACHABLE = "approval_unreachable"


# The values that mean that the server ended the run without a report of its worker. A later report of the worker may
# replace such an end.
SERVER_VERDICTS: Final = (EndedBy.LEASE, EndedBy.DEADLINE)


# The values that mean that the run ended in the queue as failed. No worker had claimed it since it was last queued.
NEVER_CLAIMED: Final = (
    EndedBy.START_DEADLINE,
    EndedBy.HAD_EFFECTS,
    EndedBy.APPROVAL_UNREACHABLE,
)


class ApprovalStatus(TextChoices):
    """What has become of a run's question whether it may call a tool."""

    # Nobody has decided. The run waits.
    PENDING = "pending"
    # Somebody approved the call.
    APPROVED = "approved"
    # Somebody rejected the call.
    REJECTED = "rejected"
    # Nobody decided in time, and the run has failed.
    EXPIRED = "expired"
    # The run was canceled before anybody decided.
    WITHDRAWN = "withdrawn"


class Decision(TextChoices):
    """What the scheduler decided about a due time (tick). Only `fired` makes a run."""

    # The scheduler made a run.
    FIRED = "fired"
    # No run was made, because an earlier run of the trigger had not ended and the trigger's overlap policy is `skip`.
    SKIPPED_OVERLAP = "skipped_overlap"
    # No run was made: no scheduler ran at the due time, and later the due time was too old, or another one had come.
    SKIPPED_MISSED = "skipped_missed"
    # No run was made, because the trigger had neither a worker nor a pool.
    SKIPPED_NO_WORKER = "skipped_no_worker"
    # No run was made, because the trigger's environment was paused.
    SKIPPED_PAUSED = "skipped_paused"


# The decisions that one tick row gives for a whole stretch of due times that follow each other directly.
STRETCHED: Final = (Decision.SKIPPED_NO_WORKER, Decision.SKIPPED_PAUSED)


class Scheme(TextChoices):
    """How a source signs the events that it sends."""

    # The Standard Webhooks specification says how.
    STANDARD = "standard"
    GITHUB = "github"
    GITLAB = "gitlab"
    STRIPE = "stripe"
    SLACK = "slack"
    # HMAC-SHA256 in hex, in a header that the source names.
    HMAC = "hmac"
    # The secret itself comes with each event, as a bearer token.
    BEARER = "bearer"


class Refusal(TextChoices):
    """Why a source refused a request. The answer to its sender says less."""

    UNSIGNED = "unsigned"
    BAD_SIGNATURE = "bad_signature"
    # The signed timestamp is missing, or too far from our clock.
    STALE = "stale"
    # The source takes no events.
    DISABLED = "disabled"
    # The signature holds, but the body is no JSON, or has too many members.
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    # The signature holds, but the source has sent more than it may in this time.
    TOO_MANY = "too_many"


class EventDecided(TextChoices):
    """What was decided about an event for a trigger that listens to it."""

    # A run was queued.
    FIRED = "fired"
    # The event's type, or a clause of the listener, kept it from the trigger.
    FILTERED = "filtered"
    # The event joined a run that an earlier one had queued.
    COALESCED = "coalesced"
    # The trigger could not be run.
    REFUSED = "refused"


class EventRefusal(TextChoices):
    """Why an event was refused, besides the error codes with which a request for a run is refused."""

    # The event alone makes a larger payload than a run may have, or clauses have to search it too often.
    PAYLOAD_TOO_LARGE = "payload_too_large"
    # The run that ended was at the end of as many chains as are allowed.
    CHAIN_TOO_DEEP = "chain_too_deep"


class Outcome(TextChoices):
    """Which final ends of an upstream trigger's runs start a listening trigger. A canceled run starts none."""

    SUCCEEDED = "succeeded"
    # The run failed or timed out.
    FAILED = "failed"
    # The run succeeded, failed or timed out.
    ANY = "any"


# How many chains may follow one another: a run that a chain queued has the depth of the run that ended, plus 1.
MAX_CHAIN_DEPTH: Final = 8


class RetryMode(TextChoices):
    """What a retry of a trigger's run does."""

    # The retry starts anew.
    RESTART = "restart"
    # The retry continues the session of the run that it repeats, on the worker that has the session's files.
    RESUME = "resume"


class Carry(TextChoices):
    """What of a trigger's earlier runs a new run gets."""

    NONE = "none"
    # The output, or else the message, of the last success that had something new.
    OUTPUT = "output"


class RecordEvents(TextChoices):
    """Which events of a trigger's runs the service takes, and when the worker sends them."""

    # The service takes no events.
    NEVER = "never"
    # The service takes events of runs that end without success. The worker keeps them on its disk until then.
    FAILURES = "failures"
    # The service takes events of every run, and the worker sends them as they come.
    ALWAYS = "always"


class Health(TextChoices):
    """How a trigger is doing. If several of these apply, the first one counts."""

    # The trigger is disabled, or no run of it has ended since it was made or enabled.
    IDLE = "idle"
    # The last `alertAfterFailures` final outcomes of the trigger all failed or timed out.
    FAILING = "failing"
    # A due time passed, and no run succeeded within `successDeadlineSeconds` after it.
    LATE = "late"
    # The trigger's environment is paused.
    PAUSED = "paused"
    # A run has ended, and nothing is wrong.
    OK = "ok"
