"""Django admin's pages of memberships."""

from typing import Any

from django.contrib.admin import display, register

from accounts.models import User
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Panel
from pipedai.admin.site import site
from pipedai.admin.values import ident, link_to, moment
from workspaces.models import Environment, Membership


@register(Membership, site=site)
class MembershipAdmin(StaffModelAdmin):
    """Shows who is a member of which environment. Staff can't change roles here, since the environment's own admins do
    that.
    """

    icon = "group"
    when_empty = "No environment has members yet."
    list_display = ("member", "in_environment", "role", "since")
    list_filter = ("role", related("environment", Environment), related("user", User))
    list_reads = ("id", "role", "created_at", "user__email", "environment__name")
    list_select_related = ("user", "environment")
    story_joins = ("user", "environment")
    never_read = ("user__password",)

    @display(description="User")
    def member(self, membership: Membership) -> Any:
        return link_to(User, membership.user_id, membership.user.email)

    @display(description="Environment")
    def in_environment(self, membership: Membership) -> Any:
        return link_to(Environment, membership.environment_id, membership.environment.name)

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
                    ("Role", row.role),
                    ("Since", self.since(row)),
                    ("Id", ident(row.id)),
                ],
            )
        ]
