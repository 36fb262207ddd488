"""The constraints of the table of runs, which refuse a run in an impossible state, and the indexes that find runs."""

from django.db.models import F, Q

from pipedai.table_rules import check, has, index, lacks, unique
from triggers.states import (
    FAILURES,
    HELD,
    MAX_CHAIN_DEPTH,
    NEVER_CLAIMED,
    TERMINAL,
    UNHELD,
    EndedBy,
    FaultClass,
    Source,
    Status,
)
from workspaces.tenant_columns import in_environment

# How many spells a run may have at most.
MAX_SPELLS = 20


def _tool_calls() -> Q:
    """The CHECK that the three counts are all NULL or all set, and that none exceeds the number of all calls."""
    none = lacks("tool_calls_total", "tool_calls_effects", "tool_calls_unknown")
    told = has(
        "tool_calls_total",
        "tool_calls_effects",
        "tool_calls_unknown",
        tool_calls_effects__gte=0,
        tool_calls_unknown__gte=0,
        tool_calls_effects__lte=F("tool_calls_total"),
        tool_calls_unknown__lte=F("tool_calls_total"),
    )
    return none | told


def _held() -> Q:
    """The CHECK that slot, lease and deadline are set in claimed and running runs alone."""
    held = has("worker", "slot", "lease_expires_at", "deadline_at", status__in=HELD)
    not_held = lacks("slot", "lease_expires_at", "deadline_at") & ~Q(status__in=HELD)
    return held | not_held


def _ended() -> Q:
    """The CHECK that `ended_at`, `ended_by` and `fault_class` are set in ended runs alone. It tests for NULL
    explicitly, because a CHECK accepts NULL as if it were true.
    """
    ended = has(
        "ended_at", "ended_by", "fault_class", status__in=TERMINAL, ended_by__in=EndedBy.values
    ) & (
        Q(status__in=(Status.SUCCEEDED, Status.CANCELED), fault_class=FaultClass.NONE)
        | Q(
            status__in=FAILURES,
            fault_class__in=(FaultClass.INFRA, FaultClass.CLIENT),
        )
    )
    unfinished = lacks("ended_at", "ended_by", "fault_class") & ~Q(status__in=TERMINAL)
    return ended | unfinished


def _times_of_state() -> Q:
    """The CHECK that times of claim and start fit the state. An ended run has been claimed, unless it was canceled or
    failed in the queue.
    """
    return (
        lacks("claimed_at", "started_at", status=Status.QUEUED)
        | has("claimed_at", status=Status.CLAIMED, started_at__isnull=True)
        | has("claimed_at", "started_at", status=Status.RUNNING)
        | has("claimed_at", status=Status.WAITING)
        | has("claimed_at", status__in=(Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT))
        | lacks("claimed_at", "started_at", status=Status.FAILED, ended_by__in=NEVER_CLAIMED)
        | (Q(status=Status.CANCELED) & (has("claimed_at") | lacks("claimed_at", "started_at")))
    )


