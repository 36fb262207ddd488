"""The admin pages of webhook deliveries."""

import json
from typing import Any

from django.contrib.admin import display, register
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.filters import DatesFilter, related
from pipedai.admin.panels import Facts, Panel
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import data, excerpt, ident, link_to, moment, state, two_lines, url
from pipedai.api.renderers import counted
from triggers.admin.runs import attempts_table
from triggers.models import Delivery, DeliveryAttempt, Run, Trigger
from triggers.webhooks.outbox import redeliver
from workspaces.models import Environment


@register(Delivery, site=site)
class DeliveryAdmin(StaffModelAdmin):
    """Shows all webhook deliveries: those that are still to be sent, those that were delivered, and those given up."""

    icon = "outbox"
    when_empty = (
        "No webhook was to be sent yet: no trigger with a webhookUrl has had a run that ended."
    )
    list_display = (
        "shown_id",
        "shown_state",
        "in_environment",
        "of_trigger",
        "host",
        "error",
        "queued",
        "next_attempt",
    )
    list_display_links = None
    list_filter = (
        "status",
        DatesFilter,
        related("environment", Environment),
        related("trigger", Trigger),
    )
    list_reads = (
        "id", "status", "host", "attempt_count", "created_at", "next_attempt_at", "trigger__name", "environment__name",
    )  # fmt: skip
    list_select_related = ("trigger", "environment")
    scopes = (Scope(("trigger",), ("created_at", "id")), Scope(("environment",), ("id",)))
    story_joins = ("trigger", "environment")
    never_read = ("trigger__mcp_headers", "trigger__webhook_secret")
    support = (
        SupportAction(
            "redeliver",
            "Send it again",
            "The same body goes out once more, with the same webhook-id, to the URL that the trigger has now.",
            "It is queued to be sent again.",
            applies=lambda delivery: delivery.status != Delivery.Status.PENDING,
            perform=lambda delivery, actor: redeliver(delivery_id=delivery.id, actor=actor),
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Returns the list's rows, each with the error of its last attempt."""
        attempts = DeliveryAttempt.objects.filter(delivery=OuterRef("pk")).order_by("-n")
        last_error = Subquery(attempts.values("error")[:1])
        rows: QuerySet[Any] = super().get_queryset(request).annotate(last_error=last_error)
        return rows

    @display(description="Delivery")
    def shown_id(self, delivery: Delivery) -> Any:
        return link_to(Delivery, delivery.id)

    @display(description="State")
    def shown_state(self, delivery: Delivery) -> Any:
        """Shows the delivery's state, and below it how often it was sent."""
        return two_lines(state(delivery.status), counted(delivery.attempt_count, "attempt"))

    @display(description="Trigger")
    def of_trigger(self, delivery: Delivery) -> Any:
        return link_to(Trigger, delivery.trigger_id, delivery.trigger.name)

    @display(description="Environment")
    def in_environment(self, delivery: Delivery) -> Any:
        return link_to(Environment, delivery.environment_id, delivery.environment.name)

    @display(description="Last error")
    def error(self, delivery: Any) -> Any:
        return excerpt(delivery.last_error)

    @display(description="Queued")
    def queued(self, delivery: Delivery) -> Any:
        return moment(delivery.created_at)

    @display(description="Next attempt")
    def next_attempt(self, delivery: Delivery) -> Any:
        return moment(delivery.next_attempt_at)

    def story(self, row: Delivery) -> list[Panel]:
        """Returns the panels of one delivery: its facts and its attempts."""
        return [
            Facts(
                "Delivery",
                [
                    ("State", state(row.status)),
                    ("URL", url(row.url)),
                    ("Run", link_to(Run, row.run_id)),
                    ("Trigger", self.of_trigger(row)),
                    ("Environment", self.in_environment(row)),
                    ("Queued", self.queued(row)),
                    ("Attempts", row.attempt_count),
                    ("Next attempt", self.next_attempt(row)),
                    ("Delivered", moment(row.delivered_at)),
                    ("webhook-id", ident(row.message_id)),
                    ("Id", ident(row.id)),
                    ("Body", data(json.loads(row.body))),
                ],
            ),
            attempts_table([row], "Attempts"),
        ]
