"""Django admin's pages of memberships, and the panel with a user's memberships on the user's page."""

from typing import Any

from django.contrib.admin import display, register
from django.db.models import Exists, OuterRef, Q
from django.utils.html import format_html

from accounts.admin import id_of_address
from accounts.models import User
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import LOOKS_THROUGH_CUSTOMERS, Scope
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Panel, Table, add_to_page_of
from pipedai.admin.site import site
from pipedai.admin.values import ident, link_to, list_of, moment, state, two_lines
from workspaces.admin.environments import shortcuts
from workspaces.models import Environment, Membership, Workspace
from workspaces.roles import Role

_SHOWN = 50


@register(Membership, site=site)
class MembershipAdmin(StaffModelAdmin):
    """Shows who is a member of which environment. Staff can't change roles here, since the environment's own admins do
    that.
    """

    icon = "group"
    when_empty = "No environment has members yet."
    list_display = ("member", "in_environment", "in_workspace", "role", "since", "go_to")
    list_filter = ("role", related("environment", Environment), related("user", User))
    list_reads = (
        "id", "role", "created_at", "user__email", "environment__name", "environment__deleted_at",
        "environment__workspace__name",
    )  # fmt: skip
    list_select_related = ("user", "environment__workspace")
    searched_text = {
        "user__email": "e-mail address",
        "user__name": "name",
        "environment__name": "environment",
        "environment__workspace__name": "workspace",
    }
    searched_address = "e-mail address"
    looks_through = LOOKS_THROUGH_CUSTOMERS
    scopes = (Scope(("user",), ("id",)), Scope(("environment",), ("id",)))
    story_joins = ("user", "environment__workspace")
    never_read = ("user__password",)

    def found_by_address(self, address: str) -> Q | None:
        user_id = id_of_address(address)
        return None if user_id is None else Q(user=user_id)

    @display(description="User")
    def member(self, membership: Membership) -> Any:
        return link_to(User, membership.user_id, membership.user.email)

    @display(description="Environment")
    def in_environment(self, membership: Membership) -> Any:
        """Shows the environment's name, and whether the environment has been deleted."""
        shown = link_to(Environment, membership.environment_id, membership.environment.name)
        if membership.environment.deleted_at is None:
            return shown
        return format_html("{} {}", shown, state("deleted"))

    @display(description="Workspace")
    def in_workspace(self, membership: Membership) -> Any:
        workspace = membership.environment.workspace
        return link_to(Workspace, workspace.id, workspace.name)

    @display(description="Go to")
    def go_to(self, membership: Membership) -> Any:
        return shortcuts(membership.environment_id)

    @display(description="Since")
    def since(self, membership: Membership) -> Any:
        return moment(membership.created_at)

    def story(self, row: Membership) -> list[Panel]:
        return [
            Facts(
                "Membership",
                [
                    ("User", self.member(row)),
                    ("Environment", self.in_environment(row)),
                    ("Workspace", self.in_workspace(row)),
                    ("Go to", self.go_to(row)),
                    ("Role", row.role),
                    ("Since", self.since(row)),
                    ("Id", ident(row.id)),
                ],
            )
        ]


_OTHER_OWNERS = Membership.objects.filter(
    environment=OuterRef("environment"), role=Role.OWNER
).exclude(id=OuterRef("id"))


def _role_of(user: User, membership: Any) -> Any:
    """Shows the role. If the user is the only owner, it says so, and whether they can't log in any more."""
    if membership.role != Role.OWNER or membership.others:
        return membership.role
    told = "the only owner" if user.is_active else "the only owner, who can't log in"
    return two_lines(membership.role, told)


def _memberships_of(user: User) -> Table:
    """Makes the panel with the environments of which a user is a member, each with links to what it holds."""
    admin = site._registry[Membership]
    assert isinstance(admin, MembershipAdmin)
    memberships = (
        Membership.objects.filter(user=user)
        .select_related("environment__workspace")
        .annotate(others=Exists(_OTHER_OWNERS))
        .only(*(column for column in admin.list_reads if not column.startswith("user__")))
        .order_by("-id")[:_SHOWN]
    )
    return Table(
        "Member of",
        ("Environment", "Workspace", "Role", "Since", "Go to"),
        [
            (
                admin.in_environment(each),
                admin.in_workspace(each),
                _role_of(user, each),
                admin.since(each),
                admin.go_to(each),
            )
            for each in memberships
        ],
        nothing="No environment.",
        more=list_of(Membership, user=user.id),
    )


add_to_page_of(User, _memberships_of)
