"""The HTML page `/account/invitation`, to which the link of an invitation leads (SPEC §15)."""

from typing import Any

from django.conf import settings

from accounts.mail.tokens import LinkUnusable, find_mail
from accounts.models import AccountMail, User
from accounts.pages import LinkPage, LinkVisit
from accounts.proof import proof_counts
from accounts.throttles import ACCEPT_INVITATION
from pipedai.api.errors import ApiError
from workspaces.invitations import accept_invitation
from workspaces.models import Invitation


class InvitationPage(LinkPage):
    """Shows an invitation, and lets the owner of its address accept, sign in, or register."""

    template, title = "account/invitation.html", "Invitation"

    def act(self, visit: LinkVisit) -> dict[str, Any]:
        step, token = visit.posted("step"), visit.posted("token")
        if step == "register":
            visit.register("invitation")
        elif step in ("accept", "sign-in"):
            if step == "sign-in":
                visit.opened = visit.sign_in()
            if visit.session is None:
                return _shown(visit)
            visit.check(ACCEPT_INVITATION)
            accept_invitation(token=token, user_id=visit.session.id, actor=visit.actor())
        else:
            return _shown(visit)
        return {"done": "You are a member now."}

    def again(self, visit: LinkVisit) -> dict[str, Any]:
        """Returns the invitation, which is shown again after an error, or nothing if its token does not work."""
        try:
            return {**super().again(visit), **_shown(visit)}
        except ApiError:
            return {}


def _shown(visit: LinkVisit) -> dict[str, Any]:
    """Returns the invitation whose token the form has, and what the visitor may do. Raises LinkUnusable."""
    mail = find_mail(visit.posted("token"), AccountMail.Purpose.INVITATION)
    invitation = (
        Invitation.objects.filter(mail_id=mail.id, environment__deleted_at__isnull=True)
        .select_related("environment__workspace", "invited_by")
        .first()
    )
    if invitation is None:
        raise LinkUnusable
    return {"invitation": invitation, "way": _way(visit.user, invitation.email)}


def _way(user: User | None, email: str) -> str:
    """Returns what the owner of the invited address has to do: `accept`, `sign-in`, `register`, `replace` or `ask`.

    `replace` means to register, and so to displace an account that has the address but never proved it. `ask` means to
    ask the operator for an account, because nobody may register.
    """
    if user is not None and user.email == email:
        return "accept"
    holder = User.objects.filter(email=email, is_active=True).first()
    if holder is not None and (holder.has_proved_email or not proof_counts()):
        return "sign-in"
    if settings.REGISTRATION == "closed":
        return "ask"
    return "register" if holder is None else "replace"
