"""The admin pages of triggers and their ticks, runs and deliveries, approvals, events, budgets and processes.

The pages of runs and triggers begin with why a run has not run, and what became of a due time. These times are in UTC
and in the trigger's zone.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta, tzinfo
from functools import partial
from typing import Any
from uuid import UUID

from django import forms
from django.contrib.admin import register
from django.db import transaction
from django.db.models import BinaryField, OuterRef, Q, Subquery
from django.db.models.functions import Left, Now
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.text import capfirst

from pipedai import events as domain
from pipedai.admin.base import OF_CUSTOMERS, StaffModelAdmin, SupportAction, in_state, staff_actor
from pipedai.admin.columns import (
    NOTHING,
    Panel,
    attempts,
    block,
    excerpt,
    link_to,
    moment,
    money,
    spoken,
)
from pipedai.admin.site import Figure, count_of, model_named, show_on_start_page, site
from pipedai.clocks import zone_of
from triggers import models
from triggers.approvals.views import seen
from triggers.budgets.services import with_present_window, with_sums
from triggers.explain.answers import Subject
from triggers.explain.due_times import check_time_in_question, explain_trigger, why_no_run
from triggers.explain.runs import explain_run
from triggers.heartbeats import ALIVE_WITHIN
from triggers.models import REVISED, Delivery, Run, Tick, Trigger
from triggers.run_events.reading import page_of_events, stored_events
from triggers.runs.lifecycle import cancel_run
from triggers.serializers import HEALTH
from triggers.services import TRIGGERS
from triggers.states import FAILURES, TERMINAL, FaultClass, Health, Status
from triggers.webhooks.sending import redeliver
from workspaces.admin import BY_MEMBER, BY_PLACE

# The query parameter with which staff ask on a run's page for the events after a number.
ASKED = "events"
_SHOWN = 200
_MOST_BYTES = 1024 * 1024


def where_it_stands(run: Run, _: HttpRequest) -> Panel | None:
    told = explain_run(run.id)
    if told is None:
        return None
    zone = zone_of(run.trigger.timezone)
    facts = [fact for part in (told.held, told.ended, told.retry) for fact in _facts(part, zone)]
    headers = ("Code", "In words", "Whom it is about", "Since", "Until", "What to do")
    names = ("code", "message", "subject", "since", "until", "remedy")
    reasons = [
        [_shown(name, getattr(each, name), zone) for name in names] for each in told.waiting_for
    ]
    return Panel("Where it stands, and why", told.summary, facts, headers, reasons)


def _facts(part: Any, zone: tzinfo) -> list[tuple[str, Any]]:
    """Returns the fields of a part of an explanation that have a value, with their names."""
    names = (each.name for each in fields(part)) if part else ()
    shown = ((name, _shown(name, getattr(part, name), zone)) for name in names)
    return [(capfirst(spoken(name)), value) for name, value in shown if value != NOTHING]


def _shown(name: str, value: Any, zone: tzinfo) -> Any:
    if value is None or isinstance(value, datetime):
        return moment(value, zone)
    if isinstance(value, Subject):
        return format_html(
            "{} {}", value.type, link_to(model_named(value.type), value.id, value.name)
        )
    if isinstance(value, UUID):
        return link_to(model_named(name.removesuffix("_id")), value)
    return block(value) if name == "message" and "\n" in value else spoken(str(value))


def due_time(trigger: Trigger, request: HttpRequest) -> Panel:
    """Returns the panel about the trigger's last due time, or the one before `at` in the page's URL. A time without an
    offset is in the trigger's zone.
    """
    zone, asked_at = zone_of(trigger.timezone), request.GET.get("at", "")
    ask = partial(
        Panel, f"What became of its {'' if asked_at else 'last '}due time", zone=str(zone)
    )
    try:
        at = _time(asked_at, zone) if asked_at else None
    except (ValueError, OverflowError):
        return ask("That is no time that can be asked about.")
    told = explain_trigger(trigger.id, at=at)
    if told is None:
        return ask("The trigger is gone.")
    tick = told.tick
    facts = [
        ("Due", moment(told.due_at, zone)),
        ("Decided", moment(tick.decided_at if tick else None, zone)),
        ("Run", link_to(Run, tick.run_id if tick else None)),
        ("Blocked by the run", link_to(Run, tick.blocked_by_id if tick else None)),
        ("Due before", moment(told.previous_due_at, zone)),
        ("Due next", moment(told.next_due_at, zone)),
    ]
    shown = at.astimezone(zone).strftime("%Y-%m-%dT%H:%M") if at else ""
    return ask(told.message, [fact for fact in facts if fact[1] != NOTHING], asked_at=shown)


def _time(sent: str, zone: tzinfo) -> datetime:
    at = datetime.fromisoformat(sent)
    if at.year < 1970:
        raise ValueError("before all computers' times")
    at = at if at.tzinfo else at.replace(tzinfo=zone)
    check_time_in_question(at)
    return at


def events(run: Run, request: HttpRequest) -> Panel:
    """Returns the panel with the events that staff ask for, and audits the request, because events may hold what the
    customer works on. If nobody asks, it returns a link that asks, or the reason why the run has no events.
    """
    if ASKED not in request.GET:
        stored, why = stored_events(run.id)
        links = () if why is not None else ((f"Show the {stored:,} events", f"?{ASKED}=0"),)
        return Panel("Events", why or "", links=links)
    sent = request.GET[ASKED]
    after = int(sent) if sent.isascii() and sent.isdigit() and len(sent) < 10 else 0
    actor = staff_actor(request)
    about = {"after": after}
    with transaction.atomic():
        domain.emit(
            domain.Event("run.events-read", actor, run.environment_id, "run", run.id, about)
        )
    page = page_of_events(run.id, after=after, limit=_SHOWN, most_bytes=_MOST_BYTES)
    rows = [json.loads(event.json) for event in page.events]
    more = (("The next events", f"?{ASKED}={rows[-1]['seq']}"),) if rows else ()
    names = ("seq", "at", "type", "text", "data")
    return Panel(
        "Events",
        "" if rows else page.why_none or "There are none after this number.",
        headers=names,
        rows=[[row[name] for name in names] for row in rows],
        links=more if rows and rows[-1]["seq"] < page.last_seq else (),
    )


# The classes of other apps are taken from the foreign keys of Trigger, because this app must not import `workers`.
_WORKER: Any = Trigger._meta.get_field("worker").related_model
_POOL: Any = Trigger._meta.get_field("pool").related_model


class MoveForm(forms.Form):
    """Asks which worker and which pool of the trigger's environment shall take its runs; at least one of them must."""

    worker_id: Any = forms.ModelChoiceField(None, label="Worker", required=False)
    pool_id: Any = forms.ModelChoiceField(
        None, label="Pool", required=False,
        help_text="With a worker and a pool, the worker comes first, and the pool's others take what it leaves.",
    )  # fmt: skip

    def __init__(self, trigger: Trigger, posted: Mapping[str, Any] | None) -> None:
        super().__init__(posted, initial=vars(trigger))
        live = {"environment_id": trigger.environment_id, "deleted_at__isnull": True}
        choices = (("worker_id", _WORKER, "label", _worker), ("pool_id", _POOL, "name", str))
        for name, model, column, label in choices:
            field: Any = self.fields[name]
            hidden = [each.name for each in model._meta.fields if isinstance(each, BinaryField)]
            field.queryset = model.objects.filter(**live).defer(*hidden).order_by(column)
            field.label_from_instance = label

    def clean(self) -> dict[str, Any]:
        chosen = {name: row and row.id for name, row in self.cleaned_data.items()}
        if not self.errors and not any(chosen.values()):
            raise forms.ValidationError("Choose a worker, a pool, or both.")
        return chosen


