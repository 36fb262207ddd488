"""The probe by which `manage.py check_deploy` finds what is wrong with the settings of the sign-in at the issuer."""

from secrets import token_urlsafe

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info

from accounts import issuer
from accounts.issuer import Issuer, IssuerAway, SignInFailed
from pipedai.outgoing.oauth import ask, deadline, new_verifier

# By these codes a token endpoint refuses the client itself, and not the code that it got (RFC 6749 §5.2).
_REFUSES_US = ("invalid_client", "unauthorized_client")


def issuer_lets_us_in() -> CheckMessage:
    """Asks the issuer for its metadata, and then with a code that nobody has: it says whether it knows our client."""
    until = deadline()
    try:
        found = issuer.discover(until)
    except IssuerAway as error:
        return Error(
            error.message, hint="OIDC_ISSUER is what the issuer calls itself, to the letter."
        )
    if _refuses_client(found, until):
        return Error(
            f"{found.name} does not know the client {found.client.id}, or its secret.",
            hint="Correct OIDC_CLIENT_ID and OIDC_CLIENT_SECRET.",
        )
    if _refuses_redirect(found, until):
        return Error(
            f"{found.name} does not send browsers back to {issuer.redirect_uri()}.",
            hint="Add that redirect URI to the client there, to the letter.",
        )
    only = ", and nobody by a password" if settings.OIDC_ONLY else ""
    return Info(f"People sign in at {found.name}{only}.")


def _refuses_client(found: Issuer, until: float) -> bool:
    try:
        issuer.exchange(found, token_urlsafe(16), new_verifier(), until)
    except SignInFailed as error:
        return any(f"({code})" in error.message for code in _REFUSES_US)
    except IssuerAway:
        pass
    return False


def _refuses_redirect(found: Issuer, until: float) -> bool:
    """Whether the issuer shows an error instead of a redirect. Some redirect to a page with the error, which is not
    told apart from the right answer.
    """
    words = {"state": token_urlsafe(16), "nonce": token_urlsafe(16), "verifier": new_verifier()}
    answer = ask(issuer.url_at(found, **words, prompt="none"), until, anywhere=True)
    return answer.status_code is not None and 400 <= answer.status_code < 500
