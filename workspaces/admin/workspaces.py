"""Django admin's pages of workspaces, the customers' accounts."""

from typing import Any

from django.contrib.admin import display, register
from django.db.models import Q

from accounts.admin import id_of_address
from accounts.models import User
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import LOOKS_THROUGH_CUSTOMERS
from pipedai.admin.panels import Facts, Panel, Table
from pipedai.admin.site import site
from pipedai.admin.values import ident, link_to, list_of, moment
from workspaces.admin.environments import shortcuts
from workspaces.models import Environment, Workspace


@register(Workspace, site=site)
class WorkspaceAdmin(StaffModelAdmin):
    icon = "apartment"
    when_empty = "Nobody has made a workspace yet."
    list_display = ("name", "creator", "created")
    list_reads = ("id", "name", "created_at", "created_by__email")
    list_select_related = ("created_by",)
    searched_text = {"name": "name"}
    searched_address = "creator's e-mail address"
    looks_through = LOOKS_THROUGH_CUSTOMERS
    story_joins = ("created_by",)
    never_read = ("created_by__password",)

    def found_by_address(self, address: str) -> Q | None:
        user_id = id_of_address(address)
        return None if user_id is None else Q(created_by=user_id)

    @display(description="Created by")
    def creator(self, workspace: Workspace) -> Any:
        return link_to(User, workspace.created_by_id, workspace.created_by.email)

    @display(description="Created")
    def created(self, workspace: Workspace) -> Any:
        return moment(workspace.created_at)

    def title_of(self, row: Workspace) -> str:
        return row.name

    def story(self, row: Workspace) -> list[Panel]:
        """Returns the panels of a workspace's page: its facts and its environments."""
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
                ("Name", "Created", "Deleted", "Go to"),
                [
                    (
                        link_to(Environment, each.id, each.name),
                        moment(each.created_at),
                        moment(each.deleted_at),
                        shortcuts(each.id),
                    )
                    for each in environments
                ],
                more=list_of(Environment, workspace=row.id),
            ),
        ]
