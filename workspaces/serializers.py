"""Checks the request bodies about workspaces, environments, members and keys, and renders these and who acted."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

from django.apps import apps
from rest_framework import serializers

from accounts.addresses import DELETED
from accounts.serializers import EmailField, NewEmailField
from pipedai.api.fields import IdField, ListField, NameField, TextField, TrueFalseField
from pipedai.api.serializers import NamedSerializer, RowSerializer, StrictBody
from pipedai.events import ActorType
from workspaces.ceilings import MOST_TIMES, PROFILE
from workspaces.models import ApiKey, Environment, Invitation, Membership, Workspace
from workspaces.roles import KEY_ROLES, Role
from workspaces.tenant_columns import KEY_PATTERN, MAX_KEY, MAX_LABEL

WRK_LIFETIME = timedelta(hours=24)
MAX_WRK_LIFETIME = timedelta(days=30)
# The kinds of API keys that people can make. A `hos_` key is made for a host when it enrolls.
MINTABLE = (ApiKey.Kind.PWK, ApiKey.Kind.WRK)


def check_expires_at(expires_at: datetime | None, *, short_lived: str | None) -> None:
    """Raises a field error for a time past, or, if `short_lived` names the kind of key, over 30 days ahead."""
    now = datetime.now(UTC)
    if expires_at is not None and expires_at <= now:
        raise serializers.ValidationError({"expiresAt": ["Must be in the future."]})
    if short_lived and expires_at is not None and expires_at > now + MAX_WRK_LIFETIME:
        raise serializers.ValidationError(
            {"expiresAt": [f"{short_lived} lives at most {MAX_WRK_LIFETIME.days} days."]}
        )


class KeyField(TextField):
    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if not re.fullmatch(KEY_PATTERN, value):
            raise serializers.ValidationError(
                "Must be lower-case letters, digits, dots, hyphens and underscores, and begin and end with a letter or"
                " digit."
            )
        return value


class FileBody(StrictBody):
    """The body of a request that makes or changes a row which files may describe."""

    key = KeyField(max_length=MAX_KEY, trim_whitespace=False, allow_null=True, default=None)
    managedBy = NameField(max_length=MAX_LABEL, allow_null=True, default=None)
    name = NameField(max_length=200)


class NameBody(StrictBody):
    name = NameField(max_length=200)


class PoolIdsField(ListField):
    """The ids of the pools that a worker joins when it registers with a `wrk_` key, or when its host enrolls with a
    code. `checked_pools` looks at the workspace's ceiling.
    """

    def __init__(self) -> None:
        longest = PROFILE["poolsOfWorker"] * MOST_TIMES
        super().__init__(child=IdField(), required=False, max_length=longest)

    def to_internal_value(self, data: Any) -> list[UUID]:
        return sorted(set(super().to_internal_value(data)))


class EnvironmentBody(StrictBody):
    name = NameField(max_length=200)
    paused = TrueFalseField()
    pauseReason = TextField(max_length=500, allow_null=True)
    cancelHeld = TrueFalseField()


class ApiKeyBody(StrictBody):
    name = NameField(max_length=200)
    prefix = serializers.ChoiceField(source="kind", choices=[kind.value for kind in MINTABLE])
    role = serializers.ChoiceField(choices=[role.value for role in KEY_ROLES], required=False)
    expiresAt = serializers.DateTimeField(required=False, allow_null=True)
    poolIds = PoolIdsField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuses a role or a long life for a `wrk_` key, pools for another key, and an expiry in the past."""
        is_wrk = attrs["kind"] == ApiKey.Kind.WRK
        if not is_wrk and "pool_ids" in attrs:
            raise serializers.ValidationError({"poolIds": ["Only a wrk_ key has pools."]})
        if is_wrk and "role" in attrs:
            raise serializers.ValidationError({"role": ["A wrk_ key has no role."]})
        check_expires_at(attrs.get("expires_at"), short_lived="A wrk_ key" if is_wrk else None)
        return attrs


class RoleField(serializers.ChoiceField):
    def __init__(self, **options: Any) -> None:
        super().__init__(choices=Role.choices, **options)

    def to_internal_value(self, data: Any) -> Role:
        return Role(super().to_internal_value(data))


