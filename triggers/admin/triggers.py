"""The admin pages of triggers, with the action that moves one to another worker, and of their revisions and ticks."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.apps import apps
from django.contrib.admin import register
from django.db.models import F, OuterRef, Subquery
from django.utils.html import format_html
from unfold.widgets import UnfoldAdminSelectWidget

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import LOOKS_THROUGH_CUSTOMERS, Scope
from pipedai.admin.fields import both_zones, column, itself, of_row, whether
from pipedai.admin.filters import DatesFilter
from pipedai.admin.panels import Links, Related
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import (
    NOTHING,
    data,
    link_to,
    list_of,
    long_text,
    moment,
    number,
    seconds,
    state,
)
from pipedai.events import Actor
from triggers.admin.panels import Pool, Worker, beginning_of_error, due_time_panel, shown_error
from triggers.explain.due_times import why_no_run
from triggers.models import Delivery, Listener, Run, Tick, Trigger, TriggerRevision
from triggers.queries import HEALTH
from triggers.services import TRIGGERS
from workspaces.actors import LABELS
from workspaces.admin.environments import BY_MEMBER, BY_PLACE


def _what_became_of(tick: Any) -> Any:
    run = tick.run
    if run is None:
        why = why_no_run(tick.decision)
        said = f"{why[0].upper()}{why[1:]}."
        blocker = tick.blocked_by_id
        return format_html("{} It is {}", said, link_to(Run, blocker)) if blocker else said
    error = shown_error(tick, run)
    return state(run.status) if error is NOTHING else format_html("{} {}", state(run.status), error)


def _due(tick: Tick) -> Any:
    """Returns when a tick was due. For a row that stands for several due times it returns the first and the last."""
    first = _FIRST.show(tick)
    if tick.missed_count <= 1:
        return first
    return format_html("{}<br>to {}<br>{} due times", first, _LAST.show(tick), tick.missed_count)


def _of_several(shown: Any) -> Any:
    return of_row(
        lambda tick: shown.show(tick) if tick.missed_count > 1 else NOTHING,
        *shown.reads,
        "missed_count",
    )


_FIRST = both_zones("tick_at", "trigger__timezone")
_LAST = both_zones("last_tick_at", "trigger__timezone")
_DUE = of_row(_due, *_FIRST.reads, *_LAST.reads, "missed_count")
_WHAT_BECAME_OF_IT = of_row(
    _what_became_of,
    "decision", "blocked_by_id", "run__status", "run__fault_class", "run__short_message",
    error_begins=beginning_of_error("run__"),
)  # fmt: skip


class MoveForm(forms.Form):
    """Asks which worker and which pool of the trigger's environment shall take its runs; at least one of them must."""

    worker_id: Any = forms.ModelChoiceField(
        None, label="Worker", required=False, empty_label="Any worker of the pool", widget=UnfoldAdminSelectWidget
    )  # fmt: skip
    pool_id: Any = forms.ModelChoiceField(
        None, label="Pool", required=False, empty_label="No pool", widget=UnfoldAdminSelectWidget,
        help_text="With a worker and a pool, the worker comes first, and the pool's others take what it leaves.",
    )  # fmt: skip

    def __init__(self, trigger: Trigger, posted: Mapping[str, Any] | None) -> None:
        present = {"worker_id": trigger.worker_id, "pool_id": trigger.pool_id}
        super().__init__(posted, initial=present)
        live = {"environment_id": trigger.environment_id, "deleted_at__isnull": True}
        workers, pools = (model._default_manager.filter(**live) for model in (Worker, Pool))
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
    TRIGGERS.update(trigger.id, values=values, actor=actor)


def _newest_run(trigger: Any) -> Any:
    status = trigger.newest_run_status
    return link_to(Run, trigger.newest_run_id, status and state(status))


_RUNS = Run.objects.filter(trigger=OuterRef("pk")).order_by("-queued_at", "-id")
_NEWEST_RUN = of_row(
    _newest_run,
    newest_run_id=Subquery(_RUNS.values("id")[:1]),
    newest_run_status=Subquery(_RUNS.values("status")[:1]),
)


def _state(trigger: Any) -> Any:
    """Shows the worst that is true of a trigger: that it is gone or disabled, or else its health."""
    health = trigger.health if trigger.enabled else "disabled"
    return state("deleted" if trigger.deleted_at else health)