def _worker(worker: Any) -> str:
    where = "" if worker.hostname == worker.label else f" on {worker.hostname}"
    return f"{worker.label}{where}{' (paused)' if worker.disabled_at else ''}"


@register(Trigger, site=site)
class TriggerAdmin(StaffModelAdmin):
    named_by = "name"
    list_display = (
        "name", "state", "schedule", "next_run_at", "environment", "worker", "pool", "created_at",
    )  # fmt: skip
    search_fields = ("name", *BY_PLACE)
    found_by_user = BY_MEMBER
    looks_through = OF_CUSTOMERS
    indexes = {("worker",): "id", ("pool",): "id"}
    also_shown = tuple(f"revision__{name}" for name in REVISED)
    reads = ("enabled", "deleted_at")
    annotations = {"health": HEALTH}
    panels = (due_time,)
    support = {
        "move": SupportAction(
            "Move the trigger",
            "Its runs go to another worker or pool of the environment from now on, also those that are queued. What a"
            " worker holds, it finishes. Whoever gets a run is handed the MCP headers in plaintext: be sure whose"
            " machine it is.",
            lambda trigger, actor, **values: TRIGGERS.update(trigger.id, values=values, actor=actor),
            lambda trigger: trigger.deleted_at is None, MoveForm,
        ),
    }  # fmt: skip

    def state(self, trigger: Any) -> str:
        """Shows the worst thing that is true of a trigger: that it is deleted or paused, or else its health."""
        if trigger.deleted_at:
            return "deleted"
        if not trigger.enabled:
            return "paused"
        return "environment paused" if trigger.health == Health.PAUSED else str(trigger.health)


