"""The admin pages of channels and notices, and the panel of channels on the page of an environment."""

import json
from typing import Any

from django.contrib.admin import display, register

from accounts.models import User
from notices.channels.models import Channel, Notice, NoticeAttempt
from notices.models import Incident
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Panel, Table, add_to_page_of
from pipedai.admin.site import site
from pipedai.admin.values import (
    data,
    ident,
    link_to,
    list_of,
    long_text,
    moment,
    number,
    state,
    text,
)
from triggers.models import Run
from workspaces.models import Environment

_SHOWN = 10


@register(Channel, site=site)
class ChannelAdmin(StaffModelAdmin):
    """Shows the channels over which environments send notices. The pages never read URLs and secrets."""

    icon = "campaign"
    when_empty = "No environment has a channel yet."
    list_display = (
        "name",
        "kind",
        "shown_state",
        "goes_to",
        "in_environment",
        "failing",
        "created",
    )
    list_filter = ("kind", related("environment", Environment))
    list_reads = (
        "id", "name", "kind", "enabled", "deleted_at", "host", "emails", "failing_since", "created_at",
        "environment__name",
    )  # fmt: skip
    list_select_related = ("environment",)
    story_joins = ("environment",)
    never_read = ("url", "secret")

    @display(description="State")
    def shown_state(self, channel: Channel) -> Any:
        """Shows whether the channel is deleted, disabled, failing or working."""
        if channel.deleted_at:
            return state("deleted")
        if not channel.enabled:
            return state("disabled")
        return state("failing" if channel.failing_since else "ok")

    @display(description="Goes to")
    def goes_to(self, channel: Channel) -> Any:
        """Shows the host of the URL, or how many addresses there are."""
        if channel.kind == Channel.Kind.EMAIL:
            return f"{len(channel.emails)} addresses"
        return text(channel.host)

    @display(description="Environment")
    def in_environment(self, channel: Channel) -> Any:
        return link_to(Environment, channel.environment_id, channel.environment.name)

    @display(description="Failing since")
    def failing(self, channel: Channel) -> Any:
        return moment(channel.failing_since)

    @display(description="Made")
    def created(self, channel: Channel) -> Any:
        return moment(channel.created_at)

    def story(self, row: Channel) -> list[Panel]:
        """Returns the panels of one channel: its facts and its newest notices."""
        return [
            Facts(
                "Channel",
                [
                    ("State", self.shown_state(row)),
                    ("Kind", row.kind),
                    ("Host", text(row.host)),
                    ("Addresses", text(", ".join(row.emails))),
                    ("Signs", "yes" if row.secret_key_id else "no"),
                    ("Environment", self.in_environment(row)),
                    ("Tells of", ", ".join(row.events)),
                    ("Failing since", self.failing(row)),
                    ("Last error", text(row.last_error)),
                    ("Dropped", number(row.dropped_count)),
                    ("Made by", link_to(User, row.created_by)),
                    ("Made", self.created(row)),
                    ("Changed", moment(row.updated_at)),
                    ("Deleted", moment(row.deleted_at)),
                    ("Id", ident(row.id)),
                ],
            ),
            _notices(row),
        ]


@register(Notice, site=site)
class NoticeAdmin(StaffModelAdmin):
    """Shows the notices of all channels, with the attempts to send them."""

    icon = "notifications"
    when_empty = "No channel was to tell anything yet."
    list_display = ("event", "shown_state", "of_channel", "attempt_count", "queued", "next_attempt")
    list_filter = ("status", related("channel", Channel))
    list_reads = (
        "id", "event", "status", "attempt_count", "created_at", "next_attempt_at", "channel__name",
    )  # fmt: skip
    list_select_related = ("channel",)
    scopes = (Scope(("channel",), ("created_at", "id")),)
    story_joins = ("channel", "environment")
    never_read = ("channel__url", "channel__secret")

    @display(description="State")
    def shown_state(self, notice: Notice) -> Any:
        return state(notice.status)

    @display(description="Channel")
    def of_channel(self, notice: Notice) -> Any:
        return link_to(Channel, notice.channel_id, notice.channel.name)

    @display(description="Queued")
    def queued(self, notice: Notice) -> Any:
        return moment(notice.created_at)

    @display(description="Next attempt")
    def next_attempt(self, notice: Notice) -> Any:
        return moment(notice.next_attempt_at)

    def story(self, row: Notice) -> list[Panel]:
        """Returns the panels of one notice: its facts and its attempts."""
        return [
            Facts(
                "Notice",
                [
                    ("State", self.shown_state(row)),
                    ("Event", row.event),
                    ("Channel", self.of_channel(row)),
                    ("Environment", link_to(Environment, row.environment_id, row.environment.name)),
                    ("Address", text(row.address)),
                    ("Incident", link_to(Incident, row.incident_id)),
                    ("Run", link_to(Run, row.run_id)),
                    ("Told in", link_to(Notice, row.digest_id)),
                    ("Queued", self.queued(row)),
                    ("Attempts", number(row.attempt_count)),
                    ("Next attempt", self.next_attempt(row)),
                    ("Delivered", moment(row.delivered_at)),
                    ("Id", ident(row.id)),
                    ("Body", data(json.loads(row.body))),
                ],
            ),
            _attempts(row),
        ]


def _notices(channel: Channel) -> Table:
    rows = Notice.objects.filter(channel=channel).defer("body").order_by("-created_at", "-id")
    return Table(
        "Newest notices",
        ("Queued", "Event", "State", "Attempts"),
        [
            (
                link_to(Notice, each.id, moment(each.created_at)),
                each.event,
                state(each.status),
                number(each.attempt_count),
            )
            for each in rows[:_SHOWN]
        ],
        nothing="It has told nothing yet.",
        more=list_of(Notice, channel=channel.id),
    )


def _attempts(notice: Notice) -> Table:
    rows = NoticeAttempt.objects.filter(notice=notice).order_by("at")
    return Table(
        "Attempts",
        ("Attempt", "When", "Answer", "Took", "Error", "Response"),
        [
            (
                each.n,
                moment(each.at),
                text(str(each.status_code or "")),
                f"{each.duration_ms:,} ms",
                text(each.error),
                long_text(each.response_body),
            )
            for each in rows[:_SHOWN]
        ],
        nothing="Not sent yet.",
    )


def channels_panel(environment: Environment) -> Table:
    """Makes the panel with the channels of an environment."""
    rows = Channel.objects.filter(environment=environment, deleted_at__isnull=True)
    admin = site._registry[Channel]
    assert isinstance(admin, ChannelAdmin)
    return Table(
        "Channels",
        ("Channel", "Kind", "State", "Goes to", "Failing since"),
        [
            (
                link_to(Channel, each.id, each.name),
                each.kind,
                admin.shown_state(each),
                admin.goes_to(each),
                admin.failing(each),
            )
            for each in rows.defer("url", "secret").order_by("created_at", "id")[:_SHOWN]
        ],
        nothing="Nobody is told of its incidents.",
        more=list_of(Channel, environment=environment.id),
    )


add_to_page_of(Environment, channels_panel)
