"""The admin pages of triggers and their ticks, runs and deliveries, approvals, events, budgets and processes."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib.admin import display, register
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Left, Now

from pipedai.admin.base import OF_CUSTOMERS, StaffModelAdmin
from pipedai.admin.columns import Panel, attempts, newest
from pipedai.admin.lists import in_state
from pipedai.admin.site import Figure, count_of, show_on_start_page, site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import block, excerpt, link_to, money, spoken
from pipedai.events import Actor
from triggers.admin.answers import due_time, events, where_it_stands
from triggers.approvals.serializers import seen
from triggers.budgets.queries import with_present_window, with_sums
from triggers.explain.due_times import why_no_run
from triggers.models import (
    Approval,
    Budget,
    BudgetWindow,
    Delivery,
    DeliveryAttempt,
    Event,
    EventDecision,
    EventSource,
    Listener,
    Run,
    SchedulerHeartbeat,
    Tick,
    Trigger,
    TriggerRevision,
    WebHeartbeat,
)
from triggers.queries import HEALTH
from triggers.runs.lifecycle import cancel_run
from triggers.schedules.heartbeats import ALIVE_WITHIN
from triggers.services import update_trigger
from triggers.states import FAILURES, TERMINAL, FaultClass, Status
from triggers.webhooks.outbox import redeliver
from workspaces.admin import BY_PLACE

# The classes of other apps are taken from the foreign keys of Trigger, because this app must not import `workers`.
_WORKER: Any = Trigger._meta.get_field("worker").related_model
_POOL: Any = Trigger._meta.get_field("pool").related_model


class MoveForm(forms.Form):
    """Asks which worker and which pool of the trigger's environment shall take its runs; at least one of them must."""

    worker_id: Any = forms.ModelChoiceField(
        None, label="Worker", required=False, empty_label="Any worker of the pool"
    )
    pool_id: Any = forms.ModelChoiceField(
        None, label="Pool", required=False, empty_label="No pool",
        help_text="With a worker and a pool, the worker comes first, and the pool's others take what it leaves.",
    )  # fmt: skip

    def __init__(self, trigger: Trigger, posted: Mapping[str, Any] | None) -> None:
        present = {"worker_id": trigger.worker_id, "pool_id": trigger.pool_id}
        super().__init__(posted, initial=present)
        live = {"environment_id": trigger.environment_id, "deleted_at__isnull": True}
        workers, pools = (model._default_manager.filter(**live) for model in (_WORKER, _POOL))
        columns = ("label", "hostname", "disabled_at")
        _choose_from(self.fields["worker_id"], workers.only(*columns).order_by("label"), _worker)
        _choose_from(self.fields["pool_id"], pools.only("name").order_by("name"), str)

    def clean(self) -> dict[str, Any]:
        chosen = {name: row and row.id for name, row in self.cleaned_data.items()}
        if not self.errors and not any(chosen.values()):
            raise forms.ValidationError("Choose a worker, a pool, or both.")
        return chosen


def _choose_from(field: Any, rows: Any, label: Any) -> None:
    field.queryset = rows
    field.label_from_instance = label


def _worker(worker: Any) -> str:
    where = "" if worker.hostname == worker.label else f" on {worker.hostname}"
    return f"{worker.label}{where}{' (disabled)' if worker.disabled_at else ''}"


def _move(trigger: Trigger, actor: Actor, **values: Any) -> None:
    update_trigger(trigger_id=trigger.id, values=values, actor=actor)


_RUNS = Run.objects.filter(trigger=OuterRef("pk")).order_by("-queued_at", "-id")


@register(Trigger, site=site)
class TriggerAdmin(StaffModelAdmin):
    named_by = "name"
    list_display = (
        "name", "state", "schedule", "next_run_at", "newest_run", "environment", "worker", "pool", "created_at",
    )  # fmt: skip
    list_filter = ("enabled", "environment", "worker", "pool", "connection")
    search_fields = ("name", *BY_PLACE)
    looks_through = OF_CUSTOMERS
    indexes = {("environment",): "id", ("worker",): "id", ("pool",): "id"}
    also_shown = ("revision__model", "revision__prompt", "revision__output_schema")
    reads = ("enabled", "deleted_at")
    annotations = {
        "health": HEALTH,
        "newest_run_id": Subquery(_RUNS.values("id")[:1]),
        "newest_run_status": Subquery(_RUNS.values("status")[:1]),
    }  # fmt: skip
    panels = (
        due_time,
        newest(
            "Listens to", Listener, ("source", "upstream", "outcome", "types", "where"), by="trigger",
            order=("position",),
        ),
    )  # fmt: skip
    support = (
        SupportAction(
            "move", "Move the trigger",
            "Its runs go to another worker or pool of the environment from now on, also those that are queued. What a"
            " worker holds, it finishes. Whoever gets a run is handed the MCP headers in plaintext: be sure whose"
            " machine it is.",
            "The trigger is moved.", applies=lambda trigger: trigger.deleted_at is None, perform=_move, form=MoveForm,
        ),
    )  # fmt: skip

    def state(self, trigger: Any) -> str:
        """Shows the worst that is true of a trigger: that it is gone or disabled, or else its health."""
        if trigger.deleted_at:
            return "deleted"
        return str(trigger.health) if trigger.enabled else "disabled"

    def newest_run(self, trigger: Any) -> Any:
        status = trigger.newest_run_status
        return link_to(Run, trigger.newest_run_id, status and spoken(status))