@register(Tick, site=site)
class TickAdmin(StaffModelAdmin):
    list_display = (
        "tick_at", "decision", "why", "environment", "trigger", "run", "blocked_by", "missed_count",
    )  # fmt: skip
    indexes = {("trigger",): "tick_at"}

    def why(self, tick: Tick) -> str | None:
        return None if tick.run_id else why_no_run(tick.decision)


_IS_STUCK = Q(ended_at__isnull=True, status=Status.QUEUED, queued_at__lt=Now() - timedelta(hours=1))


@register(Run, site=site)
class RunAdmin(StaffModelAdmin):
    """Filters by what the table has indexes for: unfinished runs by their state, and all failures by their end."""

    list_display = (
        "id", "status", "source", "attempt", "environment", "trigger", "worker", "queued_at", "ended_at", "cost_usd",
        "error",
    )  # fmt: skip
    list_filter = (
        in_state(
            "unfinished",
            queued_for_an_hour=_IS_STUCK,
            **{word: Q(ended_at__isnull=True, status=word) for word in Status.values if word not in TERMINAL},
        ),
        # The condition is that of the index `run_failed`.
        in_state("failures", all=Q(ended_at__isnull=False, status__in=FAILURES, attempt__gte=1)),
    )  # fmt: skip
    indexes = {
        ("environment", "unfinished"): "queued_at", ("failures",): "ended_at", ("unfinished",): "id",
    }  # fmt: skip
    also_shown = (
        "trigger__timezone", "revision__prompt", "text__mcp_url", "text__payload", "text__error_message",
        "text__late_result", "result__output", "result__tool_calls",
    )  # fmt: skip
    reads = ("fault_class", "short_message")
    annotations = {"error_begins": Left("text__error_message", 300)}
    refers = {"event_id": models.Event}
    panels = (where_it_stands, events)
    support = {
        "cancel": SupportAction(
            "Cancel the run",
            "A queued run ends at once. Of one in a worker's hands the cancel is requested; the worker stops"
            " it and says so. It is not retried.",
            lambda run, actor: cancel_run(run_id=run.id, actor=actor),
            lambda run: run.status not in TERMINAL and run.cancel_requested_at is None,
        ),
    }  # fmt: skip

    def error(self, run: Any) -> str:
        """Shows the error's first line, or what the worker said of a failed run that has no message."""
        is_failure = run.fault_class in (FaultClass.INFRA, FaultClass.CLIENT)
        return excerpt(run.error_begins or (run.short_message if is_failure else None))


