"""How staff see workspaces, environments, their members and their keys."""

from typing import Any

from django.contrib.admin import display, register
from django.utils import timezone
from django.utils.text import capfirst

from accounts.models import User
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Links, Panel, Table
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import ident, link_to, list_of, moment, state, text
from workspaces.models import ApiKey, DataKey, DataKeyRotation, Environment, Membership, Workspace
from workspaces.services import revoke_api_key

_SHOWN_MEMBERS = 50


@register(Workspace, site=site)
class WorkspaceAdmin(StaffModelAdmin):
    """Customer accounts."""

    icon = "apartment"
    list_display = ("name", "creator", "created")
    list_reads = ("id", "name", "created_at", "created_by__email")
    list_select_related = ("created_by",)
    searched_text = ("name",)
    story_joins = ("created_by",)
    never_read = ("created_by__password",)

    @display(description="Created by")
    def creator(self, workspace: Workspace) -> Any:
        """Who made it."""
        return link_to(User, workspace.created_by_id, workspace.created_by.email)

    @display(description="Created")
    def created(self, workspace: Workspace) -> Any:
        """When."""
        return moment(workspace.created_at)

    def title_of(self, row: Workspace) -> str:
        """Its name."""
        return row.name

    def story(self, row: Workspace) -> list[Panel]:
        """The account and its environments."""
        environments = row.environments.order_by("-id")[:100]
        return [
            Facts(
                "Workspace",
                [
                    ("Name", row.name),
                    ("Created by", self.creator(row)),
                    ("Created", self.created(row)),
                    ("Id", ident(row.id)),
                ],
            ),
            Table(
                "Environments",
                ("Name", "Created", "Deleted"),
                [
                    (
                        link_to(Environment, each.id, each.name),
                        moment(each.created_at),
                        moment(each.deleted_at),
                    )
                    for each in environments
                ],
                more=list_of(Environment, workspace=row.id),
            ),
        ]


@register(Environment, site=site)
class EnvironmentAdmin(StaffModelAdmin):
    """The tenancy boundary."""

    icon = "deployed_code"
    list_display = ("name", "in_workspace", "created", "deleted")
    list_filter = (related("workspace", Workspace),)
    list_reads = ("id", "name", "created_at", "deleted_at", "workspace__name")
    list_select_related = ("workspace",)
    searched_text = ("name",)
    story_joins = ("workspace",)

    @display(description="Workspace")
    def in_workspace(self, environment: Environment) -> Any:
        """The account."""
        return link_to(Workspace, environment.workspace_id, environment.workspace.name)

    @display(description="Created")
    def created(self, environment: Environment) -> Any:
        """When."""
        return moment(environment.created_at)

    @display(description="Deleted")
    def deleted(self, environment: Environment) -> Any:
        """When it was deleted."""
        return moment(environment.deleted_at)

    def title_of(self, row: Environment) -> str:
        """Its name, in its workspace."""
        return f"{row.name} of {row.workspace.name}"

    def story(self, row: Environment) -> list[Panel]:
        """The environment, its members, and the way to all that it holds."""
        members = row.memberships.select_related("user").defer("user__password")
        return [
            Facts(
                "Environment",
                [
                    ("Name", row.name),
                    ("Workspace", self.in_workspace(row)),
                    ("Created", self.created(row)),
                    ("Deleted", self.deleted(row)),
                    ("Id", ident(row.id)),
                ],
            ),
            Links("What it holds", _holdings(row)),
            Table(
                "Members",
                ("User", "Name", "Role", "Since"),
                [
                    (
                        link_to(User, each.user_id, each.user.email),
                        text(each.user.name),
                        each.role,
                        moment(each.created_at),
                    )
                    for each in members.order_by("-id")[:_SHOWN_MEMBERS]
                ],
                more=list_of(Membership, environment=row.id),
            ),
        ]


@register(Membership, site=site)
class MembershipAdmin(StaffModelAdmin):
    """Who is in which environment. Roles are changed by the environment's own people."""

    icon = "group"
    list_display = ("member", "in_environment", "role", "since")
    list_filter = ("role", related("environment", Environment), related("user", User))
    list_reads = ("id", "role", "created_at", "user__email", "environment__name")
    list_select_related = ("user", "environment")
    story_joins = ("user", "environment")
    never_read = ("user__password",)

    @display(description="User")
    def member(self, membership: Membership) -> Any:
        """Who."""
        return link_to(User, membership.user_id, membership.user.email)

    @display(description="Environment")
    def in_environment(self, membership: Membership) -> Any:
        """Where."""
        return link_to(Environment, membership.environment_id, membership.environment.name)

    @display(description="Since")
    def since(self, membership: Membership) -> Any:
        """When it began."""
        return moment(membership.created_at)

    def story(self, row: Membership) -> list[Panel]:
        """The membership."""
        return [
            Facts(
                "Membership",
                [
                    ("User", self.member(row)),
                    ("Environment", self.in_environment(row)),
                    ("Role", row.role),
                    ("Since", self.since(row)),
                    ("Id", ident(row.id)),
                ],
            )
        ]


