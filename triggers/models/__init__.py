"""The tables of triggers, runs, ticks, events and deliveries, in one file for each group that belongs together."""

from triggers.models.budget import Budget, BudgetWindow, RunReservation
from triggers.models.event import (
    MAX_LISTENERS,
    SECRETS,
    Event,
    EventDecision,
    EventKey,
    EventSource,
    Listener,
    RefusedRequest,
)
from triggers.models.heartbeats import EnvironmentWatch, SchedulerHeartbeat, WebHeartbeat
from triggers.models.run import (
    RUN_COLUMNS,
    Approval,
    Delivery,
    DeliveryAttempt,
    IdempotencyKey,
    Run,
    RunEventBatch,
    RunEventDay,
    RunEventLog,
    RunResult,
    RunText,
    requesters_of,
)
from triggers.models.run_rules import MAX_SPELLS
from triggers.models.trigger import (
    BOUNDS,
    MAX_CONCURRENT_RUNS,
    MAX_PREFER_SECONDS,
    REVISED,
    Tick,
    Trigger,
    TriggerHealth,
    TriggerRevision,
)
