"""Django admin's pages of API keys, where staff can revoke them."""

from typing import Any

from django.contrib.admin import display, register
from django.utils import timezone

from accounts.models import User
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Panel
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import ident, link_to, moment, state, text
from workspaces.api_keys import revoke_api_key
from workspaces.models import ApiKey, Environment


@register(ApiKey, site=site)
class ApiKeyAdmin(StaffModelAdmin):
    """Shows all API keys: those of external systems, those of hosts, and those with which workers register."""

    icon = "vpn_key"
    when_empty = "Nobody has minted an API key yet."
    list_display = (
        "name",
        "shown_token",
        "role",
        "shown_state",
        "in_environment",
        "used",
        "created",
    )
    list_filter = ("kind", related("environment", Environment))
    list_reads = (
        "id", "name", "kind", "last_four", "role", "created_at", "last_used_at", "expires_at", "revoked_at",
        "consumed_at", "environment__name",
    )  # fmt: skip
    list_select_related = ("environment",)
    searched_text = {"name": "name"}
    scopes = (Scope(("environment",), ("created_at", "id")),)
    story_joins = ("environment", "created_by")
    never_read = ("token_digest", "created_by__password")
    support = (
        SupportAction(
            "revoke",
            "Revoke the key",
            "The key is dead at once, everywhere, for good, and with it the unused tokens that it minted. Workers that"
            " it registered or brought in live on.",
            "The key is revoked.",
            applies=lambda key: key.revoked_at is None,
            perform=lambda key, actor: revoke_api_key(
                environment_id=key.environment_id, key_id=key.id, actor=actor
            ),
            is_harsh=True,
        ),
    )

    @display(description="Token")
    def shown_token(self, key: ApiKey) -> str:
        """Shows the token's prefix and last four characters. The rest of the token is stored nowhere."""
        return f"{key.kind}_…{key.last_four}"

    @display(description="State")
    def shown_state(self, key: ApiKey) -> Any:
        """Shows whether the key still works, and if not, why."""
        if key.revoked_at:
            return state("revoked")
        if key.consumed_at:
            return state("consumed")
        has_expired = key.expires_at is not None and key.expires_at <= timezone.now()
        return state("expired" if has_expired else "active")

    @display(description="Environment")
    def in_environment(self, key: ApiKey) -> Any:
        return link_to(Environment, key.environment_id, key.environment.name)

    @display(description="Last used")
    def used(self, key: ApiKey) -> Any:
        return moment(key.last_used_at)

    @display(description="Created")
    def created(self, key: ApiKey) -> Any:
        return moment(key.created_at)

    def title_of(self, row: ApiKey) -> str:
        return row.name

    def story(self, row: ApiKey) -> list[Panel]:
        """Returns the panels of a key's page. They have neither its token, which is stored nowhere, nor the token's
        digest.
        """
        creator = row.created_by and link_to(User, row.created_by_id, row.created_by.email)
        return [
            Facts(
                "Key",
                [
                    ("Name", row.name),
                    ("State", self.shown_state(row)),
                    ("Token", self.shown_token(row)),
                    ("Role", text(row.role)),
                    ("Environment", self.in_environment(row)),
                    ("Created by", creator or text(None)),
                    ("Minted by the key", link_to(ApiKey, row.parent_id)),
                    ("Created", self.created(row)),
                    ("Last used", self.used(row)),
                    ("Expires", moment(row.expires_at)),
                    ("Revoked", moment(row.revoked_at)),
                    ("Registered a worker", moment(row.consumed_at)),
                    ("The worker", ident(row.consumed_by)),
                    ("Id", ident(row.id)),
                ],
            )
        ]
