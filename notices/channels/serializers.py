"""Checks the bodies of requests about channels, and renders channels and notices, and filters notices."""

import re
from typing import Any, Final
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accounts.serializers import NewEmailField
from notices.channels.consent import Standing
from notices.models import Channel, Notice
from notices.states import ALWAYS, EVENTS, FAILED, USUAL_EVENTS
from pipedai.api.fields import (
    IdField,
    ListField,
    SigningSecretField,
    TargetUrlField,
    TextField,
    TimezoneField,
    TrueFalseField,
)
from pipedai.api.filters import ApiFilterSet, WordsFilter
from pipedai.api.serializers import NamedSerializer, RowSerializer, StrictBody
from pipedai.sql import fetch_all
from triggers.events.clauses import MAX_CLAUSES, WhereField
from triggers.webhooks.views import DeliverySerializer
from workspaces.serializers import FileBody

MAX_EMAILS = 20
MAX_TRIGGERS = 100
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK: Final = re.compile("([01][0-9]|2[0-3]):[0-5][0-9]")
_MAX_TOKEN = 200


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string", "enum": [ALWAYS, FAILED]},
            {"type": "array", "items": {"type": "object"}, "minItems": 1, "maxItems": MAX_CLAUSES},
        ]
    }
)
class WhenField(serializers.Field[Any, Any, Any, Any]):
    """Which final outcomes a channel tells: `always`, `failed`, or clauses that must all hold."""

    # This field is not bound to the body's serializer, so that whole clauses are required in a PATCH too.
    where = WhereField(allow_empty=False)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, list):
            return self.where.run_validation(data)
        if data not in (ALWAYS, FAILED):
            raise serializers.ValidationError("Must be always, failed, or a list of clauses.")
        return data

    def to_representation(self, value: Any) -> Any:
        return value


class SummaryBody(StrictBody):
    """When a channel sends a summary: at a time of day, in a time zone, on some days of the week."""

    at = TextField()
    timezone = TimezoneField(required=False)
    weekdays = ListField(
        child=serializers.ChoiceField(choices=WEEKDAYS),
        allow_empty=False,
        max_length=len(WEEKDAYS),
        required=False,
    )

    def validate_at(self, value: str) -> str:
        if not _CLOCK.fullmatch(value):
            raise serializers.ValidationError(
                "Must be a time of day from 00:00 to 23:59, as HH:MM."
            )
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        # A PATCH makes every field optional, so the required ones are checked here.
        if "at" not in attrs:
            raise serializers.ValidationError({"at": ["This field is required."]})
        days = attrs.get("weekdays", WEEKDAYS)
        return {
            "at": attrs["at"],
            "timezone": attrs.get("timezone", "UTC"),
            "weekdays": [day for day in WEEKDAYS if day in days],
        }


class ChannelBody(FileBody):
    kind = serializers.ChoiceField(choices=Channel.Kind.choices)
    emails = ListField(
        child=NewEmailField(), min_length=1, max_length=MAX_EMAILS, allow_null=True, required=False
    )
    url = TargetUrlField(
        label="URL",
        help_text="It is encrypted, and shown to nobody.",
        allow_null=True,
        required=False,
    )
    secret = SigningSecretField(
        help_text="Signs what is sent, so that the receiver knows that it is ours. 16 characters or more.",
        allow_null=True,
        required=False,
    )
    events = ListField(
        child=serializers.ChoiceField(choices=EVENTS), max_length=100, required=False
    )
    triggerIds = ListField(
        source="trigger_ids",
        child=IdField(),
        min_length=1,
        max_length=MAX_TRIGGERS,
        allow_null=True,
        required=False,
    )
    when = WhenField(source="tells_when", required=False)
    summary = SummaryBody(allow_null=True, required=False)
    enabled = TrueFalseField(required=False)

    def validate_triggerIds(self, value: list[UUID] | None) -> list[UUID] | None:  # noqa: N802
        return value and sorted(set(value))

    def validate_emails(self, value: list[str] | None) -> list[str] | None:
        return value and list(dict.fromkeys(value))

    def validate_events(self, value: list[str]) -> list[str]:
        """Returns each word once, in the order of the list in API.md."""
        return [event for event in EVENTS if event in value]


