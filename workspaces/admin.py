"""The admin pages of workspaces, environments, their members, invitations, keys and connections."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib.admin import register
from django.db.models import Exists, OuterRef
from django.utils.html import format_html_join
from django.utils.text import capfirst

from accounts.models import User
from pipedai.admin.base import OF_CUSTOMERS, StaffModelAdmin, SupportAction
from pipedai.admin.columns import link, newest
from pipedai.admin.site import list_of, model_named, site
from pipedai.events import Actor
from workspaces import models
from workspaces.api_keys import revoke_api_key
from workspaces.ceilings import MOST_TIMES, PROFILE, RAISABLE, most, raise_ceilings
from workspaces.models import ApiKey, Environment, Membership, Workspace
from workspaces.roles import Role
from workspaces.services import update_environment

# The lookups by which the rows of an environment are found: parts of names, or the e-mail address of a member.
BY_PLACE = ("environment__name", "environment__workspace__name")
BY_MEMBER = ("environment__memberships__user",)


def _go_to(membership: Membership) -> Any:
    """Links to the lists that answer most questions about an environment."""
    found = map(model_named, ("trigger", "run", "worker", "incident"))
    lists = [(list_of(each, environment=membership.environment_id), each) for each in found]
    links = ((link(href, capfirst(str(each._meta.verbose_name_plural))),) for href, each in lists)
    return format_html_join(" ", "{}", links)


class PauseForm(forms.Form):
    pause_reason = forms.CharField(
        label="Reason", max_length=500, help_text="The environment's members read it."
    )
    cancel_held = forms.BooleanField(label="Cancel the runs that workers hold", required=False)

    def __init__(self, environment: Environment, posted: Mapping[str, Any] | None) -> None:
        super().__init__(posted)


class CeilingsForm(forms.Form):
    """Asks for each of a workspace's ceilings. Only changed fields are saved, so that a page that was opened long ago
    does not undo what another member of staff has raised since.
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
    list_display = ("name", "workspace", "paused_at", "created_at", "deleted_at")
    search_fields = ("name", "workspace__name", "workers__hostname")
    found_by_user = ("memberships__user",)
    looks_through = OF_CUSTOMERS
    support = {
        "pause": SupportAction(
            "Pause the environment",
            "Its workers are given no run, nobody can start one, and its schedules make none, until it is resumed. What"
            " is queued waits.",
            lambda environment, actor, **why: _update(environment, actor, paused=True, **why),
            lambda environment: not (environment.deleted_at or environment.paused), PauseForm,
        ),
        "resume": SupportAction(
            "Resume the environment",
            "Its workers get runs again, what has waited for them first, and its schedules make runs from now on. Due"
            " times of the pause are not made up for.",
            lambda environment, actor: _update(environment, actor, paused=False),
            lambda environment: environment.deleted_at is None and environment.paused,
        ),
    }  # fmt: skip


@register(Workspace, site=site)
class WorkspaceAdmin(StaffModelAdmin):
    named_by = "name"
    list_display = ("name", "created_by", "created_at")
    search_fields = ("name",)
    found_by_user = ("created_by",)
    looks_through = OF_CUSTOMERS
    support = {
        "ceilings": SupportAction(
            "Raise ceilings",
            f"What the workspace, each of its environments and each of its users may have. The least is what others"
            f" have, and the most is {MOST_TIMES} times as much. More rows make lists and counts slower.",
            lambda workspace, actor, **ceilings: raise_ceilings(
                workspace_id=workspace.id, ceilings=ceilings, actor=actor
            ),
            form=CeilingsForm,
        ),
    }  # fmt: skip


site.register(models.Invitation, StaffModelAdmin, search_fields=("email",))


site.register(
    Membership, StaffModelAdmin, found_by_user=("user",), looks_through=OF_CUSTOMERS,
    list_display=("id", "user", "environment", "environment__workspace", "role", "created_at"),
    search_fields=("user__email", "user__name", *BY_PLACE, "environment__workers__hostname"),
)  # fmt: skip


def _role(membership: Any) -> str:
    """Shows the role, whether the user is the only owner, and whether that owner can't log in any more."""
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
        ("Go to", _go_to, ("environment",)),
    ),
    by="user", order=("-id",), others=Exists(_OTHER_OWNERS),
)  # fmt: skip
# The app `accounts` must not import this one, so this app adds the panel to the page of users.
_users: Any = site.get_model_admin(User)
_users.panels = (_OF_USER, *_users.panels)


@register(ApiKey, site=site)
class ApiKeyAdmin(StaffModelAdmin):
    named_by = "name"
    list_display = (
        "name", "kind", "last_four", "role", "environment", "last_used_at", "created_at", "expires_at",
        "consumed_at", "revoked_at",
    )  # fmt: skip
    search_fields = ("name",)
    support = {
        "revoke": SupportAction(
            "Revoke the key",
            "The key is dead at once, everywhere, for good, and with it the unused tokens that it minted. Workers that"
            " it registered or brought in live on.",
            lambda key, actor: revoke_api_key(environment_id=key.environment_id, key_id=key.id, actor=actor),
            lambda key: key.revoked_at is None,
        ),
    }  # fmt: skip


# Keys are bytes, so pages show only their ids and dates. `manage.py rotate_keys --data` continues a rotation.
site.register((models.DataKey, models.DataKeyRotation), StaffModelAdmin)
site.register(
    models.Connection, StaffModelAdmin, named_by="name", search_fields=("name",), looks_through=OF_CUSTOMERS,
    list_display=("name", "status", "error", "mcp_url", "grant_type", "environment", "created_at"),
)  # fmt: skip
