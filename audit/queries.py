"""Reads audit entries together with the names that their actors have now (SPEC §9). The log stores ids only, so a user
who was erased has no name here.
"""

from typing import Any
from uuid import UUID

from accounts.models import User
from audit.models import AuditEntry
from workers.models import Worker
from workspaces.models import ApiKey

# For each type of actor, the model of its rows and the column that has the name to show.
LABELS: dict[str, tuple[Any, str]] = {
    "user": (User, "email"),
    "staff": (User, "email"),
    "api_key": (ApiKey, "name"),
    "worker": (Worker, "label"),
}


def with_actors(entries: list[AuditEntry]) -> list[dict[str, Any]]:
    """Returns the entries as dicts for AuditEntrySerializer. It takes one query for each type of actor among them."""
    labels: dict[tuple[str, UUID | None], str] = {("system", None): "system"}
    for actor_type, (model, column) in LABELS.items():
        ids = {entry.actor_id for entry in entries if entry.actor_type == actor_type}
        if ids - {None}:
            found = model.objects.filter(id__in=ids - {None}).values_list("id", column)
            labels |= {(actor_type, row_id): label for row_id, label in found}
    return [
        {
            **vars(entry),
            "actor": {
                "type": entry.actor_type,
                "id": entry.actor_id,
                "label": labels.get((entry.actor_type, entry.actor_id)),
            },
        }
        for entry in entries
    ]
