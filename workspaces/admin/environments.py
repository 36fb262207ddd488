"""The admin pages of workspaces, environments, members and invitations."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from django import forms
from django.contrib.admin import register
from django.db.models import Exists, OuterRef
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from accounts.models import User
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import LOOKS_THROUGH_CUSTOMERS, Scope
from pipedai.admin.fields import itself, of_row, state_of
from pipedai.admin.panels import Drawn, Links, Related, add_to_page_of
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import link_to, links, list_of, state, two_lines
from pipedai.events import Actor
from workspaces.ceilings import MOST_TIMES, PROFILE, RAISABLE, most, raise_ceilings
from workspaces.invitations import IS_OPEN
from workspaces.models import Environment, Invitation, Membership, Workspace
from workspaces.roles import Role
from workspaces.services import update_environment

# How the rows of an environment are found: by parts of names, and by the address of a member.
BY_PLACE = {"environment__name": "environment", "environment__workspace__name": "workspace"}
BY_MEMBER = ("environment__memberships__user", "member's e-mail address")


def shortcuts(environment_id: UUID) -> SafeString:
    return links(_lists(environment_id, lambda admin: admin.is_shortcut))


def _lists(environment_id: UUID, wanted: Callable[[Any], bool]) -> list[tuple[str, str]]:
    return [
        (capfirst(str(model._meta.verbose_name_plural)), list_of(model, environment=environment_id))
        for model, admin in site._registry.items()
        if wanted(admin)
    ]


def _holdings(environment: Environment, _: HttpRequest) -> list[Drawn]:
    """Returns the panel with links to all lists that can be filtered by environment."""
    lists = _lists(environment.id, lambda admin: "environment" in admin.related_filters)
    return [Links("What it holds", lists)]


class PauseForm(forms.Form):
    pause_reason = forms.CharField(
        label="Reason", max_length=500, help_text="The environment's members read it.",
        widget=UnfoldAdminTextInputWidget({"autocomplete": "off", "autofocus": True}),
    )  # fmt: skip
    cancel_held = forms.BooleanField(
        label="Cancel the runs that workers hold", required=False, widget=UnfoldBooleanWidget
    )

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
                max_value=PROFILE[name] * MOST_TIMES, widget=UnfoldAdminIntegerFieldWidget, show_hidden_initial=True,
            )  # fmt: skip

    def clean(self) -> dict[str, int]:
        return {name: n for name, n in self.cleaned_data.items() if name in self.changed_data}


def _ceilings(workspace: Workspace) -> str:
    raised = (f"{name} {number:,}" for name, number in workspace.ceilings.items())
    return ", ".join(raised) or "none"


def _update(environment: Environment, actor: Actor, **values: Any) -> None:
    update_environment(environment_id=environment.id, values=values, actor=actor)


_GO_TO = of_row(lambda environment: shortcuts(environment.id))


@register(Environment, site=site)
class EnvironmentAdmin(StaffModelAdmin):
    icon = "deployed_code"
    when_empty = "Nobody has made an environment yet."
    named_by = "name"
    columns = ("name", "workspace", "State", "created_at", "deleted_at", ("Go to", _GO_TO))
    list_filter = ("workspace",)
    searched_text = {"name": "name", "workspace__name": "workspace"}
    searched_address = ("memberships__user", "member's e-mail address")
    looks_through = LOOKS_THROUGH_CUSTOMERS
    facts = (
        "name", "workspace", ("State", state_of("active", deleted="deleted_at", paused="paused_at")), "paused_at",
        ("Why it is paused", "pause_reason"), "created_at", "deleted_at", "id",
    )  # fmt: skip
    panels = (
        _holdings,
        Related("Members", Membership, ("user", "user__name", "role", "Since"), by="environment"),
        Related(
            "Open invitations", Invitation, ("Address", "role", "By", "Sent", "Works until"), by="environment",
            where=IS_OPEN, order=("-created_at",),
        ),
    )  # fmt: skip
    support = (
        SupportAction(
            "pause", "Pause the environment",
            "Its workers are given no run, nobody can start one, and its schedules make none, until it is resumed. What"
            " is queued waits.",
            "The environment is paused.",
            applies=lambda environment: not (environment.deleted_at or environment.paused),
            perform=lambda environment, actor, **why: _update(environment, actor, paused=True, **why), is_harsh=True,
            form=PauseForm,
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

    def title_of(self, row: Environment) -> str:
        return f"{row.name} of {row.workspace.name}"


@register(Workspace, site=site)
class WorkspaceAdmin(StaffModelAdmin):
    icon = "apartment"
    when_empty = "Nobody has made a workspace yet."
    named_by = "name"
    columns = ("name", "created_by", "created_at")
    searched_text = {"name": "name"}
    searched_address = ("created_by", "creator's e-mail address")
    looks_through = LOOKS_THROUGH_CUSTOMERS
    facts = (
        "name",
        "created_by",
        "created_at",
        ("Raised ceilings", of_row(_ceilings, "ceilings")),
        "id",
    )
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
    panels = (
        Related(
            "Environments", Environment, (("Name", itself("name")), "created_at", "deleted_at", ("Go to", _GO_TO)),
            by="workspace", shown=100,
        ),
    )  # fmt: skip


@register(Invitation, site=site)
class InvitationAdmin(StaffModelAdmin):
    icon = "forward_to_inbox"
    when_empty = "Nobody has been invited yet."
    columns = (
        ("Invitation", itself()), "Address", "environment", "role", "Sent", "accepted_at", "revoked_at",
    )  # fmt: skip
    list_filter = ("role", "environment")
    searched_text = {"email": "e-mail address"}
    facts = (
        ("Address", "email"), "environment", "role", ("By", "invited_by"), "mail", ("Sent", "created_at"),
        ("Works until", "expires_at"), "accepted_at", "revoked_at", "id",
    )  # fmt: skip


def _environment(membership: Membership) -> Any:
    """Shows the environment's name, and whether the environment has been deleted."""
    shown = link_to(Environment, membership.environment_id, membership.environment.name)
    if membership.environment.deleted_at is None:
        return shown
    return format_html("{} {}", shown, state("deleted"))