_IS_OVERDUE = Q(status=Delivery.Status.PENDING, next_attempt_at__lt=Now() - timedelta(minutes=5))
_ATTEMPTS = models.DeliveryAttempt.objects.filter(delivery=OuterRef("pk")).order_by("-n")


@register(Delivery, site=site)
class DeliveryAdmin(StaffModelAdmin):
    list_display = (
        "id", "status", "attempt_count", "environment", "trigger", "run", "host", "last_error", "created_at",
        "next_attempt_at",
    )  # fmt: skip
    list_filter = (in_state(overdue=_IS_OVERDUE),)
    indexes = {("state",): "id"}
    annotations = {"error_of_last": Subquery(_ATTEMPTS.values("error")[:1])}
    panels = (attempts(models.DeliveryAttempt, "delivery"),)
    support = {
        "redeliver": SupportAction(
            "Send it again",
            "The same body goes out once more, with the same webhook-id, to the URL that the trigger has now.",
            lambda delivery, actor: redeliver(delivery_id=delivery.id, actor=actor),
            lambda delivery: delivery.status != Delivery.Status.PENDING,
        ),
    }  # fmt: skip

    def last_error(self, delivery: Any) -> str:
        return excerpt(delivery.error_of_last)


def _sums(budget: models.Budget) -> list[tuple[str, Any]]:
    row = with_present_window(models.Budget.objects.filter(id=budget.id)).get()
    sums = with_sums(vars(row))
    return [(name, money(sums[name])) for name in ("spent", "reserved", "remaining", "notional")]


# Staff see what runs asked for and what people decided, but can't decide.
site.register(
    models.Approval, StaffModelAdmin,
    list_display=("id", "status", "environment", "trigger", "tool", "run", "created_at", "expires_at"),
    panels=(lambda approval, _: Panel("Arguments", facts=[("As seen", block(seen(approval.arguments)))]),),
)  # fmt: skip
site.register(models.TriggerRevision, StaffModelAdmin)
site.register(models.EventSource, StaffModelAdmin, named_by="name", search_fields=("name",))
site.register(models.Event, StaffModelAdmin, newest_by="received_at", hidden=("body",))
# The lists of these are reached from the pages of other rows.
site.register((models.Listener, models.EventDecision), StaffModelAdmin)
site.register(models.BudgetWindow, StaffModelAdmin, indexes={("budget",): "id"})
site.register(
    models.Budget, StaffModelAdmin, named_by="name",
    list_display=("name", "when_reached", "environment", "trigger", "limit_usd", "limit_runs", "period", "deleted_at"),
    panels=(lambda budget, _: Panel("Its present window", facts=_sums(budget)),),
)  # fmt: skip
_IS_ALIVE = Q(beat_at__gt=Now() - ALIVE_WITHIN)
site.register(
    (models.SchedulerHeartbeat, models.WebHeartbeat),
    StaffModelAdmin,
    list_filter=(in_state(alive=_IS_ALIVE),),
)


def _what_is_wrong() -> list[Figure]:
    waiting = Run.objects.filter(_IS_STUCK)
    alive = models.SchedulerHeartbeat.objects.filter(_IS_ALIVE)
    return [
        count_of("Schedulers alive", alive, none_is_wrong=True, state="alive"),
        count_of("Runs queued for an hour", waiting, unfinished="queued_for_an_hour"),
        count_of("Deliveries overdue", Delivery.objects.filter(_IS_OVERDUE), state="overdue"),
    ]


show_on_start_page(_what_is_wrong)
