"""The admin pages of workspaces, environments, their members, invitations, keys and connections."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib.admin import register
from django.db.models import Exists, OuterRef
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.text import capfirst

from accounts.models import User
from pipedai.admin.base import OF_CUSTOMERS, StaffModelAdmin
from pipedai.admin.columns import newest
from pipedai.admin.site import model_named, site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import link, list_of
from pipedai.events import Actor
from workspaces.api_keys import revoke_api_key
from workspaces.ceilings import MOST_TIMES, PROFILE, RAISABLE, most, raise_ceilings
from workspaces.models import (
    ApiKey,
    Connection,
    DataKey,
    DataKeyRotation,
    Environment,
    Invitation,
    Membership,
    Workspace,
)
from workspaces.roles import Role
from workspaces.services import update_environment

# How the rows of an environment are found: by parts of names, and by the address of a member.
BY_PLACE = (
    "environment__name",
    "environment__workspace__name",
    "environment__memberships__user__email",
)
_SHORTCUTS = ("trigger", "run", "worker", "incident")


def _go_to(environment_id: Any) -> Any:
    """Links to the lists that answer most questions about an environment."""
    models = map(model_named, _SHORTCUTS)
    links = (
        (link(list_of(each, environment=environment_id), capfirst(str(each._meta.verbose_name_plural))),)
        for each in models
    )  # fmt: skip
    return format_html_join(" ", "{}", links)


class PauseForm(forms.Form):
    pause_reason = forms.CharField(
        label="Reason", max_length=500, help_text="The environment's members read it."
    )
    cancel_held = forms.BooleanField(label="Cancel the runs that workers hold", required=False)

    def __init__(self, environment: Environment, posted: Mapping[str, Any] | None) -> None:
        super().__init__(posted)


class CeilingsForm(forms.Form):
    """Asks for each of a workspace's ceilings. Only those that were changed are set, so that a page that has stood open
    does not undo what somebody else has raised meanwhile.
    """

    def __init__(self, workspace: Workspace, posted: Mapping[str, Any] | None) -> None:
        super().__init__(posted)
        for name in RAISABLE:
            self.fields[name] = forms.IntegerField(
                label=name, initial=most(name, workspace.ceilings), min_value=PROFILE[name],
                max_value=PROFILE[name] * MOST_TIMES, show_hidden_initial=True,
            )  # fmt: skip

    def clean(self) -> dict[str, int]:
        return {name: n for name, n in self.cleaned_data.items() if name in self.changed_data}


def _update(environment: Environment, actor: Actor, **values: Any) -> None:
    update_environment(environment_id=environment.id, values=values, actor=actor)


@register(Environment, site=site)
class EnvironmentAdmin(StaffModelAdmin):
    named_by = "name"
    list_display = ("name", "workspace", "state", "created_at", "go_to")
    list_filter = ("workspace",)
    search_fields = ("name", "workspace__name", "memberships__user__email", "workers__hostname")
    looks_through = OF_CUSTOMERS
    indexes = {("workspace",): "id"}
    reads = ("paused_at", "deleted_at")
    support = (
        SupportAction(
            "pause", "Pause the environment",
            "Its workers are given no run, nobody can start one, and its schedules make none, until it is resumed. What"
            " is queued waits.",
            "The environment is paused.",
            applies=lambda environment: not (environment.deleted_at or environment.paused),
            perform=lambda environment, actor, **why: _update(environment, actor, paused=True, **why), form=PauseForm,
        ),
        SupportAction(
            "resume", "Resume the environment",
            "Its workers get runs again, what has waited for them first, and its schedules make runs from now on. Due"
            " times of the pause are not made up for.",
            "The environment is resumed.",
            applies=lambda environment: environment.deleted_at is None and environment.paused,
            perform=lambda environment, actor: _update(environment, actor, paused=False),
        ),
    )  # fmt: skip

    def state(self, environment: Environment) -> str:
        if environment.deleted_at:
            return "deleted"
        return "paused" if environment.paused_at else "active"

    def go_to(self, environment: Environment) -> Any:
        return _go_to(environment.id)


@register(Workspace, site=site)
class WorkspaceAdmin(StaffModelAdmin):
    named_by = "name"
    list_display = ("name", "created_by", "created_at")
    list_filter = ("created_by",)
    search_fields = ("name", "created_by__email")
    looks_through = OF_CUSTOMERS
    support = (
        SupportAction(
            "ceilings", "Raise ceilings",
            f"What the workspace, each of its environments and each of its users may have. The least is what others"
            f" have, and the most is {MOST_TIMES} times as much. More rows make lists and counts slower.",
            "The ceilings are set.", applies=bool,
            perform=lambda workspace, actor, **ceilings: raise_ceilings(
                workspace_id=workspace.id, ceilings=ceilings, actor=actor
            ),
            form=CeilingsForm,
        ),
    )  # fmt: skip


@register(Invitation, site=site)
class InvitationAdmin(StaffModelAdmin):
    list_display = ("id", "email", "environment", "role", "created_at", "accepted_at", "revoked_at")
    list_filter = ("role", "environment")
    search_fields = ("email",)


@register(Membership, site=site)
class MembershipAdmin(StaffModelAdmin):
    list_display = (
        "id",
        "user",
        "environment",
        "environment__workspace",
        "role",
        "created_at",
        "go_to",
    )
    list_filter = ("role", "environment", "user")
    search_fields = ("user__email", "user__name", *BY_PLACE[:2], "environment__workers__hostname")
    looks_through = OF_CUSTOMERS
    indexes = {("user",): "id", ("environment",): "id"}

    def go_to(self, membership: Membership) -> Any:
        return _go_to(membership.environment_id)


def _role(membership: Any) -> str:
    """Shows the role. If the user is the only owner, it says so, and whether they can't log in any more."""
    if membership.role != Role.OWNER or membership.others:
        return str(membership.role)
    can_log_in = membership.user.is_active
    return f"{membership.role}, the only one{'' if can_log_in else ', who can log in no more'}"


