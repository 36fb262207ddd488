"""Checks the bodies of requests about channels, and renders channels and notices, and filters notices."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accounts.serializers import NewEmailField
from notices.channels.consent import Standing
from notices.channels.models import Channel, Notice
from notices.states import EVENTS, USUAL_EVENTS
from pipedai.api.fields import NameField, TextField, TrueFalseField
from pipedai.api.filters import ApiFilterSet, WordsFilter
from pipedai.api.outside_urls import MAX_URL
from pipedai.api.serializers import StrictBody
from triggers.serializers import MIN_WEBHOOK_SECRET, checked_webhook_secret, checked_webhook_url
from triggers.webhooks.serializers import AttemptSerializer

MAX_EMAILS = 20
_MAX_TOKEN = 200


class ChannelBody(StrictBody):
    name = NameField(max_length=200)
    kind = serializers.ChoiceField(choices=Channel.Kind.choices)
    emails = serializers.ListField(
        child=NewEmailField(), min_length=1, max_length=MAX_EMAILS, allow_null=True, required=False
    )
    url = TextField(max_length=MAX_URL, allow_null=True, required=False)
    secret = TextField(
        min_length=MIN_WEBHOOK_SECRET,
        max_length=1024,
        trim_whitespace=False,
        allow_null=True,
        required=False,
    )
    events = serializers.ListField(
        child=serializers.ChoiceField(choices=EVENTS), min_length=1, max_length=100, required=False
    )
    enabled = TrueFalseField(required=False)

    def validate_emails(self, value: list[str] | None) -> list[str] | None:
        return value and list(dict.fromkeys(value))

    def validate_events(self, value: list[str]) -> list[str]:
        """Returns each word once, in the order of the list in API.md."""
        return [event for event in EVENTS if event in value]

    def validate_url(self, value: str | None) -> str | None:
        return checked_webhook_url(value) if value else value

    def validate_secret(self, value: str | None) -> str | None:
        return checked_webhook_secret(value) if value else value


# What a new channel has, if its body does not say so.
DEFAULTS: dict[str, Any] = {
    "emails": None,
    "url": None,
    "secret": None,
    "events": list(USUAL_EVENTS),
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


class ChannelSerializer(serializers.Serializer[Any]):
    """A channel. Of its URL it shows the host, and of its secret whether there is one."""

    id = serializers.UUIDField()
    environmentId = serializers.UUIDField(source="environment_id")
    name = serializers.CharField()
    kind = serializers.ChoiceField(choices=Channel.Kind.choices)
    emails = serializers.SerializerMethodField()
    recipients = serializers.SerializerMethodField()
    host = serializers.SerializerMethodField()
    hasSecret = serializers.SerializerMethodField()
    events = serializers.ListField(child=serializers.ChoiceField(choices=EVENTS))
    enabled = serializers.BooleanField()
    failingSince = serializers.DateTimeField(source="failing_since", allow_null=True)
    lastError = serializers.CharField(source="last_error", allow_null=True)
    droppedCount = serializers.IntegerField(source="dropped_count")
    createdAt = serializers.DateTimeField(source="created_at")
    updatedAt = serializers.DateTimeField(source="updated_at")

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


class NoticeSerializer(serializers.Serializer[Any]):
    """A notice with its attempts, the first one first."""

    id = serializers.UUIDField()
    channelId = serializers.UUIDField(source="channel_id")
    event = serializers.CharField()
    incidentId = serializers.UUIDField(source="incident_id", allow_null=True)
    runId = serializers.UUIDField(source="run_id", allow_null=True)
    email = serializers.SerializerMethodField()
    status = serializers.ChoiceField(choices=Notice.Status.choices)
    digestId = serializers.UUIDField(source="digest_id", allow_null=True)
    nextAttemptAt = serializers.DateTimeField(source="next_attempt_at", allow_null=True)
    createdAt = serializers.DateTimeField(source="created_at")
    deliveredAt = serializers.DateTimeField(source="delivered_at", allow_null=True)
    attempts = serializers.SerializerMethodField()

    def get_email(self, notice: Notice) -> str | None:
        return notice.address or None

    @extend_schema_field(AttemptSerializer(many=True))
    def get_attempts(self, notice: Notice) -> Any:
        """Returns the attempts of the notice, the first one first. The view must have prefetched them."""
        attempts = sorted(notice.attempts.all(), key=lambda attempt: attempt.n)
        return AttemptSerializer(attempts, many=True, context={"shows_bodies": True}).data


class NoticeFilters(ApiFilterSet):
    status = WordsFilter(field_name="status", choices=Notice.Status.values)
