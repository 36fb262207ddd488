"""The admin pages of approvals, with what runs asked for and what people decided. Staff can't decide."""

from django.contrib.admin import register

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.fields import column, itself
from pipedai.admin.filters import DatesFilter
from pipedai.admin.site import site
from pipedai.admin.values import data, ident, long_text, state
from triggers.approvals.serializers import seen
from triggers.models import Approval


@register(Approval, site=site)
class ApprovalAdmin(StaffModelAdmin):
    icon = "rule"
    group = "Runs"
    when_empty = "No run has asked for an approval yet."
    columns = (
        ("Approval", itself()), ("State", column("status", state)), "environment", "trigger", "tool", "run",
        ("Asked", "created_at"), ("Expires", "expires_at"),
    )  # fmt: skip
    list_filter = ("status", DatesFilter, "environment")
    scopes = (Scope(("environment",), ("created_at", "id")),)
    left_out = ("calls_before", "not_requester")
    facts = (
        ("State", column("status", state)), "tool", "trigger", "environment", "run", ("Asked", "created_at"),
        ("Reminder", "remind_at"), ("Expires", "expires_at"), ("Closed", "closed_at"),
        ("Decided by", column("decided_by", ident)),
        ("Role that may decide", "role"), ("May not decide", "barred"), ("Used", "spent_at"),
        ("Rules", column("rules", data)), ("Host's tools beside them", "allow_host_tools"),
        ("Reason", column("reason", long_text)),
        ("Arguments", column("arguments", lambda arguments: long_text(seen(arguments)))),
        ("Hash of the arguments", "arguments_hash"), ("Hash of the tool's schema", "tool_schema_hash"), "id",
    )  # fmt: skip
