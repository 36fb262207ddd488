"""Makes the links in mails, which lead to the dashboard or to our own pages (SPEC §15)."""

from django.conf import settings

VERIFY, RESET, REGISTER, INVITATION = "verify", "reset", "register", "invitation"


def link_to(page: str, token: str) -> str:
    """Returns the URL of a page with a token. The token is in the URL's fragment, because browsers send the fragment to
    no server and write it into no Referer header.
    """
    return f"{settings.DASHBOARD_URL or settings.PUBLIC_URL}/account/{page}#token={token}"
