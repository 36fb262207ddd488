"""The words of the run state machine (SPEC §6). docs/run-lifecycle.md draws it; lifecycle.py moves runs along it."""

from typing import Final

from django.db.models import TextChoices


class Status(TextChoices):
    """Where a run is. Each says what it means, who moves it on, and who reaps it if they don't."""

    QUEUED = "queued"
    """Waits for its worker, not before `availableAt`. Moved on by the worker's claim or a user's
    cancel. Not reaped: it waits until its worker is back or its trigger is given another."""

    CLAIMED = "claimed"
    """A worker took it and holds one of its slots. Moved on by the worker's start or complete;
    reaped by `expire_runs` when its lease or its deadline (counted from the claim) has passed."""

    RUNNING = "running"
    """The worker executes it. Moved on by the worker's complete; reaped by `expire_runs` when its lease or its deadline
    (counted from the start) has passed."""

    SUCCEEDED = "succeeded"
    """Ended: the worker reported success. Final."""

    FAILED = "failed"
    """Ended: the worker reported a failure, or its lease ran out. Final, but that a late result of
    its worker may replace the server's verdict."""

    TIMED_OUT = "timed_out"
    """Ended: out of time, by the worker's own report or by the server's deadline. Final, but for a late result."""

    CANCELED = "canceled"
    """Ended: canceled in the queue, or acknowledged by the worker, or its lease ran out after the
    request, or a late result made this retry needless. Final, but for a late result after a lost
    lease."""


HELD: Final = (Status.CLAIMED, Status.RUNNING)
TERMINAL: Final = (Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT, Status.CANCELED)


class Source(TextChoices):
    """Why a run exists: a person, a `pwk_` key, a schedule, or the failure of another run."""

    MANUAL = "manual"
    API = "api"
    SCHEDULE = "schedule"
    RETRY = "retry"


class FaultClass(TextChoices):
    """Whose fault a failure was: only `infra` is retried."""

    INFRA = "infra"
    CLIENT = "client"
    NONE = "none"


class EndedBy(TextChoices):
    """Who ended a run. `lease` and `deadline` are the server's verdicts, which a late result may replace."""

    WORKER = "worker"
    USER = "user"
    LEASE = "lease"
    DEADLINE = "deadline"
    LATE_RESULT = "late_result"


SERVER_VERDICTS: Final = (EndedBy.LEASE, EndedBy.DEADLINE)


class Decision(TextChoices):
    """What was decided about a tick. Only `fired` makes a run."""

    FIRED = "fired"
    SKIPPED_OVERLAP = "skipped_overlap"
    SKIPPED_MISSED = "skipped_missed"
    SKIPPED_NO_WORKER = "skipped_no_worker"