@register(TriggerRevision, site=site)
class TriggerRevisionAdmin(StaffModelAdmin):
    list_display = ("created_at", "trigger", "model", "environment", "created_by_type")
    list_filter = ("trigger",)
    indexes = {("trigger",): "created_at"}


@register(Tick, site=site)
class TickAdmin(StaffModelAdmin):
    list_display = (
        "tick_at",
        "decision",
        "why",
        "environment",
        "trigger",
        "run",
        "blocked_by",
        "missed_count",
    )
    list_filter = ("decision", "environment", "trigger")
    indexes = {("trigger",): "tick_at"}

    def why(self, tick: Tick) -> str | None:
        return None if tick.run_id else why_no_run(tick.decision)


@register(Run, site=site)
class RunAdmin(StaffModelAdmin):
    """Filters by what indexes have: how a run ended, the state of an unfinished run, and all failures by their end."""

    list_display = (
        "id", "status", "source", "attempt", "environment", "trigger", "worker", "queued_at", "ended_at", "cost_usd",
        "error",
    )  # fmt: skip
    list_filter = (
        in_state("ended", **{word: Q(ended_at__isnull=False, status=word) for word in TERMINAL}),
        in_state(
            "unfinished",
            queued_for_an_hour=Q(ended_at__isnull=True, status=Status.QUEUED, queued_at__lt=Now() - timedelta(hours=1)),
            **{word: Q(ended_at__isnull=True, status=word) for word in Status.values if word not in TERMINAL},
        ),
        # The condition is that of the index `run_failed`.
        in_state("failures", all=Q(ended_at__isnull=False, status__in=FAILURES, attempt__gte=1)),
        "source", "fault_class", "environment", "trigger", "worker",
    )  # fmt: skip
    indexes = {
        ("environment",): "queued_at", ("environment", "unfinished"): "queued_at", ("trigger",): "queued_at",
        ("worker",): "queued_at", ("failures",): "ended_at", ("unfinished",): "id",
    }  # fmt: skip
    also_shown = (
        "trigger__timezone", "revision__prompt", "text__mcp_url", "text__payload", "text__error_message",
        "text__late_result", "result__output", "result__tool_calls",
    )  # fmt: skip
    reads = ("fault_class", "short_message")
    annotations = {"error_begins": Left("text__error_message", 300)}
    refers = {"event_id": Event}
    panels = (where_it_stands, events)
    support = (
        SupportAction(
            "cancel", "Cancel the run",
            "A queued run ends at once. Of one in a worker's hands the cancel is requested; the worker stops"
            " it and says so. It is not retried.",
            "The run is canceled, or its worker has been asked to stop it.",
            applies=lambda run: run.status not in TERMINAL and run.cancel_requested_at is None,
            perform=lambda run, actor: cancel_run(run_id=run.id, actor=actor),
        ),
    )  # fmt: skip

    def error(self, run: Any) -> str:
        """Shows the error's first line, or what the worker said of a failed run that has no message."""
        is_failure = run.fault_class in (FaultClass.INFRA, FaultClass.CLIENT)
        return excerpt(run.error_begins or (run.short_message if is_failure else None))


_IS_OVERDUE = Q(status=Delivery.Status.PENDING, next_attempt_at__lt=Now() - timedelta(minutes=5))
_ATTEMPTS = DeliveryAttempt.objects.filter(delivery=OuterRef("pk")).order_by("-n")


