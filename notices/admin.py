"""The admin pages of incidents, channels and notices, and their panels on other rows' pages."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time
from typing import Any

from django.contrib.admin import register
from django.db.models import Q, QuerySet

from accounts.models import User
from notices.channels.models import IS_FAILING, Channel, Notice, NoticeAttempt
from notices.models import Incident
from notices.states import Kind
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.fields import column, itself, link, of_row, state_of, whether
from pipedai.admin.filters import DatesFilter, in_state
from pipedai.admin.panels import Related, add_to_page_of, attempts
from pipedai.admin.site import model_named, site
from pipedai.admin.start_page import Figure, alarm, show_alarms
from pipedai.admin.values import data, link_to, state, text
from triggers.models import Approval, Budget, Run, Trigger
from triggers.runs.queries import failures
from workers.models import Pool, Worker
from workspaces.models import Connection, Environment


def _channel_state(channel: Channel) -> Any:
    if channel.deleted_at:
        return state("deleted")
    if not channel.enabled:
        return state("disabled")
    return state("failing" if channel.failing_since else "ok")


def _goes_to(channel: Channel) -> Any:
    """Shows the host of the URL, or how many addresses there are."""
    if channel.kind == Channel.Kind.EMAIL:
        return f"{len(channel.emails)} addresses"
    return text(channel.host)


_IS_OPEN = Q(closed_at__isnull=True)
_GOES_TO = ("Goes to", of_row(_goes_to, "kind", "emails", "host"))


@register(Channel, site=site)
class ChannelAdmin(StaffModelAdmin):
    icon = "campaign"
    group = "Webhooks and notices"
    when_empty = "No environment has a channel yet."
    named_by = "name"
    columns = ("name", "kind", "State", _GOES_TO, "environment", "failing_since", "Made")
    list_filter = (in_state(failing=IS_FAILING), "kind", "environment")
    scopes = (Scope(("state",), ("id",)),)
    left_out = ("url_key", "secret_key")
    facts = (
        ("State", of_row(_channel_state, "deleted_at", "enabled", "failing_since")), "name", "kind", "host",
        ("Addresses", "emails"), ("Signs", whether("secret")), "environment",
        ("Tells of", "events"), ("Results of", "trigger_ids"), ("Results when", column("tells_when", data)),
        ("Summary", column("summary", data)), ("Next summary", "summary_due_at"),
        ("It tells from", "summary_since"), "failing_since", "last_error", ("Dropped", "dropped_count"),
        ("Made by", link("created_by", User)), ("Made", "created_at"), ("Changed", "updated_at"), "deleted_at", "id",
        ("Key in files", "key"), ("Managed by the files", "managed_by"),
    )  # fmt: skip
    panels = (
        Related(
            "Newest notices", Notice, (("Queued", itself("created_at")), "event", "State", "Attempts"), by="channel",
            shown=10, nothing="It has told nothing yet.",
        ),
    )  # fmt: skip


@register(Notice, site=site)
class NoticeAdmin(StaffModelAdmin):
    icon = "notifications"
    group = "Webhooks and notices"
    when_empty = "No channel was to tell anything yet."
    columns = ("event", "State", "channel", "Attempts", "Queued", "next_attempt_at")
    list_filter = ("status", "channel")
    scopes = (Scope(("channel",), ("created_at", "id")),)
    left_out = ("host", "send_at", "tells_results")
    facts = (
        ("State", column("status", state)), "event", "channel", "environment", "address",
        ("Incident", link("incident_id", Incident)), ("Run", link("run_id", Run)),
        ("Approval", link("approval_id", Approval)), ("Told in", link("digest_id", Notice)),
        ("Queued", "created_at"), ("Attempts", "attempt_count"),
        "next_attempt_at", "delivered_at", "id",
        ("Body", column("body", lambda body: data(json.loads(body)))),
    )  # fmt: skip
    panels = (attempts(NoticeAttempt, "notice"),)


def _subject(incident: Incident) -> Any:
    return link_to(model_named(incident.subject_type), incident.subject_id, incident.subject_name)


@register(Incident, site=site)
class IncidentAdmin(StaffModelAdmin):
    icon = "warning"
    group = "Webhooks and notices"
    is_shortcut = True
    when_empty = "Nothing has gone wrong yet."
    columns = ("opened_at", "Kind", "State", "About", "environment", "message", "closed_at")
    list_filter = (in_state(open=_IS_OPEN), "kind", DatesFilter, "environment")
    scopes = (
        Scope(("environment",), ("opened_at", "id")),
        Scope(("environment", "state"), ("opened_at", "id")),
        Scope(("state",), ("id",)),
        Scope(("state", "kind"), ("id",)),
    )
    facts = (
        ("State", state_of("open", closed="closed_at", acknowledged="acknowledged_at")),
        ("Kind", column("kind", state)),
        ("About", of_row(_subject, "subject_type", "subject_id", "subject_name")), "environment", ("Cause", "message"),
        ("Run", link("run_id", Run)), "opened_at", "closed_at", "acknowledged_at",
        ("Acknowledged by", link("acknowledged_by", User)), ("Notices", "notice_count"),
        ("Reminders", "reminder_count"), ("Next reminder", "remind_at"), "id",
    )  # fmt: skip

    def parts_of(self, rows: QuerySet[Any], sent: Mapping[str, str]) -> Sequence[QuerySet[Any]]:
        """Returns all open incidents by their kinds, as the index `incident_watched` has them."""
        return [rows.filter(kind=kind) for kind in Kind] if sent == {"state": "open"} else [rows]


_INCIDENT = (("Opened", itself("opened_at")), "Kind", "State", "About", "Cause", "closed_at")
_CHANNELS = Related(
    "Channels", Channel, (("Channel", itself("name")), "kind", "State", _GOES_TO, "failing_since"), by="environment",
    where=Q(deleted_at__isnull=True), order=("created_at", "id"), shown=10, nothing="Nobody is told of its incidents.",
)  # fmt: skip
_OPEN_INCIDENTS = Related(
    "Open incidents",
    Incident,
    _INCIDENT,
    by="environment",
    where=_IS_OPEN,
    shown=10,
)
_INCIDENTS = Related(
    "Incidents", Incident, _INCIDENT, by="subject_id", order=("-opened_at", "-id"), shown=10
)


def _what_is_wrong() -> list[Figure]:
    today = datetime.combine(datetime.now(UTC), time.min, UTC)
    failed = failures(Run.objects.filter(ended_at__gte=today))
    failing = Channel.objects.filter(IS_FAILING)
    incidents = Incident.objects.filter(_IS_OPEN)

    def of_kind(label: str, kind: Kind) -> Figure:
        return alarm(label, incidents.filter(kind=kind), state="open", kind__exact=kind.value)

    return [
        alarm("Open incidents", incidents, state="open"),
        of_kind("Late triggers", Kind.TRIGGER_LATE),
        alarm("Failures today (UTC)", failed, status="failures", **{"from": today.date()}),
        of_kind("Budgets reached", Kind.BUDGET_REACHED),
        alarm("Failing channels", failing, state="failing"),
    ]


show_alarms(_what_is_wrong)
add_to_page_of(Environment, _CHANNELS, _OPEN_INCIDENTS)
for _model in (Trigger, Worker, Pool, Budget, Connection):
    add_to_page_of(_model, _INCIDENTS)
