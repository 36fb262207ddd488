"""Django admin's pages of the mails about accounts, which say whether a mail went out and why not."""

from typing import Any

from django.contrib.admin import display, register

from accounts.models import AccountMail, AccountMailAttempt, User
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.panels import Facts, Panel, Table
from pipedai.admin.site import site
from pipedai.admin.values import data, ident, link_to, moment, state, text
from pipedai.sql import database_now


@register(AccountMail, site=site)
class AccountMailAdmin(StaffModelAdmin):
    """Shows all mails about accounts. A mail's token is stored nowhere, and no page shows its digest."""

    icon = "mail"
    when_empty = "No mail was to be sent yet: nobody has registered."
    list_display = ("shown_id", "purpose", "address", "shown_state", "queued", "link_state")
    list_display_links = None
    list_filter = ("status", "purpose")
    list_reads = (
        "id", "purpose", "address", "status", "created_at", "expires_at", "ended_at",
    )  # fmt: skip
    searched_text = {"address": "e-mail address"}
    story_joins = ("user",)
    never_read = ("token_digest", "user__password")

    @display(description="Mail")
    def shown_id(self, mail: AccountMail) -> Any:
        return link_to(AccountMail, mail.id)

    @display(description="State")
    def shown_state(self, mail: AccountMail) -> Any:
        return state(mail.status)

    @display(description="Queued")
    def queued(self, mail: AccountMail) -> Any:
        return moment(mail.created_at)

    @display(description="Its link")
    def link_state(self, mail: AccountMail) -> Any:
        return link_state(mail)

    def story(self, row: AccountMail) -> list[Panel]:
        """Returns the panels of one mail: its facts and the attempts to send it."""
        attempts = AccountMailAttempt.objects.filter(mail=row).order_by("n")
        return [
            Facts(
                "Mail",
                [
                    ("What for", row.get_purpose_display()),
                    ("To", text(row.address)),
                    ("About", link_to(User, row.user_id, row.user.email if row.user else None)),
                    ("State", state(row.status)),
                    ("Queued", moment(row.created_at)),
                    ("Attempts", row.attempt_count),
                    ("Next attempt", moment(row.next_attempt_at)),
                    ("Delivered", moment(row.delivered_at)),
                    ("Its link", link_state(row)),
                    ("Says", data(row.facts)),
                    ("Id", ident(row.id)),
                ],
            ),
            Table(
                "Attempts",
                ("Attempt", "When", "Answer", "Took", "Error"),
                [
                    (
                        each.n,
                        moment(each.at),
                        text(str(each.status_code or "")),
                        f"{each.duration_ms:,} ms",
                        text(each.error),
                    )
                    for each in attempts
                ],
                nothing="Not sent yet.",
            ),
        ]


def link_state(mail: AccountMail) -> str:
    """Returns whether the link in the mail still works."""
    if mail.expires_at is None:
        return "none"
    if mail.ended_at is not None:
        return "used or void"
    return "works" if mail.expires_at > database_now() else "expired"


def mails_of(user: User, shown: int) -> Table:
    """Makes the panel with the newest mails about an account, for the page of its user."""
    mails = AccountMail.objects.filter(user=user).order_by("-created_at")[:shown]
    return Table(
        "Newest mails",
        ("Mail", "Queued", "What for", "To", "State", "Its link", "Until"),
        [
            (
                link_to(AccountMail, mail.id),
                moment(mail.created_at),
                mail.get_purpose_display(),
                text(mail.address),
                state(mail.status),
                link_state(mail),
                moment(mail.expires_at),
            )
            for mail in mails.defer("token_digest", "facts")
        ],
        nothing="None.",
    )
