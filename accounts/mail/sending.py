"""Makes the texts of the mails about accounts. `pipedai.outgoing` says how the scheduler sends them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from accounts.mail import links
from accounts.mail.tokens import token_with_digest
from accounts.models import AccountMail, AccountMailAttempt
from pipedai.outgoing import Kind, Mail, NeverSend, compose
from pipedai.sql import Row


@dataclass(frozen=True, slots=True)
class _Text:
    """The fixed texts and the page of the mails of one purpose. Their template is `mail/accounts/<purpose>`."""

    # The subject and `why` may contain names of facts in braces. The values of the facts replace them.
    subject: str
    why: str
    # The page to which the mail's link leads. It is empty for a mail without a token.
    page: str = ""


_TEXTS: Mapping[str, _Text] = MappingProxyType(
    {
        AccountMail.Purpose.VERIFY: _Text(
            "Confirm your e-mail address",
            "You get this mail because somebody registered at PipedAI with this address.",
            links.VERIFY,
        ),
        AccountMail.Purpose.CHANGE: _Text(
            "Confirm your new e-mail address",
            "You get this mail because somebody wants to use this address for their PipedAI account.",
            links.VERIFY,
        ),
        AccountMail.Purpose.CHANGE_NOTICE: _Text(
            "Your e-mail address is about to change",
            "You get this mail because a PipedAI account has this address.",
        ),
        AccountMail.Purpose.RESET: _Text(
            "Set a new password",
            "You get this mail because somebody asked for a new password for this address at PipedAI.",
            links.RESET,
        ),
        AccountMail.Purpose.REGISTRATION: _Text(
            "Your e-mail address at PipedAI",
            "You get this mail because somebody wants to register at PipedAI with this address.",
            links.REGISTER,
        ),
        AccountMail.Purpose.INVITATION: _Text(
            "An invitation to {environment}",
            "You get this mail because a user of PipedAI entered this address.",
            links.INVITATION,
        ),
    }
)


def _message(row: Row) -> Mail:
    """Returns the mail of a claimed row. Raises NeverSend if the token in it would not work any more, or if a new
    password was asked for at an address without an account.
    """
    text = _TEXTS[row["purpose"]]
    if row["purpose"] == AccountMail.Purpose.RESET and row["user_id"] is None:
        raise NeverSend("no account has this address")
    link = ""
    if text.page:
        if row["ended_at"] is not None or row["expires_at"] <= row["claimed_at"]:
            raise NeverSend("its link would not work any more")
        token = token_with_digest(row["id"], bytes(row["token_digest"]))
        if token is None:
            raise NeverSend("its link was made with a SECRET_KEY that is gone")
        link = links.link_to(text.page, token)
    return compose(
        f"accounts/{row['purpose']}",
        to=row["address"],
        subject=text.subject,
        values=json.loads(row["facts"]),
        link=link,
        why=text.why,
    )


ACCOUNT_MAILS = Kind("account_mail", AccountMail, AccountMailAttempt, _message)
