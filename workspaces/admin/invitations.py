"""Django admin's pages of invitations."""

from typing import Any

from django.contrib.admin import display, register

from accounts.models import AccountMail, User
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Panel
from pipedai.admin.site import site
from pipedai.admin.values import ident, link_to, moment, text
from workspaces.models import Environment, Invitation


@register(Invitation, site=site)
class InvitationAdmin(StaffModelAdmin):
    """Shows whom an environment's admins have invited. Staff can't invite, since the environment's own admins do."""

    icon = "forward_to_inbox"
    when_empty = "Nobody has been invited yet."
    list_display = ("shown_id", "email", "in_environment", "role", "sent", "accepted", "revoked")
    list_display_links = None
    list_filter = ("role", related("environment", Environment))
    list_reads = (
        "id", "email", "role", "created_at", "accepted_at", "revoked_at", "environment__name",
    )  # fmt: skip
    list_select_related = ("environment",)
    searched_text = {"email": "e-mail address"}
    story_joins = ("environment", "invited_by")
    never_read = ("invited_by__password",)

    @display(description="Invitation")
    def shown_id(self, invitation: Invitation) -> Any:
        return link_to(Invitation, invitation.id)

    @display(description="Environment")
    def in_environment(self, invitation: Invitation) -> Any:
        return link_to(Environment, invitation.environment_id, invitation.environment.name)

    @display(description="Sent")
    def sent(self, invitation: Invitation) -> Any:
        return moment(invitation.created_at)

    @display(description="Accepted")
    def accepted(self, invitation: Invitation) -> Any:
        return moment(invitation.accepted_at)

    @display(description="Revoked")
    def revoked(self, invitation: Invitation) -> Any:
        return moment(invitation.revoked_at)

    def story(self, row: Invitation) -> list[Panel]:
        return [
            Facts(
                "Invitation",
                [
                    ("Address", text(row.email)),
                    ("Environment", self.in_environment(row)),
                    ("Role", row.role),
                    ("By", link_to(User, row.invited_by_id, row.invited_by.email)),
                    ("Mail", link_to(AccountMail, row.mail_id)),
                    ("Sent", self.sent(row)),
                    ("Works until", moment(row.expires_at)),
                    ("Accepted", self.accepted(row)),
                    ("Revoked", self.revoked(row)),
                    ("Id", ident(row.id)),
                ],
            )
        ]