@register(ApiKey, site=site)
class ApiKeyAdmin(StaffModelAdmin):
    """Keys of external systems, and those that register workers."""

    icon = "vpn_key"
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
    searched_text = ("name",)
    scopes = (Scope(("environment",), ("created_at", "id")),)
    story_joins = ("environment", "created_by")
    never_read = ("token_digest", "created_by__password")
    support = (
        SupportAction(
            "revoke",
            "Revoke the key",
            "The key is dead at once, everywhere, for good. A worker that it registered lives on.",
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
        """As much of it as is known."""
        return f"{key.kind}_…{key.last_four}"

    @display(description="State")
    def shown_state(self, key: ApiKey) -> Any:
        """Whether it opens anything."""
        if key.revoked_at:
            return state("revoked")
        if key.consumed_at:
            return state("consumed")
        has_expired = key.expires_at is not None and key.expires_at <= timezone.now()
        return state("expired" if has_expired else "active")

    @display(description="Environment")
    def in_environment(self, key: ApiKey) -> Any:
        """Where."""
        return link_to(Environment, key.environment_id, key.environment.name)

    @display(description="Last used")
    def used(self, key: ApiKey) -> Any:
        """When."""
        return moment(key.last_used_at)

    @display(description="Created")
    def created(self, key: ApiKey) -> Any:
        """When."""
        return moment(key.created_at)

    def title_of(self, row: ApiKey) -> str:
        """Its name."""
        return row.name

    def story(self, row: ApiKey) -> list[Panel]:
        """The key; not its token, which is stored nowhere, nor its digest."""
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


@register(DataKey, site=site)
class DataKeyAdmin(StaffModelAdmin):
    """Which keys seal the environments' secrets; never the keys."""

    icon = "encrypted"
    list_display = ("shown_id", "in_environment", "master_key_id", "created", "retired")
    list_filter = (related("environment", Environment),)
    list_reads = ("id", "master_key_id", "created_at", "retired_at", "environment__name")
    list_select_related = ("environment",)
    story_joins = ("environment",)
    never_read = ("wrapped",)

    @display(description="Id")
    def shown_id(self, key: DataKey) -> Any:
        """Its id."""
        return ident(key.id)

    @display(description="Environment")
    def in_environment(self, key: DataKey) -> Any:
        """Whose it is."""
        return link_to(Environment, key.environment_id, key.environment.name)

    @display(description="Created")
    def created(self, key: DataKey) -> Any:
        """When."""
        return moment(key.created_at)

    @display(description="Retired")
    def retired(self, key: DataKey) -> Any:
        """When another took its place."""
        return moment(key.retired_at)

    def story(self, row: DataKey) -> list[Panel]:
        """Where it is used, and what it lies under."""
        return [
            Facts(
                "Data key",
                [
                    ("Environment", self.in_environment(row)),
                    ("Wrapped under the master key", row.master_key_id),
                    ("Created", self.created(row)),
                    ("Retired", self.retired(row)),
                    ("Id", ident(row.id)),
                ],
            )
        ]


@register(DataKeyRotation, site=site)
class DataKeyRotationAdmin(StaffModelAdmin):
    """Rotations of data keys that are under way, or were cut off."""

    icon = "autorenew"
    list_display = ("started", "of_environment")

    @display(description="Begun")
    def started(self, rotation: DataKeyRotation) -> Any:
        """When."""
        return moment(rotation.started_at)

    @display(description="Environment")
    def of_environment(self, rotation: DataKeyRotation) -> Any:
        """Whose keys it replaces."""
        return link_to(Environment, rotation.environment_id) if rotation.environment_id else "all"

    def story(self, row: DataKeyRotation) -> list[Panel]:
        """How to go on with it."""
        return [
            Facts(
                "Rotation",
                [
                    ("Begun", self.started(row)),
                    ("Environment", self.of_environment(row)),
                    ("Goes on with", "manage.py rotate_keys --data"),
                    ("Id", ident(row.id)),
                ],
            )
        ]


def _holdings(environment: Environment) -> list[tuple[str, str]]:
    """The lists of all apps' rows that can be narrowed to an environment."""
    return [
        (capfirst(str(model._meta.verbose_name_plural)), list_of(model, environment=environment.id))
        for model, admin in site._registry.items()
        if "environment" in (getattr(each, "name", "") for each in admin.list_filter)
    ]
