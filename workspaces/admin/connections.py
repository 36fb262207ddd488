"""The admin page of connections."""

from django.contrib.admin import register

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.site import site
from workspaces.models import Connection


@register(Connection, site=site)
class ConnectionAdmin(StaffModelAdmin):
    icon = "link"
    group = "Triggers"
    when_empty = "Nobody has made a connection yet."
    named_by = "name"
    columns = (
        "name",
        ("MCP server", "mcp_url"),
        ("Grant", "grant_type"),
        "environment",
        "created_at",
    )
    list_filter = ("environment",)
    searched_text = {"name": "name"}
    scopes = (Scope(("environment",), ("created_at", "id")),)
    left_out = ("headers_key",)
    facts = (
        "name", ("MCP server", "mcp_url"), ("Grant", "grant_type"), "environment", "created_at",
        ("Changed", "updated_at"), "id", ("Key in files", "key"), ("Managed by the files", "managed_by"),
    )  # fmt: skip
