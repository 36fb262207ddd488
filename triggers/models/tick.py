"""The table of ticks: what the scheduler decided about each due time."""

from django.db import models
from django.db.models import Index, Q
from django.db.models.functions import Greatest, Now

from pipedai.table_rules import check, has, index, lacks, unique
from triggers.states import STRETCHED, Decision
from workspaces.tenant_columns import TenantRow, tenant_key


class Tick(TenantRow):
    """A due time (tick), and what the scheduler decided about it. A row can stand for all due times that passed while
    no scheduler ran, or that follow each other while the trigger has no worker. `triggers.schedules.firing` writes it.
    """

    trigger = tenant_key("triggers.Trigger", related_name="ticks")
    # The due time. If the row stands for several due times, it is the first of them.
    tick_at = models.DateTimeField()
    # The last due time for which the row stands. It grows while a stretch of due times lasts for which no run is made
    # for the same reason: the trigger has no worker, or the environment is paused.
    last_tick_at = models.DateTimeField()
    # What the scheduler decided about the due time; see `triggers.states.Decision`.
    decision = models.CharField(max_length=17, choices=Decision.choices)
    # The run that was made for the due time; NULL unless the decision is `fired`.
    run = tenant_key("triggers.Run", null=True)
    # The unfinished run because of which no run was made; NULL unless the decision is `skipped_overlap`. If the
    # run is pruned, the database sets NULL.
    blocked_by = tenant_key("triggers.Run", null=True)
    # For how many due times the row stands if the decision is `skipped_missed`, `skipped_no_worker` or
    # `skipped_paused`; 0 for other decisions.
    missed_count = models.PositiveIntegerField(default=0)
    # When the scheduler decided, by the database's clock. For the row of a stretch, it is the decision about the first
    # due time.
    decided_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "tick"
        constraints = (
            # The unique constraint contains the environment, so that the table could be distributed or partitioned by
            # environment.
            unique("tick_one_decision", ["trigger", "tick_at", "environment"]),
            check(
                "tick_fired_has_a_run",
                has("run", decision=Decision.FIRED) | (lacks("run") & ~Q(decision=Decision.FIRED)),
            ),
            check(
                "tick_missed_is_counted",
                Q(
                    decision__in=(Decision.SKIPPED_MISSED, *STRETCHED),
                    missed_count__gte=1,
                    last_tick_at__gte=models.F("tick_at"),
                )
                # Rows with another decision have the count 0. Old rows with the decision `skipped_no_worker` have it
                # too, because each due time then had a row of its own.
                | (
                    Q(missed_count=0, last_tick_at=models.F("tick_at"))
                    & ~Q(decision__in=(Decision.SKIPPED_MISSED, Decision.SKIPPED_PAUSED))
                ),
            ),
            check("tick_decision", Q(decision__in=Decision.values)),
            check(
                "tick_blocked_was_skipped",
                lacks("blocked_by") | Q(decision=Decision.SKIPPED_OVERLAP),
            ),
        )
        indexes = (
            index("tick_of_run", ["run"], where=has("run")),
            # This index finds a trigger's ticks with one decision, even a rare one. It also has the ticks that made a
            # run, which become rare while an unfinished run stands in the way of each due time.
            index("tick_by_decision", ["trigger", "decision", "tick_at", "id"]),
            # Summaries find the due times without a run by this index: those that somebody decided since the last
            # summary, and the stretches that have gone on since then.
            Index(
                "environment",
                Greatest("decided_at", "last_tick_at"),
                name="tick_without_run",
                condition=lacks("run"),
            ),
            # The database uses this index when it removes a run, to empty `blocked_by` of the ticks that name it.
            index("tick_blocked", ["blocked_by", "environment"], where=has("blocked_by")),
        )