@register(Trigger, site=site)
class TriggerAdmin(StaffModelAdmin):
    icon = "bolt"
    group = "Triggers"
    is_shortcut = True
    when_empty = "Nobody has made a trigger yet."
    named_by = "name"
    columns = (
        "name", "State", "schedule", ("Due next", "next_run_at"), ("Newest run", _NEWEST_RUN), "environment", "worker",
        "pool", "created_at",
    )  # fmt: skip
    list_filter = ("enabled", "environment", "worker", "pool")
    searched_text = {"name": "name", **BY_PLACE}
    searched_address = BY_MEMBER
    looks_through = LOOKS_THROUGH_CUSTOMERS
    scopes = (Scope(("environment",), ("id",)),)
    left_out = ("mcp_key", "webhook_key", "changed_by", "also_changed_by")
    facts = (
        ("State", of_row(_state, "deleted_at", "enabled", health=HEALTH)), "name", "environment", "worker",
        "pool", ("Worker before the pool's others for", column("prefer_seconds", seconds)),
        ("Taken within", column("start_deadline_seconds", seconds)), ("Runs at once", "max_concurrent_runs"),
        "schedule", ("Time zone", "timezone"), ("Due next", both_zones("next_run_at", "timezone")),
        ("Due once", both_zones("run_once_at", "timezone")),
        ("While a run is unfinished", column("overlap_policy", lambda policy: f"{policy} the next")),
        ("Retries", "max_retries"), ("A retry", column("retry_mode", lambda mode: f"{mode}s")),
        ("Retries after effects", "retry_after_effects"), ("Records events", "record_events"),
        ("Time limit", column("timeout_seconds", seconds)), ("Cost limit", "max_cost_usd"),
        ("Approvals", column("approvals", data)), ("Host's tools beside them", "allow_host_tools"),
        ("Fails if denied", "fail_on_denied"),
        ("Failures in a row", of_row(lambda row: number(row.failures), failures=F("judged__failures"))),
        ("Late since", of_row(lambda row: moment(row.late_since), late_since=F("judged__late_since"))),
        ("Failing after failures", "alert_after_failures"),
        ("Late without success after", column("success_deadline_seconds", seconds)),
        ("Model", "revision__model"), ("MCP server", "mcp_url"), "connection",
        ("MCP headers", whether("mcp_headers", "none")),
        ("Webhook", "webhook_url"), ("Webhook secret", whether("webhook_secret", "none")), "created_at",
        ("Changed", "updated_at"), "deleted_at", "id", ("Key in files", "key"), ("Managed by the files", "managed_by"),
        "description",
        ("Prompt", column("revision__prompt", long_text)), "revision__output_schema",
    )  # fmt: skip
    answers = (due_time_panel,)
    panels = (
        Related(
            "Newest runs", Run,
            (("Run", itself()), ("State", column("status", state)), "source", "queued_at", "ended_at"), by="trigger",
            shown=10, nothing="It has never run.",
        ),
        Related(
            "Newest ticks", Tick, (("Due", _DUE), "Decision", ("What became of it", _WHAT_BECAME_OF_IT), "run"),
            by="trigger", nothing="None has come due.",
        ),
        Related(
            "Listens to", Listener, ("source", ("Trigger", "upstream"), "outcome", "types", "where"), by="trigger",
            order=("position",),
        ),
        Related("Who listens", Listener, ("trigger", "outcome"), by="upstream", order=("trigger_id",)),
        lambda trigger, _: [Links("See also", [
            ("Deliveries", list_of(Delivery, trigger=trigger.id)),
            ("Former prompts", list_of(TriggerRevision, trigger=trigger.id)),
        ])],
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


def _made_by(revision: TriggerRevision) -> Any:
    """Returns what kind of actor made a revision, with a link to the actor's page, if it has one."""
    made_by, actor_id = revision.created_by_type, revision.created_by_id
    if made_by not in LABELS or actor_id is None:
        return made_by or NOTHING
    return format_html("{} {}", made_by, link_to(apps.get_model(LABELS[made_by][0]), actor_id))


@register(TriggerRevision, site=site)
class TriggerRevisionAdmin(StaffModelAdmin):
    icon = "history_edu"
    group = "Triggers"
    when_empty = "Nobody has made a trigger yet, so there is no revision of one."
    columns = ("Made", "trigger", "model", "environment")
    list_filter = ("trigger",)
    facts = (
        "trigger", "environment", ("Made", "created_at"),
        ("Made by", of_row(_made_by, "created_by_type", "created_by_id")), "model", "id",
        ("Prompt", column("prompt", long_text)), "output_schema",
    )  # fmt: skip


@register(Tick, site=site)
class TickAdmin(StaffModelAdmin):
    icon = "schedule"
    group = "Triggers"
    when_empty = "No schedule has come due yet."
    columns = (
        ("Due", "tick_at"), "Decision", "environment", "trigger", "run",
        ("Due times", column("missed_count", lambda count: max(1, count))), ("Decided", "decided_at"),
    )  # fmt: skip
    list_filter = ("decision", DatesFilter, "environment", "trigger")
    scopes = (Scope(("trigger",), ("tick_at",)),)
    facts = (
        ("Decision", column("decision", state)), ("What became of it", _WHAT_BECAME_OF_IT), "trigger", "environment",
        ("Due", _FIRST), ("The last of these was due", _of_several(_LAST)),
        ("Due times without a run", _of_several(column("missed_count", number))),
        ("Decided", both_zones("decided_at", "trigger__timezone")), "run", ("Blocked by the run", "blocked_by"), "id",
    )  # fmt: skip