CONSTRAINTS = (
    in_environment("run"),
    # The unique constraints contain the environment, so that the table could be distributed or partitioned by
    # environment.
    unique("run_one_in_slot", ["worker", "slot", "environment"], where=has("slot")),
    unique(
        "run_one_in_trigger_slot",
        ["trigger", "trigger_slot", "environment"],
        where=has("trigger_slot"),
    ),
    unique(
        "run_one_for_tick",
        ["trigger", "scheduled_for", "environment"],
        where=Q(source=Source.SCHEDULE),
    ),
    unique("run_one_retry", ["retry_of", "environment"], where=has("retry_of")),
    # If two events come at once, only one can begin a run. The other one joins that run.
    unique(
        "run_one_to_join",
        ["trigger", "coalesce_key", "environment"],
        where=has("coalesce_key", status=Status.QUEUED),
    ),
    check("run_held", _held()),
    check("run_ended", _ended()),
    check("run_times_of_state", _times_of_state()),
    check("run_started_was_claimed", lacks("started_at") | has("claimed_at")),
    check(
        "run_retry_has_an_original",
        has("retry_of", source=Source.RETRY, attempt__gt=1)
        | (lacks("retry_of", attempt=1) & ~Q(source=Source.RETRY)),
    ),
    check("run_scheduled_has_a_tick", ~Q(source=Source.SCHEDULE) | has("scheduled_for")),
    check("run_source", Q(source__in=Source.values)),
    check(
        "run_rerun_was_requested",
        lacks("rerun_of") | Q(source__in=(Source.MANUAL, Source.API)),
    ),
    check(
        "run_event",
        (~Q(source__in=(Source.EVENT, Source.CHAIN)) | has("event_id"))
        & (~Q(source=Source.SCHEDULE) | lacks("event_id")),
    ),
    check(
        "run_chain_depth",
        Q(chain_depth=0) & ~Q(source=Source.CHAIN)
        | has("event_id", chain_depth__gte=1, chain_depth__lte=MAX_CHAIN_DEPTH)
        & ~Q(source__in=(Source.EVENT, Source.SCHEDULE)),
    ),
    check("run_coalesce_key", lacks("coalesce_key") | Q(source=Source.EVENT)),
    check("run_cost", lacks("cost_usd") | Q(cost_usd__gte=0)),
    check("run_tool_calls", _tool_calls()),
    check(
        "run_in_trigger_slot_is_held",
        lacks("trigger_slot") | has("slot", trigger_slot__gte=1),
    ),
    check(
        "run_pool_from",
        lacks("pool", "pool_from", "avoided_worker") | has("pool", "pool_from"),
    ),
    check(
        "run_resuming_has_a_session",
        lacks("resume_until", had_effects=False)
        | (has("resume_until", "worker") & (has("retry_of") | Q(spells__gt=0))),
    ),
    check(
        "run_waiting",
        ~Q(status=Status.WAITING)
        | has("session_id", "resume_until", spells__gt=0, claim_id__isnull=True),
    ),
    check(
        "run_spells",
        lacks("active_ms", "earlier_calls", spells=0)
        | has("active_ms", spells__gt=0, spells__lt=MAX_SPELLS, active_ms__gte=0),
    ),
    check(
        "run_look", lacks("look_digest", "looked_at") | has("look_digest", "looked_at", looks=True)
    ),
    check("run_look_only", Q(look_only=False) | Q(looks=True, nothing_new=False)),
    check(
        "run_nothing_new",
        Q(nothing_new=False)
        | has("started_at", status=Status.SUCCEEDED, looks=True, cost_usd=0, spells=0),
    ),
    check(
        "run_denials",
        lacks("denials_total", "denied_tools")
        | has("denials_total", "denied_tools", denials_total__gte=0),
    ),
)

