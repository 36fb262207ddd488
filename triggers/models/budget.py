"""The tables of budgets: what each allows, what each of its windows has used, and what is reserved for each run."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from pipedai.table_rules import check, has, index, lacks, unique
from workspaces.tenant_columns import (
    FileColumns,
    TenantRow,
    environment_key,
    in_environment,
    own_key,
    tenant_key,
)


def money(**kwargs: object) -> models.DecimalField:  # type: ignore[type-arg]
    return models.DecimalField(max_digits=20, decimal_places=6, **kwargs)  # type: ignore[arg-type]


class Budget(FileColumns):
    """What the runs of an environment, or of one trigger, may cost in a day or a month. Only
    `triggers.budgets.services` writes it.
    """

    class Period(models.TextChoices):
        """How long a window of the budget lasts. Its clock is that of the budget's time zone."""

        DAY = "day"
        MONTH = "month"

    class WhenReached(models.TextChoices):
        """What happens to runs when the budget has no room for them."""

        # Runs wait in the queue until the next window begins.
        HOLD = "hold"
        # Runs wait in the same way, and requests for more runs are refused.
        REJECT = "reject"
        # Runs go on. The budget only counts, and opens incidents.
        NOTIFY = "notify"

    # The trigger whose runs the budget covers; NULL if it covers all runs of the environment.
    trigger = tenant_key("triggers.Trigger", null=True)
    period = models.CharField(max_length=5, choices=Period.choices)
    # The IANA time zone in which days and months begin.
    timezone = models.CharField(max_length=64, default="UTC")
    # How many US dollars a window allows; NULL for no limit.
    limit_usd = money(null=True)
    # How many claimed runs a window allows; NULL for no limit.
    limit_runs = models.PositiveIntegerField(null=True)
    when_reached = models.CharField(
        max_length=6, choices=WhenReached.choices, default=WhenReached.HOLD
    )
    # The percentages of a limit, in ascending order, at each of which people are told.
    notice_at_pct = ArrayField(models.PositiveSmallIntegerField(), default=list)
    # How many US dollars are reserved for a run whose trigger has no `max_cost_usd`.
    reserve_usd = money(default=1)
    # Whether runs of workers that a subscription pays for count against `limit_usd`.
    count_notional = models.BooleanField(default=True)
    # The number of times that the trigger, the period or the time zone were changed. Windows of an earlier generation
    # keep their sums, and no longer count.
    generation = models.PositiveIntegerField(default=0)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    # When a user deleted the budget; NULL if nobody did. The row stays, because reservations of runs refer to it.
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "budget"
        constraints = (
            in_environment("budget"),
            own_key("budget", live=lacks("deleted_at")),
            check("budget_period", Q(period__in=("day", "month"))),
            check("budget_when_reached", Q(when_reached__in=("hold", "reject", "notify"))),
            check("budget_limit_usd", lacks("limit_usd") | Q(limit_usd__gte=0)),
            check("budget_reserve_usd", Q(reserve_usd__gte=0)),
        )
        indexes = (
            index("budget_listed", ["environment", "created_at", "id"], where=lacks("deleted_at")),
        )


class BudgetWindow(TenantRow):
    """What a budget has used in one day or month. The first claim in the window inserts the row; without it nothing was
    used. Transactions lock several rows in the order of ids.
    """

    budget = tenant_key("triggers.Budget", related_name="windows")
    # The budget's `generation` when the row was inserted.
    generation = models.PositiveIntegerField()
    starts_at = models.DateTimeField()
    # The end of the window, which is the beginning of the next one.
    ends_at = models.DateTimeField()
    # What the ended runs that were claimed in the window cost, in US dollars.
    spent_usd = money(default=0)
    # What is reserved, in US dollars, for the runs that were claimed in the window and have not ended.
    reserved_usd = money(default=0)
    # The part of `spent_usd` that workers with a subscription used.
    notional_spent_usd = money(default=0)
    # The part of `reserved_usd` that is for workers with a subscription.
    notional_reserved_usd = money(default=0)
    # How many runs were claimed in the window, without those that have ended with nothing new.
    runs = models.PositiveIntegerField(default=0)
    # How often the sums or the budget have changed.
    changes = models.BigIntegerField(default=0)
    # Whether one of these changes came after `notices.budgets` had last looked at the window.
    is_changed = models.BooleanField(default=True)
    # The highest percentage of which people were told; 0 if there is none, or if the incident about it is over.
    noticed_pct = models.PositiveSmallIntegerField(default=0)

    class Meta:
        db_table = "budget_window"
        constraints = (
            in_environment("budget_window"),
            unique("budget_window_once", ["budget", "generation", "starts_at", "environment"]),
            check("budget_window_has_a_length", Q(ends_at__gt=F("starts_at"))),
            check(
                "budget_window_sums",
                Q(
                    notional_spent_usd__gte=0,
                    notional_reserved_usd__gte=0,
                    spent_usd__gte=F("notional_spent_usd"),
                    reserved_usd__gte=F("notional_reserved_usd"),
                ),
            ),
        )
        indexes = (
            # By these two indexes `notices.budgets` finds the windows whose notices may have to change.
            index("budget_window_to_look_at", ["environment", "id"], where=Q(is_changed=True)),
            index("budget_window_told", ["environment", "ends_at"], where=Q(noticed_pct__gt=0)),
            # By this index `triggers.ready` finds the windows that are old enough to be deleted.
            index("budget_window_ended", ["ends_at"]),
        )


class RunReservation(models.Model):
    """What a claimed run takes from one window of a budget. The claim inserts it, and `triggers.budgets.spending`
    settles it when the run ends. It is removed with a pruned run; the sums of the window stay.
    """

    pk = models.CompositePrimaryKey("run_id", "window_id")
    environment = environment_key()
    run = tenant_key("triggers.Run")
    # The window in which the run was claimed.
    window = tenant_key("triggers.BudgetWindow")
    # How many US dollars the claim reserved.
    amount_usd = money()
    # Whether `amount_usd` is the trigger's `max_cost_usd`. Otherwise it is the budget's `reserve_usd`.
    is_cap = models.BooleanField()
    # How many US dollars count as spent for the run; NULL until the run has ended.
    cost_usd = money(null=True)
    # Whether `cost_usd` is the reserved amount because no worker reported the cost, as for a lost run.
    is_estimate = models.BooleanField(default=False)
    # Whether a subscription paid for the worker when it claimed the run.
    is_notional = models.BooleanField()
    # The spell of the run for which this was last reserved: the value of the run's `spells` at its claim.
    spell = models.PositiveSmallIntegerField(default=0, db_default=0)
    # What earlier spells of the run cost that were claimed in the same window, in US dollars. `amount_usd` and
    # `cost_usd` are those of the last spell.
    earlier_usd = money(default=0, db_default=0)
    # When `cost_usd` was last written; NULL until the run has ended.
    settled_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "run_reservation"
        constraints = (
            check(
                "run_reservation_amounts",
                Q(amount_usd__gte=0) & (lacks("cost_usd") | Q(cost_usd__gte=0)),
            ),
            check(
                "run_reservation_settled",
                lacks("cost_usd", "settled_at", is_estimate=False) | has("cost_usd", "settled_at"),
            ),
        )
        indexes = (
            # `triggers.ready`, and the check of the foreign key, find by this index whether a window has reservations.
            index("run_reservation_of_window", ["window"]),
        )