@register(Membership, site=site)
class MembershipAdmin(StaffModelAdmin):
    icon = "group"
    when_empty = "No environment has members yet."
    columns = ("user", "Environment", "Workspace", "role", "Since", "Go to")
    list_filter = ("role", "environment", "user")
    searched_text = {"user__email": "e-mail address", "user__name": "name", **BY_PLACE}
    searched_address = ("user", "e-mail address")
    looks_through = LOOKS_THROUGH_CUSTOMERS
    scopes = (Scope(("user",), ("id",)), Scope(("environment",), ("id",)))
    facts = (
        "user", ("Environment", of_row(_environment, "environment__name", "environment__deleted_at")),
        "environment__workspace", ("Go to", of_row(lambda row: shortcuts(row.environment_id), "environment_id")),
        "role", ("Since", "created_at"), "id",
    )  # fmt: skip


def _role(membership: Any) -> Any:
    """Shows the role. If the user is the only owner, it says so, and whether they can't log in any more."""
    if membership.role != Role.OWNER or membership.others:
        return membership.role
    told = "the only owner" if membership.user.is_active else "the only owner, who can't log in"
    return two_lines(membership.role, told)


_OTHER_OWNERS = Membership.objects.filter(
    environment=OuterRef("environment"), role=Role.OWNER
).exclude(id=OuterRef("id"))
_OF_USER = Related(
    "Member of", Membership,
    (
        "Environment", "Workspace",
        ("Role", of_row(_role, "role", "user__is_active", others=Exists(_OTHER_OWNERS))), "Since", "Go to",
    ),
    by="user", nothing="No environment.",
)  # fmt: skip

add_to_page_of(User, _OF_USER)
