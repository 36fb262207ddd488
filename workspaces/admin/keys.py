from typing import Any

from django.contrib.admin import register
from django.utils import timezone

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.fields import itself, link, of_row
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import link_to, state
from workspaces.api_keys import revoke_api_key
from workspaces.models import ApiKey, DataKey, DataKeyRotation, Environment


def _state(key: ApiKey) -> Any:
    """Shows whether the key still works, and if not, why."""
    if key.revoked_at:
        return state("revoked")
    if key.consumed_at:
        return state("consumed")
    has_expired = key.expires_at is not None and key.expires_at <= timezone.now()
    return state("expired" if has_expired else "active")


@register(ApiKey, site=site)
class ApiKeyAdmin(StaffModelAdmin):
    icon = "vpn_key"
    group = "People"
    when_empty = "Nobody has minted an API key yet."
    named_by = "name"
    columns = ("name", "Token", "role", "State", "environment", "last_used_at", "created_at")
    list_filter = ("kind", "environment")
    searched_text = {"name": "name"}
    scopes = (Scope(("environment",), ("created_at", "id")),)
    facts = (
        "name",
        ("State", of_row(_state, "revoked_at", "consumed_at", "expires_at")),
        # The token's prefix and last four characters. The rest of the token is stored nowhere.
        ("Token", of_row(lambda key: f"{key.kind}_…{key.last_four}", "kind", "last_four")),
        "role", "environment", "created_by", ("Acts for who made it", "is_login"),
        ("Minted by the key", link("parent_id", ApiKey)), "created_at",
        "last_used_at", ("Expires", "expires_at"), "revoked_at", ("Registered a worker", "consumed_at"),
        ("The worker", "consumed_by"), ("The worker joins the pools", "pool_ids"), "id",
    )  # fmt: skip
    support = (
        SupportAction(
            "revoke", "Revoke the key",
            "The key is dead at once, everywhere, for good, and with it the unused tokens that it minted. Workers that"
            " it registered or brought in live on.",
            "The key is revoked.", applies=lambda key: key.revoked_at is None,
            perform=lambda key, actor: revoke_api_key(environment_id=key.environment_id, key_id=key.id, actor=actor),
            is_harsh=True,
        ),
    )  # fmt: skip


@register(DataKey, site=site)
class DataKeyAdmin(StaffModelAdmin):
    """Shows ids and dates of data keys, never the keys themselves."""

    icon = "encrypted"
    group = "Service"
    when_empty = "There is no environment yet, so there is no data key."
    columns = (("Id", itself()), "environment", "master_key_id", "created_at", "retired_at")
    list_filter = ("environment",)
    facts = (
        "environment", ("Wrapped under the master key", "master_key_id"), "created_at", "retired_at", "id",
    )  # fmt: skip


def _rotated(rotation: DataKeyRotation) -> Any:
    return link_to(Environment, rotation.environment_id) if rotation.environment_id else "all"


@register(DataKeyRotation, site=site)
class DataKeyRotationAdmin(StaffModelAdmin):
    icon = "autorenew"
    group = "Service"
    when_empty = "No data key has been rotated yet."
    columns = ("Begun", "Environment")
    facts = (
        ("Begun", "started_at"),
        ("Environment", of_row(_rotated, "environment_id")),
        ("Goes on with", of_row(lambda _: "manage.py rotate_keys --data")),
        "id",
    )