@register(Delivery, site=site)
class DeliveryAdmin(StaffModelAdmin):
    list_display = (
        "id", "status", "attempt_count", "environment", "trigger", "run", "host", "last_error", "created_at",
        "next_attempt_at",
    )  # fmt: skip
    list_filter = ("status", in_state(overdue=_IS_OVERDUE), "environment", "trigger", "run")
    indexes = {("trigger",): "created_at", ("environment",): "id", ("run",): "id", ("state",): "id"}
    annotations = {"error_of_last": Subquery(_ATTEMPTS.values("error")[:1])}
    panels = (attempts(DeliveryAttempt, "delivery"),)
    support = (
        SupportAction(
            "redeliver", "Send it again",
            "The same body goes out once more, with the same webhook-id, to the URL that the trigger has now.",
            "It is queued to be sent again.", applies=lambda delivery: delivery.status != Delivery.Status.PENDING,
            perform=lambda delivery, actor: redeliver(delivery_id=delivery.id, actor=actor),
        ),
    )  # fmt: skip

    def last_error(self, delivery: Any) -> str:
        return excerpt(delivery.error_of_last)


@register(Approval, site=site)
class ApprovalAdmin(StaffModelAdmin):
    """What runs asked for and what people decided. Staff can't decide."""

    list_display = (
        "id",
        "status",
        "environment",
        "trigger",
        "tool",
        "run",
        "created_at",
        "expires_at",
    )
    list_filter = ("status", "environment", "run")
    indexes = {
        ("environment",): "created_at",
        ("environment", "status"): "created_at",
        ("run",): "created_at",
    }
    panels = (
        lambda approval, _: Panel(
            "Arguments", facts=[("As seen", block(seen(approval.arguments)))]
        ),
    )


@register(EventSource, site=site)
class EventSourceAdmin(StaffModelAdmin):
    named_by = "name"
    list_display = (
        "name",
        "scheme",
        "enabled",
        "environment",
        "last_event_at",
        "created_at",
        "deleted_at",
    )
    list_filter = ("scheme", "environment")
    search_fields = ("name",)
    panels = (
        newest("Who listens", Listener, ("trigger", "types"), by="source", order=("trigger_id",)),
    )


@register(Event, site=site)
class EventAdmin(StaffModelAdmin):
    list_display = ("id", "source", "type", "environment", "received_at", "duplicates")
    list_filter = ("source", "environment")
    newest_by = "received_at"
    indexes = {("source",): "received_at"}
    hidden = ("body",)
    panels = (
        newest(
            "Decisions", EventDecision, ("trigger", "decision", "code", "clause", "run"), by="event", order=("id",),
        ),
    )  # fmt: skip


@register(Budget, site=site)
class BudgetAdmin(StaffModelAdmin):
    named_by = "name"
    list_display = (
        "name",
        "when_reached",
        "environment",
        "trigger",
        "limit",
        "used",
        "created_at",
        "deleted_at",
    )
    list_filter = ("period", "when_reached", "environment", "trigger")
    indexes = {("environment",): "id"}
    reads = ("limit_usd", "limit_runs", "period", "timezone", "count_notional")
    panels = (
        newest(
            "Newest windows", BudgetWindow,
            ("starts_at", "ends_at", "spent_usd", "reserved_usd", "notional_spent_usd", "runs"), by="budget",
            order=("-generation", "-starts_at"),
        ),
    )  # fmt: skip

    def rows(self, *columns: str) -> QuerySet[Any]:
        return with_present_window(super().rows(*columns))

    def limit(self, budget: Budget) -> str:
        limits = [f"${budget.limit_usd.normalize():,f}"] if budget.limit_usd is not None else []
        limits += [f"{budget.limit_runs:,} runs"] if budget.limit_runs is not None else []
        return f"{' and '.join(limits)} a {budget.period}" if limits else "none"

    @display(description="Spent, reserved, left")
    def used(self, budget: Budget) -> str:
        sums = with_sums(vars(budget))
        names = ("spent", "reserved", "remaining")
        known = ((name, sums[name]) for name in names if sums[name] is not None)
        return ", ".join(f"{money(usd)} {name}" for name, usd in known)


class HeartbeatAdmin(StaffModelAdmin):
    list_display = ("host", "pid", "started_at", "beat_at")
    list_filter = (in_state(alive=Q(beat_at__gt=Now() - ALIVE_WITHIN)),)


site.register((SchedulerHeartbeat, WebHeartbeat), HeartbeatAdmin)


def _what_is_wrong() -> list[Figure]:
    waiting = Run.objects.filter(RunAdmin.list_filter[1].conditions["queued_for_an_hour"])
    alive = SchedulerHeartbeat.objects.filter(beat_at__gt=Now() - ALIVE_WITHIN)
    return [
        count_of("Schedulers alive", alive, none_is_wrong=True, state="alive"),
        count_of("Runs queued for an hour", waiting, unfinished="queued_for_an_hour"),
        count_of("Deliveries overdue", Delivery.objects.filter(_IS_OVERDUE), state="overdue"),
    ]


show_on_start_page(_what_is_wrong)