INDEXES = (
    index("run_polled", ["worker", "available_at", "id"], where=Q(status=Status.QUEUED)),
    index(
        "run_polled_of_pool",
        ["pool", "pool_from", "id"],
        where=has("pool", status=Status.QUEUED),
    ),
    # By these two indexes the scheduler finds the runs that it must end in the queue.
    index(
        "run_start_deadline",
        ["start_deadline_at"],
        where=has("start_deadline_at", status=Status.QUEUED),
    ),
    index(
        "run_resume_until",
        ["resume_until"],
        where=Q(status__in=UNHELD) & (Q(had_effects=True) | Q(spells__gt=0)),
    ),
    # By this index the poll of a worker whose budgets are used up finds a run that goes on after a decision.
    index("run_decided", ["worker"], where=Q(status=Status.QUEUED, spells__gt=0)),
    index("run_listed", ["environment", "queued_at", "id"]),
    index("run_of_trigger", ["trigger", "queued_at", "id"]),
    index("run_of_worker", ["worker", "queued_at", "id"]),
    index(
        "run_unfinished_of_status",
        ["environment", "status", "queued_at", "id"],
        where=lacks("ended_at"),
    ),
    # A poll finds the runs of a trigger by this index, if the runs at the head of its queue can't go out. It is listed
    # after the one above, because PostgreSQL takes the younger of two indexes that seem to cost nothing.
    index(
        "run_unfinished_of_trigger",
        ["trigger", "available_at", "id"],
        where=lacks("ended_at"),
    ),
    # These three indexes find the ended runs of one state, source and fault class, even if they are one in a million.
    # `triggers.runs.queries` names a value for each column that precedes the time.
    *(
        index(
            name,
            [*scope, "source", "status", "fault_class", "queued_at", "id"],
            where=has("ended_at"),
        )
        for scope, name in (
            (["environment"], "run_of_source"),
            (["trigger"], "run_of_trigger_and_source"),
            (["worker"], "run_of_worker_and_source"),
        )
    ),
    # Only ended runs have a fault class, so this index has the same rows as those three. Its condition makes a query
    # choose it: otherwise PostgreSQL might read all runs of the worker or the trigger by another index.
    index(
        "run_of_pair_and_source",
        ["trigger", "worker", "source", "status", "fault_class", "queued_at", "id"],
        where=has("fault_class"),
    ),
    # These four indexes find the runs that infrastructure ended and that no retry follows. They are small,
    # because most runs that infrastructure ended have a retry.
    *(
        index(
            name,
            [*scope, "status", "queued_at", "id"],
            where=has("ended_at", fault_class=FaultClass.INFRA, retried=False),
        )
        for scope, name in (
            (["environment"], "run_final_fault"),
            (["trigger"], "run_final_fault_of_trigger"),
            (["worker"], "run_final_fault_of_worker"),
            (["trigger", "worker"], "run_final_fault_of_pair"),
        )
    ),
    # These five indexes find the ended runs of a pool, and of a pool and a trigger or worker. Unfinished runs are not
    # in them, so that only the end of a run writes them.
    index("run_ended_of_pool", ["pool", "queued_at", "id"], where=has("ended_at", "pool")),
    *(
        index(
            name,
            [*scope, "source", "status", "fault_class", "queued_at", "id"],
            where=has("ended_at", "pool"),
        )
        for scope, name in (
            (["pool"], "run_of_pool_and_source"),
            (["pool", "trigger"], "run_of_pool_and_trigger"),
            (["pool", "worker"], "run_of_pool_and_worker"),
        )
    ),
    index(
        "run_final_fault_of_pool",
        ["pool", "status", "queued_at", "id"],
        where=has("ended_at", "pool", fault_class=FaultClass.INFRA, retried=False),
    ),
    # This index finds a trigger's last success, and the trigger's runs in the order of their ends.
    index(
        "run_of_trigger_by_end",
        ["trigger", "status", "ended_at", "id"],
        where=has("ended_at"),
    ),
    # The hand-out finds by this index the output that a run is given (`carry`).
    index(
        "run_with_something_new",
        ["trigger", "ended_at", "id"],
        where=has("ended_at", status=Status.SUCCEEDED, nothing_new=False),
    ),
    # The hand-out finds by this index what that success of the revision saw that looked last.
    index(
        "run_that_looked_last",
        ["revision", "looked_at", "id"],
        where=has("ended_at", "look_digest", status=Status.SUCCEEDED),
    ),
    # By these indexes a list shows only the runs that found nothing new.
    *(
        index(name, [scope, "queued_at", "id"], where=Q(nothing_new=True))
        for scope, name in (
            ("environment", "run_nothing_new"),
            ("trigger", "run_nothing_new_of_trigger"),
        )
    ),
    # The database uses this index when it removes a revision, to make sure that no run refers to it.
    index("run_of_revision", ["revision", "environment"]),
    # The database uses this index when it removes a run, to empty `rerun_of` of the runs that name it.
    index("run_rerun", ["rerun_of", "environment"], where=has("rerun_of")),
    # By this index admin finds the failures of all environments. All runs meet the condition on `attempt`. It keeps
    # queries that do not name it from using the index, such as lists of one environment, which would read the failures
    # of all others.
    index("run_failed", ["ended_at", "id"], where=Q(status__in=FAILURES, attempt__gte=1)),
    # The overview adds up the costs of a month from this index alone, which is a third as large as the next.
    index(
        "run_ended_cost",
        ["environment", "ended_at"],
        where=has("ended_at"),
        include=["cost_usd"],
    ),
    # The statistics read this index alone. A claim, a start or a heartbeat changes no column
    # of a run that is in it, because only ended runs are.
    index(
        "run_ended_figures",
        ["environment", "ended_at"],
        where=has("ended_at"),
        include=[
            "status",
            "source",
            "trigger",
            "worker",
            "model",
            "started_at",
            "active_ms",
            "cost_usd",
            "input_tokens",
            "output_tokens",
            "nothing_new",
        ],
    ),
)
