"""The fixed words that describe incidents (SPEC §14)."""

from django.db.models import TextChoices


class Kind(TextChoices):
    """What an incident is about."""

    # The last `alertAfterFailures` final outcomes of a trigger all failed or timed out. The subject is the trigger.
    # The transaction of the run's end opens and closes it.
    TRIGGER_FAILING = "trigger_failing"
    # No run of a trigger succeeded within `successDeadlineSeconds` after a due time. The subject is the trigger. The
    # scheduler opens and closes it.
    TRIGGER_LATE = "trigger_late"
    # A worker that enabled triggers point at has been silent for ten minutes. The subject is the worker. The scheduler
    # opens and closes it.
    WORKER_OFFLINE = "worker_offline"
    # A pool that enabled triggers point at has no workers, or all of them have been silent for ten minutes. The subject
    # is the pool. The scheduler opens and closes it.
    POOL_OFFLINE = "pool_offline"
    # A completion webhook of a trigger was given up. The subject is the trigger. The transaction that records the
    # attempt opens and closes it.
    WEBHOOK_DEAD = "webhook_dead"
    # A budget has reached one of its percentages. The subject is the budget. The scheduler opens and closes it.
    BUDGET_REACHED = "budget_reached"


class SubjectType(TextChoices):
    """What an incident can be about."""

    TRIGGER = "trigger"
    WORKER = "worker"
    POOL = "pool"
    BUDGET = "budget"
