"""Checks the bodies of requests about sources, and renders sources and events for the API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.fields import (
    ListField,
    NameField,
    PatternField,
    SigningSecretField,
    TextField,
    TrueFalseField,
)
from pipedai.api.serializers import RowSerializer, StrictBody
from pipedai.server.request_scope import HOOKS
from triggers.states import EventDecided, Scheme
from workspaces.tenant_columns import KeyField, LabelField

# The characters of a header's name that every proxy passes on.
_HEADER = r"^[A-Za-z0-9-]{1,100}$"


class HmacBody(StrictBody):
    """Where a sender of the scheme `hmac` puts its signature."""

    keeps_names = True

    header = PatternField(_HEADER)
    prefix = TextField(max_length=40, allow_blank=True, trim_whitespace=False, default="")
    timestampHeader = PatternField(_HEADER, allow_null=True, default=None)


class SourceBody(StrictBody):
    key = KeyField()
    managedBy = LabelField()
    name = NameField(max_length=200)
    scheme = serializers.ChoiceField(choices=Scheme.choices)
    secrets = ListField(
        child=TextField(
            min_length=SigningSecretField.MIN_LENGTH, max_length=1024, trim_whitespace=False
        ),
        min_length=1,
        max_length=2,
    )
    hmac = HmacBody(required=False, allow_null=True)
    enabled = TrueFalseField(required=False)


class SourceSerializer(RowSerializer):
    """A source, without its secrets."""

    id = serializers.UUIDField()
    key = serializers.CharField(allow_null=True)
    managedBy = serializers.CharField(source="managed_by", allow_null=True)
    environmentId = serializers.UUIDField(source="environment_id")
    name = serializers.CharField()
    scheme = serializers.ChoiceField(choices=Scheme.choices)
    hmac = serializers.SerializerMethodField()
    enabled = serializers.BooleanField()
    url = serializers.SerializerMethodField()
    lastEventAt = serializers.DateTimeField(source="last_event_at", allow_null=True)
    createdAt = serializers.DateTimeField(source="created_at")
    updatedAt = serializers.DateTimeField(source="updated_at")

    @extend_schema_field(HmacBody(allow_null=True))
    def get_hmac(self, source: dict[str, Any]) -> Any:
        return source["hmac"]

    def get_url(self, source: dict[str, Any]) -> str:
        """The path, below the service's own address, to which the source sends its events."""
        return f"{HOOKS}{source['id']}"


class DecisionSerializer(RowSerializer):
    """What was decided about an event for a trigger that listens to its source."""

    triggerId = serializers.UUIDField(source="trigger_id")
    triggerName = serializers.CharField(source="trigger__name")
    decision = serializers.ChoiceField(choices=EventDecided.choices)
    code = serializers.CharField(allow_null=True)
    clause = serializers.JSONField(allow_null=True)
    runId = serializers.UUIDField(source="run_id", allow_null=True)


class EventSerializer(RowSerializer):
    """An event and its decisions."""

    id = serializers.UUIDField()
    eventId = serializers.CharField(source="given_id", allow_null=True)
    type = serializers.CharField(allow_null=True)
    receivedAt = serializers.DateTimeField(source="received_at")
    duplicates = serializers.IntegerField()
    replayOf = serializers.UUIDField(source="replay_of_id", allow_null=True)
    environmentId = serializers.UUIDField(source="environment_id")
    sourceId = serializers.UUIDField(source="source_id", allow_null=True)
    runId = serializers.UUIDField(source="run_id", allow_null=True)
    decisions = DecisionSerializer(many=True)


class EventDetailSerializer(EventSerializer):
    """A single event with its body."""

    body = serializers.JSONField(allow_null=True)
