"""Django admin's pages of environments. Each page links to the lists of the environment's triggers, runs, keys and so
on.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django import forms
from django.contrib.admin import display, register
from django.db.models import Q
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from unfold.widgets import UnfoldAdminTextInputWidget, UnfoldBooleanWidget

from accounts.admin import id_of_address
from accounts.models import User
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import LOOKS_THROUGH_CUSTOMERS
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Links, Panel, Table
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import ident, link_to, links, list_of, moment, state, text
from pipedai.events import Actor
from workspaces.invitations import open_invitations
from workspaces.models import Environment, Membership, Workspace
from workspaces.services import update_environment

_SHOWN_MEMBERS = 50


class PauseForm(forms.Form):
    """Asks why an environment is paused, and whether the runs that its workers hold shall be canceled as well."""

    pause_reason = forms.CharField(
        label="Reason",
        max_length=500,
        help_text="The environment's members read it.",
        widget=UnfoldAdminTextInputWidget({"autocomplete": "off", "autofocus": True}),
    )
    cancel_held = forms.BooleanField(
        label="Cancel the runs that workers hold", required=False, widget=UnfoldBooleanWidget
    )

    def __init__(self, environment: Environment, posted: Mapping[str, Any] | None) -> None:
        super().__init__(posted)


def _pause(environment: Environment, actor: Actor, **values: Any) -> None:
    update_environment(
        environment_id=environment.id, values={"paused": True, **values}, actor=actor
    )


def _resume(environment: Environment, actor: Actor) -> None:
    update_environment(environment_id=environment.id, values={"paused": False}, actor=actor)


@register(Environment, site=site)
class EnvironmentAdmin(StaffModelAdmin):
    icon = "deployed_code"
    when_empty = "Nobody has made an environment yet."
    list_display = ("name", "in_workspace", "shown_state", "created", "deleted", "go_to")
    list_filter = (related("workspace", Workspace),)
    list_reads = ("id", "name", "paused_at", "created_at", "deleted_at", "workspace__name")
    list_select_related = ("workspace",)
    searched_text = {"name": "name", "workspace__name": "workspace"}
    searched_address = "member's e-mail address"
    looks_through = LOOKS_THROUGH_CUSTOMERS
    story_joins = ("workspace",)
    support = (
        SupportAction(
            "pause",
            "Pause the environment",
            "Its workers are given no run, nobody can start one, and its schedules make none, until it is resumed. What"
            " is queued waits.",
            "The environment is paused.",
            applies=lambda environment: not (environment.deleted_at or environment.paused),
            perform=_pause,
            is_harsh=True,
            form=PauseForm,
        ),
        SupportAction(
            "resume",
            "Resume the environment",
            "Its workers get runs again, what has waited for them first, and its schedules make runs from now on. Due"
            " times of the pause are not made up for.",
            "The environment is resumed.",
            applies=lambda environment: environment.deleted_at is None and environment.paused,
            perform=_resume,
        ),
    )

    def found_by_address(self, address: str) -> Q | None:
        """Returns the condition for the environments of which the user with this address is a member."""
        return where_member(address, "id")

    @display(description="Workspace")
    def in_workspace(self, environment: Environment) -> Any:
        return link_to(Workspace, environment.workspace_id, environment.workspace.name)

    @display(description="State")
    def shown_state(self, environment: Environment) -> Any:
        """Shows whether the environment is active, paused or deleted."""
        if environment.deleted_at:
            return state("deleted")
        return state("paused" if environment.paused else "active")

    @display(description="Created")
    def created(self, environment: Environment) -> Any:
        return moment(environment.created_at)

    @display(description="Deleted")
    def deleted(self, environment: Environment) -> Any:
        return moment(environment.deleted_at)

    @display(description="Go to")
    def go_to(self, environment: Environment) -> Any:
        return shortcuts(environment.id)

    def title_of(self, row: Environment) -> str:
        return f"{row.name} of {row.workspace.name}"

    def story(self, row: Environment) -> list[Panel]:
        """Returns the panels of an environment's page: its facts, its members, its open invitations, and links to the
        lists of all that belongs to it.
        """
        members = row.memberships.select_related("user").defer("user__password")
        return [
            Facts(
                "Environment",
                [
                    ("Name", row.name),
                    ("Workspace", self.in_workspace(row)),
                    ("State", self.shown_state(row)),
                    ("Paused", moment(row.paused_at)),
                    ("Why it is paused", text(row.pause_reason)),
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
            Table(
                "Open invitations",
                ("Address", "Role", "By", "Sent", "Works until"),
                [
                    (
                        text(each.email),
                        each.role,
                        link_to(User, each.invited_by_id, each.invited_by.email),
                        moment(each.created_at),
                        moment(each.expires_at),
                    )
                    for each in open_invitations(row.id)
                    .select_related("invited_by")
                    .defer("invited_by__password")
                    .order_by("-created_at")[:_SHOWN_MEMBERS]
                ],
                nothing="None.",
            ),
        ]


def where_member(address: str, column: str) -> Q | None:
    """Returns the condition that `column` holds the id of an environment of which the user with this e-mail address is
    a member. Returns None if no user has the address.
    """
    user_id = id_of_address(address)
    if user_id is None:
        return None
    return Q(**{f"{column}__in": Membership.objects.filter(user=user_id).values("environment")})


def shortcuts(environment_id: UUID) -> SafeString:
    """Returns links to those lists of this environment's rows that support needs most."""
    return links(
        (capfirst(str(model._meta.verbose_name_plural)), list_of(model, environment=environment_id))
        for model, admin in site._registry.items()
        if getattr(admin, "is_shortcut", False)
    )


def _holdings(environment: Environment) -> list[tuple[str, str]]:
    """Returns the names and URLs of all admin lists that can be filtered by environment."""
    return [
        (capfirst(str(model._meta.verbose_name_plural)), list_of(model, environment=environment.id))
        for model, admin in site._registry.items()
        if "environment" in (getattr(each, "name", "") for each in admin.list_filter)
    ]
