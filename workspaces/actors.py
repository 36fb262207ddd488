"""Shows who did something, with the name that the actor has now (SPEC §9)."""

from collections.abc import Iterable
from typing import Any, get_args
from uuid import UUID

from django.apps import apps
from rest_framework import serializers

from pipedai.api.serializers import RowSerializer
from pipedai.events import ActorType

ACTOR_TYPES = get_args(ActorType)
# For each type of actor, the model of its rows and the column that has the name to show. Only ids are stored, so a user
# who was erased has no name.
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
    """Returns actors as dicts for ActorSerializer, by type and id. It takes one query for each type among them that has
    rows.
    """
    keys = set(actors)
    labels: dict[_Key, str] = {("system", None): "system"}
    for actor_type, (model, column) in LABELS.items():
        ids = {actor_id for found, actor_id in keys if found == actor_type and actor_id}
        if ids:
            rows = apps.get_model(model)._default_manager.filter(id__in=ids)
            named = rows.values_list("id", column)
            labels |= {(actor_type, row_id): label for row_id, label in named}
    return {key: {"type": key[0], "id": key[1], "label": labels.get(key)} for key in keys}
