"""Django admin's pages of environments. Each page links to the lists of the environment's triggers, runs, keys and so
on.
"""

from typing import Any

from django.contrib.admin import display, register
from django.utils.text import capfirst

from accounts.models import User
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Links, Panel, Table
from pipedai.admin.site import site
from pipedai.admin.values import ident, link_to, list_of, moment, text
from workspaces.models import Environment, Membership, Workspace

_SHOWN_MEMBERS = 50


@register(Environment, site=site)
class EnvironmentAdmin(StaffModelAdmin):
    icon = "deployed_code"
    when_empty = "Nobody has made an environment yet."
    list_display = ("name", "in_workspace", "created", "deleted")
    list_filter = (related("workspace", Workspace),)
    list_reads = ("id", "name", "created_at", "deleted_at", "workspace__name")
    list_select_related = ("workspace",)
    searched_text = ("name",)
    story_joins = ("workspace",)

    @display(description="Workspace")
    def in_workspace(self, environment: Environment) -> Any:
        return link_to(Workspace, environment.workspace_id, environment.workspace.name)

    @display(description="Created")
    def created(self, environment: Environment) -> Any:
        return moment(environment.created_at)

    @display(description="Deleted")
    def deleted(self, environment: Environment) -> Any:
        return moment(environment.deleted_at)

    def title_of(self, row: Environment) -> str:
        return f"{row.name} of {row.workspace.name}"

    def story(self, row: Environment) -> list[Panel]:
        """Returns the panels of an environment's page: its facts, its members, and links to the lists of all that
        belongs to it.
        """
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


def _holdings(environment: Environment) -> list[tuple[str, str]]:
    """Returns the names and URLs of all admin lists that can be filtered by environment."""
    return [
        (capfirst(str(model._meta.verbose_name_plural)), list_of(model, environment=environment.id))
        for model, admin in site._registry.items()
        if "environment" in (getattr(each, "name", "") for each in admin.list_filter)
    ]