_OTHER_OWNERS = Membership.objects.filter(
    environment=OuterRef("environment"), role=Role.OWNER
).exclude(id=OuterRef("id"))
_OF_USER = newest(
    "Member of", Membership,
    (
        "environment", "environment__workspace", "environment__deleted_at",
        ("Role", _role, ("role", "user__is_active")), "created_at",
        ("Go to", lambda row: _go_to(row.environment_id), ("environment",)),
    ),
    by="user", order=("-id",), others=Exists(_OTHER_OWNERS),
)  # fmt: skip
# The app of users must not import this one, so this one adds the panel to their page.
_users: Any = site.get_model_admin(User)
_users.panels = (_OF_USER, *_users.panels)


@register(ApiKey, site=site)
class ApiKeyAdmin(StaffModelAdmin):
    named_by = "name"
    list_display = ("name", "token", "role", "state", "environment", "last_used_at", "created_at")
    list_filter = ("kind", "environment", "parent")
    search_fields = ("name",)
    indexes = {("environment",): "created_at", ("parent",): "id"}
    reads = ("kind", "last_four", "revoked_at", "consumed_at", "expires_at")
    support = (
        SupportAction(
            "revoke", "Revoke the key",
            "The key is dead at once, everywhere, for good, and with it the unused tokens that it minted. Workers that"
            " it registered or brought in live on.",
            "The key is revoked.", applies=lambda key: key.revoked_at is None,
            perform=lambda key, actor: revoke_api_key(environment_id=key.environment_id, key_id=key.id, actor=actor),
        ),
    )  # fmt: skip

    def token(self, key: ApiKey) -> str:
        """Shows the token's prefix and last four characters. The rest of the token is stored nowhere."""
        return f"{key.kind}_…{key.last_four}"

    def state(self, key: ApiKey) -> str:
        if key.revoked_at:
            return "revoked"
        if key.consumed_at:
            return "consumed"
        has_expired = key.expires_at is not None and key.expires_at <= timezone.now()
        return "expired" if has_expired else "active"


@register(DataKey, site=site)
class DataKeyAdmin(StaffModelAdmin):
    """Shows ids and dates of data keys, never the keys themselves."""

    list_display = ("id", "environment", "master_key_id", "created_at", "retired_at")
    list_filter = ("environment",)


@register(DataKeyRotation, site=site)
class DataKeyRotationAdmin(StaffModelAdmin):
    """A rotation that was interrupted; `manage.py rotate_keys --data` goes on with it."""

    list_display = ("id", "started_at", "environment")


@register(Connection, site=site)
class ConnectionAdmin(StaffModelAdmin):
    named_by = "name"
    list_display = ("name", "status", "error", "mcp_url", "grant_type", "environment", "created_at")
    list_filter = ("status", "grant_type", "environment")
    looks_through = OF_CUSTOMERS
    search_fields = ("name",)
    indexes = {("environment",): "created_at"}