# The values of a new channel for the fields that its body leaves out.
DEFAULTS: dict[str, Any] = {
    "emails": None,
    "url": None,
    "secret": None,
    "events": list(USUAL_EVENTS),
    "trigger_ids": None,
    "tells_when": ALWAYS,
    "summary": None,
    "enabled": True,
}


class TokenBody(StrictBody):
    token = TextField(max_length=_MAX_TOKEN)


class RefusalBody(TokenBody):
    everywhere = TrueFalseField(required=False)


class RecipientSerializer(serializers.Serializer[Any]):
    """An address of a channel, and whether it gets the channel's mail."""

    email = serializers.CharField()
    standing = serializers.ChoiceField(choices=[each.value for each in Standing])


class ChannelSerializer(NamedSerializer):
    """A channel. Of its URL it shows the host, and of its secret whether there is one."""

    of = Channel
    shows = (
        "id key managedBy environmentId name kind emails recipients host hasSecret events"
        " triggerIds when summary nextSummaryAt enabled failingSince lastError droppedCount"
        " createdAt updatedAt"
    )
    emails = serializers.SerializerMethodField()
    recipients = serializers.SerializerMethodField()
    host = serializers.SerializerMethodField()
    hasSecret = serializers.SerializerMethodField()
    events = serializers.ListField(child=serializers.ChoiceField(choices=EVENTS))
    when = WhenField(source="tells_when")
    summary = SummaryBody(allow_null=True)
    nextSummaryAt = serializers.DateTimeField(source="summary_due_at", allow_null=True)

    @extend_schema_field(serializers.ListField(child=serializers.CharField(), allow_null=True))
    def get_emails(self, channel: Channel) -> list[str] | None:
        return channel.emails or None

    @extend_schema_field(RecipientSerializer(many=True, allow_null=True))
    def get_recipients(self, channel: Channel) -> list[dict[str, str]] | None:
        """The addresses with what they get, else null. The view puts the standings into `context["standings"]`."""
        if not channel.emails:
            return None
        standings = self.context["standings"]
        return [
            {"email": email, "standing": standings[channel.environment_id, email].value}
            for email in channel.emails
        ]

    def get_host(self, channel: Channel) -> str | None:
        return channel.host or None

    def get_hasSecret(self, channel: Channel) -> bool:  # noqa: N802
        return channel.secret_key_id is not None


class NoticeInShortSerializer(RowSerializer):
    """What became of one of a channel's last notices."""

    of, shows = Notice, "id event status createdAt"


class ListedChannelSerializer(ChannelSerializer):
    """A channel of a list. `recent` is there if it was asked for with `include=recent`."""

    recent = NoticeInShortSerializer(many=True, required=False)


RECENT_NOTICES = 30
_RECENT = f"""
SELECT n.channel_id, n.id, n.event, n.status, n.created_at FROM unnest(%(ids)s::uuid[]) c (id)
CROSS JOIN LATERAL (
    SELECT * FROM notice WHERE channel_id = c.id ORDER BY created_at DESC, id DESC LIMIT {RECENT_NOTICES}) n
ORDER BY n.created_at, n.id
"""  # noqa: S608


def with_recent_notices(channels: list[Any]) -> list[Any]:
    """Adds `recent` to channels as answers show them: the last notices of each, the newest last. It takes one query."""
    recent: dict[str, list[Any]] = {each["id"]: [] for each in channels}
    for row in fetch_all(_RECENT, {"ids": [*recent]}) if recent else ():
        recent[str(row["channel_id"])].append(NoticeInShortSerializer(row).data)
    return [{**each, "recent": recent[each["id"]]} for each in channels]


class NoticeSerializer(NamedSerializer):
    """A notice with its attempts, the first one first."""

    of = Notice
    shows = (
        "id channelId event incidentId runId email status digestId nextAttemptAt createdAt"
        " deliveredAt attempts"
    )
    email = serializers.SerializerMethodField()
    attempts = serializers.SerializerMethodField()

    def get_email(self, notice: Notice) -> str | None:
        return notice.address or None

    get_attempts = DeliverySerializer.get_attempts


class NoticeFilters(ApiFilterSet):
    status = WordsFilter(field_name="status", choices=Notice.Status.values)
