"""The fixed words of incidents and of what channels tell, and the sentences in which they tell it (SPEC §14)."""

from typing import Final

from django.db.models import TextChoices


class Kind(TextChoices):
    """What an incident is about."""

    # The last `alertAfterFailures` final outcomes of a trigger all failed or timed out. The subject is the trigger.
    # The transaction of the run's end opens and closes it.
    TRIGGER_FAILING = "trigger_failing"
    # No run of a trigger succeeded within `successDeadlineSeconds` after a due time. The subject is the trigger. The
    # scheduler opens and closes it.
    TRIGGER_LATE = "trigger_late"
    # A worker that enabled triggers point at has been silent for ten minutes, or signed off a minute ago. The subject
    # is the worker. The scheduler opens and closes it.
    WORKER_OFFLINE = "worker_offline"
    # A pool that enabled triggers point at has no workers, or each of them has been silent for ten minutes, or signed
    # off a minute ago. The subject is the pool. The scheduler opens and closes it.
    POOL_OFFLINE = "pool_offline"
    # A completion webhook of a trigger was given up. The subject is the trigger. The transaction that records the
    # attempt opens and closes it.
    WEBHOOK_DEAD = "webhook_dead"
    # A budget has reached one of its percentages. The subject is the budget. The scheduler opens and closes it.
    BUDGET_REACHED = "budget_reached"
    # A connection's server refuses it new tokens. The subject is the connection. The transaction of the refresh opens
    # it, and that of the next authorization closes it.
    CONNECTION_NEEDS_LOGIN = "connection_needs_login"


class SubjectType(TextChoices):
    TRIGGER = "trigger"
    WORKER = "worker"
    POOL = "pool"
    BUDGET = "budget"
    CONNECTION = "connection"


RECOVERED: Final = ".recovered"
RUN_ENDED: Final = "run.ended"
RUN_RESULT: Final = "run.result"
# Which final outcomes a channel tells with `run.result`, unless clauses say it.
ALWAYS: Final = "always"
FAILED: Final = "failed"
# A run waits until a person decides about its call of a tool. The subject is the trigger.
APPROVAL_REQUESTED: Final = "approval_requested"
TEST: Final = "channel.test"
DIGEST: Final = "channel.digest"
SUMMARY: Final = "channel.summary"
CONFIRM: Final = "address.confirm"

# The beginnings and the ends of incidents.
INCIDENT_EVENTS: Final = tuple(
    word for kind in Kind.values for word in (kind, f"{kind}{RECOVERED}")
)
# What a channel that says nothing else tells of: incidents and their ends, and what a person has to decide.
USUAL_EVENTS: Final = (*INCIDENT_EVENTS, APPROVAL_REQUESTED)
# What a channel can be asked to tell of. Only webhooks have `run.ended`.
EVENTS: Final = (*USUAL_EVENTS, RUN_ENDED, RUN_RESULT)

# The sentences for the beginning and the end of an incident of each kind, with a place for the name of its subject, and
# the words that tell afterwards how it was.
_SENTENCES: Final = {
    Kind.TRIGGER_FAILING: ("Trigger {} is failing", "Trigger {} succeeds again", "It was failing"),
    Kind.TRIGGER_LATE: ("Trigger {} is late", "Trigger {} is on time again", "It was late"),
    Kind.WORKER_OFFLINE: ("Worker {} is offline", "Worker {} is online again", "It was offline"),
    Kind.POOL_OFFLINE: (
        "Pool {} has no worker online",
        "Pool {} has a worker online again",
        "It had none",
    ),
    Kind.WEBHOOK_DEAD: (
        "The webhook of trigger {} was given up",
        "The webhook of trigger {} arrives again",
        "It did not arrive",
    ),
    Kind.BUDGET_REACHED: (
        "Budget {} has reached a limit",
        "Budget {} has room again",
        "It had reached a limit",
    ),
    Kind.CONNECTION_NEEDS_LOGIN: (
        "Connection {} needs a new login",
        "Connection {} works again",
        "It had no token",
    ),
}


def headline(event: str, name: str, *, reminder: bool = False) -> str:
    """Returns a sentence without a full stop. A reminder says that it is still so."""
    if event == APPROVAL_REQUESTED:
        return f"Trigger {name} {'still ' if reminder else ''}asks for a decision"
    kind, recovered = event.removesuffix(RECOVERED), event.endswith(RECOVERED)
    sentence = _SENTENCES[Kind(kind)][recovered].format(name)
    return f"Still open: {sentence}" if reminder else sentence


def how_it_was(event: str) -> str:
    """Returns the beginning of a sentence that follows the headline of a recovery: `It was failing`."""
    return _SENTENCES[Kind(event.removesuffix(RECOVERED))][2]
