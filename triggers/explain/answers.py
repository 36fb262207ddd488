"""The form of explanations: frozen values that the API, the staff admin and `manage.py explain` show (SPEC §13)."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from triggers.models import Tick
from triggers.runs.retries import NoRetry
from triggers.states import Decision


class WaitingFor(StrEnum):
    """What a queued run waits for. A run may wait for several things at once."""

    # The run's trigger has no worker.
    NO_WORKER = "no_worker"
    # The worker has no token, because it was revoked or the worker was deregistered.
    WORKER_REVOKED = "worker_revoked"
    WORKER_DISABLED = "worker_disabled"
    # The worker has not called for a while. The poll and the claim do not check this: the run goes out once the worker
    # polls.
    WORKER_OFFLINE = "worker_offline"
    # The secret headers of the run's trigger can't be decrypted.
    HEADERS_UNREADABLE = "headers_unreadable"
    # The trigger has secret headers, and no admin has approved the worker for them.
    WORKER_UNAPPROVED = "worker_unapproved"
    # The run's waiting time, such as that of a retry, is not over.
    NOT_DUE = "not_due"
    # The worker holds as many runs as it may.
    WORKER_FULL = "worker_full"
    # A budget that covers the run has no room for it.
    BUDGET_EXHAUSTED = "budget_exhausted"
    # Other due runs of the worker go first, and the next poll has no room for this one.
    BEHIND_OTHERS = "behind_others"


class RetryDecision(StrEnum):
    """What became of the retry of an ended run."""

    # The retry is queued, whether its due time has come or not.
    DUE = "due"
    # A worker has claimed the retry. It may have ended since.
    DONE = "done"
    # There is no retry, or it was canceled in the queue.
    NONE = "none"


# The codes of a retry that `NoRetry` lacks. This one is the code of a retry that exists.
INFRA_FAULT: Final = "infra_fault"
# Somebody canceled the retry while it was queued.
RETRY_CANCELED: Final = "retry_canceled"
# The run has no retry, although it would get one by its trigger's present settings. So the settings were different when
# the run ended.
SETTINGS_CHANGED: Final = "settings_changed"
RETRY_CODES: Final = (*NoRetry, INFRA_FAULT, RETRY_CANCELED, SETTINGS_CHANGED)

# The decision about a due time that is still open, because no scheduler has decided yet.
PENDING: Final = "pending"
NOT_SCHEDULED: Final = "not_scheduled"
DISABLED: Final = "disabled"
DECISIONS: Final = (*Decision.values, PENDING, NOT_SCHEDULED, DISABLED)


@dataclass(frozen=True, slots=True)
class Subject:
    """The worker, trigger or budget that a reason is about."""

    type: str
    id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that a queued run waits for.

    `message` is a sentence for people, and `remedy` is one that says what to do about it; None if time alone helps.
    `since` and `until` are None if they are not known. `place` is the run's place among the worker's due runs, from 1
    on; it is set for BEHIND_OTHERS alone.
    """

    code: WaitingFor
    message: str
    subject: Subject | None = None
    since: datetime | None = None
    until: datetime | None = None
    remedy: str | None = None
    place: int | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Which worker holds a claimed or running run, and until when.

    `last_heartbeat_at` is when the worker last renewed the lease, by a claim, a start or a heartbeat.
    """

    worker_id: UUID
    claimed_at: datetime
    last_heartbeat_at: datetime
    lease_expires_at: datetime
    deadline_at: datetime
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. `by` is a value of `triggers.states.EndedBy`."""

    at: datetime
    by: str
    fault_class: str
    message: str | None


@dataclass(frozen=True, slots=True)
class Retry:
    """Whether an ended run has a retry, and why. `code` is one of RETRY_CODES."""

    decision: RetryDecision
    code: str
    message: str
    run_id: UUID | None = None
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunExplanation:
    """Where a run stands, and why. `summary` is one sentence for people.

    A queued run has `waiting_for`, which is empty if the worker gets the run when it polls next. A claimed or running
    run has `held`. An ended run has `ended` and `retry`.
    """

    run_id: UUID
    status: str
    summary: str
    waiting_for: tuple[Reason, ...] = ()
    held: Held | None = None
    ended: Ended | None = None
    retry: Retry | None = None


@dataclass(frozen=True, slots=True)
class TriggerExplanation:
    """What became, or will become, of one due time of a trigger: the last one up to the time `at`.

    `decision` is one of DECISIONS, and `message` a sentence or two for people. `due_at` is that due time; None if there
    is none. `tick` is the row that has the decision; it may stand for several due times. `previous_due_at` and
    `next_due_at` are the due times before and after it.
    """

    at: datetime
    decision: str
    message: str
    due_at: datetime | None = None
    tick: Tick | None = None
    run: RunExplanation | None = None
    previous_due_at: datetime | None = None
    next_due_at: datetime | None = None
