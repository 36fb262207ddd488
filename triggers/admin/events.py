"""The admin pages of sources and events. No secret and no body is shown."""

from django.contrib.admin import register

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.fields import column, itself, state_of
from pipedai.admin.panels import Related
from pipedai.admin.site import site
from pipedai.admin.values import state
from triggers.models import Event, EventDecision, EventSource, Listener

_DECIDED = (
    "trigger", ("Decision", column("decision", state)), "code", "clause", "run",
)  # fmt: skip


@register(EventSource, site=site)
class EventSourceAdmin(StaffModelAdmin):
    icon = "sensors"
    group = "Triggers"
    when_empty = "Nobody has made a source of events yet."
    named_by = "name"
    columns = (
        "name",
        "State",
        "scheme",
        "environment",
        ("Last event", "last_event_at"),
        "created_at",
    )
    list_filter = ("scheme", "environment")
    searched_text = {"name": "name"}
    scopes = (Scope(("environment",), ("created_at", "id")),)
    left_out = ("secrets_key",)
    facts = (
        ("State", state_of("disabled", deleted="deleted_at", enabled="enabled")), "name", "scheme", "environment",
        ("Last event", "last_event_at"), ("Signature", "hmac"), "created_at", ("Changed", "updated_at"), "deleted_at",
        "id",
        ("Key in files", "key"),
        ("Managed by the files", "managed_by"),
    )  # fmt: skip
    panels = (
        Related("Who listens", Listener, ("trigger", "types"), by="source", order=("trigger_id",)),
        Related("Newest events", Event, (("Event", itself()), "type", "received_at"), by="source", shown=10),
    )  # fmt: skip


@register(Event, site=site)
class EventAdmin(StaffModelAdmin):
    icon = "input"
    group = "Runs"
    when_empty = "No event has come yet."
    newest_first = ("received_at", "id")
    columns = (("Event", itself()), "source", "type", "environment", "received_at", "duplicates")
    list_filter = ("source", "environment")
    scopes = (Scope(("source",), ("received_at", "id")),)
    left_out = ("body",)
    facts = (
        "source", ("Run that ended", "run"), "type", ("The sender's id", "given_id"), "environment", "received_at",
        "decided_at", "duplicates", "replay_of", "id",
    )  # fmt: skip
    panels = (
        Related(
            "Decisions", EventDecision, _DECIDED, by="event", order=("id",), nothing="Nobody listened."
        ),
    )  # fmt: skip
