"""The admin page of connections."""

from django.contrib.admin import register

from accounts.models import User
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import LOOKS_THROUGH_CUSTOMERS, Scope
from pipedai.admin.fields import column, link
from pipedai.admin.site import site
from pipedai.admin.values import state
from workspaces.models import Connection


@register(Connection, site=site)
class ConnectionAdmin(StaffModelAdmin):
    icon = "link"
    group = "Triggers"
    when_empty = "Nobody has made a connection yet."
    named_by = "name"
    columns = (
        "name",
        "State",
        "error",
        "MCP server",
        "Grant",
        "environment",
        "created_at",
    )
    list_filter = ("status", "grant_type", "environment")
    looks_through = LOOKS_THROUGH_CUSTOMERS
    searched_text = {"name": "name"}
    scopes = (Scope(("environment",), ("created_at", "id")),)
    left_out = (
        "headers_key", "grant_secrets_key", "client_given", "secret_issuer", "next_issuer", "auth_method", "resource",
        "token_endpoint", "revocation_endpoint", "lease_id", "is_second_try",
    )  # fmt: skip
    facts = (
        ("State", column("status", state)), "error", ("Failures in a row", "failures"), "name",
        ("MCP server", "mcp_url"), ("Grant", "grant_type"), "environment",
        ("Authorization server", "issuer"), ("Client id", "client_id"), "scopes",
        ("Connected by", link("connected_by_id", User)), "connected_at",
        ("Token expires", "access_expires_at"), ("Handed out until", "fresh_until"),
        ("Next refresh", "refresh_at"), ("Last refresh", "last_refresh_at"), "leased_until", "created_at",
        ("Changed", "updated_at"), "id", ("Key in files", "key"), ("Managed by the files", "managed_by"),
    )  # fmt: skip