class MemberBody(StrictBody):
    userId = IdField(required=False)
    email = EmailField(required=False)
    role = RoleField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("user_id" in attrs) == ("email" in attrs):
            raise serializers.ValidationError("Name the user by either userId or email.")
        return attrs


class InvitationBody(StrictBody):
    email = NewEmailField()
    role = RoleField()


class RoleBody(StrictBody):
    role = RoleField()


class MemberSerializer(NamedSerializer):
    """A member of an environment."""

    of = Membership
    shows = "userId email name role createdAt"
    email = serializers.CharField(source="user.email")
    name = serializers.CharField(source="user.name")


class InvitationSerializer(NamedSerializer):
    """An open invitation into an environment."""

    of = Invitation
    shows = "id email role invitedBy createdAt expiresAt"
    invitedBy = serializers.UUIDField(source="invited_by_id")


class NewInvitationSerializer(InvitationSerializer):
    """An invitation that was just made. Its context has the link to hand over, which is shown only once."""

    link = serializers.CharField(read_only=True, allow_null=True)


class AcceptedSerializer(NamedSerializer):
    """The membership of a user who has accepted an invitation."""

    of = Membership
    shows = "environmentId userId role createdAt"


class WorkspaceSerializer(serializers.ModelSerializer[Workspace]):
    """A workspace."""

    createdAt = serializers.DateTimeField(source="created_at")

    class Meta:
        model = Workspace
        fields = ("id", "name", "createdAt")


class EnvironmentSerializer(NamedSerializer):
    """An environment, with the role that the caller has in it."""

    of = Environment
    shows = "id workspaceId name role paused pausedAt pauseReason createdAt"
    role = serializers.ChoiceField(source="caller_role", choices=Role.choices)
    paused = serializers.BooleanField()


class ApiKeySerializer(NamedSerializer):
    """An API key without its token. Only the response that makes a key shows the token, once."""

    of = ApiKey
    shows = (
        "id name prefix lastFour role poolIds createdBy createdAt lastUsedAt expiresAt revokedAt"
        " consumedAt workerId"
    )
    prefix = serializers.ChoiceField(source="kind", choices=ApiKey.Kind.choices)
    role = serializers.ChoiceField(allow_null=True, choices=[role.value for role in KEY_ROLES])
    poolIds = serializers.SerializerMethodField()
    createdBy = serializers.UUIDField(source="created_by_id", allow_null=True)
    workerId = serializers.UUIDField(source="consumed_by", allow_null=True)

    def get_poolIds(self, key: ApiKey) -> list[UUID]:  # noqa: N802
        """The ids of the pools that the worker joins which registers with the key; empty for other kinds of keys."""
        return key.pool_ids or []


class MintedApiKeySerializer(ApiKeySerializer):
    """A new key with its token, which is shown this once."""

    token = serializers.CharField()


ACTOR_TYPES = get_args(ActorType)
# For each type of actor, its model and the column with the name to show. The log stores only ids, so a user who was
# erased has no name.
LABELS: dict[str, tuple[str, str]] = {
    "user": ("accounts.User", "email"),
    "staff": ("accounts.User", "email"),
    "api_key": ("workspaces.ApiKey", "name"),
    "worker": ("workers.Worker", "label"),
}

# The type and the id of an actor, as `pipedai.events.Actor` has them.
_Key = tuple[str, UUID | None]


class ActorSerializer(RowSerializer):
    """Who did something."""

    type = serializers.ChoiceField(choices=ACTOR_TYPES)
    id = serializers.UUIDField(allow_null=True)
    label = serializers.CharField(allow_null=True)  # type: ignore[assignment]


def actors_shown(actors: Iterable[_Key]) -> dict[_Key, dict[str, Any]]:
    """Returns actors as dicts for ActorSerializer, by type and id. It runs one query for each type that has a table."""
    keys = set(actors)
    labels: dict[_Key, str] = {("system", None): "system"}
    for actor_type, (model, column) in LABELS.items():
        ids = {actor_id for found, actor_id in keys if found == actor_type and actor_id}
        if ids:
            rows = apps.get_model(model)._default_manager.filter(id__in=ids)
            named = rows.values_list("id", column)
            labels |= {
                (actor_type, row_id): "deleted user" if (label or "").endswith(DELETED) else label
                for row_id, label in named
            }
    return {key: {"type": key[0], "id": key[1], "label": labels.get(key)} for key in keys}
