"""The screens for signing in and out, registering, forgotten passwords and one's own account, and those that mails link
to.

The token of a mail is in the URL's fragment, which browsers send to no server and keep through redirects. A script
moves it into the form; without the script, people copy it there.
"""

from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import Json, ask
from console.forms import Form, Look
from console.pages import HOME, Screen, form_page, safe_next, screen, see_other

_EMAIL = Look("E-mail address", kind="email", autocomplete="username")
_NEW_PASSWORD = Look(
    "New password",
    help="At least 10 characters.",
    kind="password",
    autocomplete="new-password",
)
PASSWORD = Look("Password", kind="password", autocomplete="current-password")
_NEW_ACCOUNT = {
    "name": Look(autocomplete="name"),
    "email": _EMAIL,
    "password": replace(_NEW_PASSWORD, label="Password"),
}


def ways_in() -> Json:
    """Returns the ways to sign in, for pages that show them: at which host, and whether by password at all."""
    issuer = urlsplit(settings.OIDC_ISSUER).netloc
    return {"issuer": issuer, "by_password": not settings.OIDC_ONLY}


def of_passwords(view: Screen) -> Screen:
    """Makes a screen that exists only while people may use passwords."""

    @screen
    def answer(request: HttpRequest) -> HttpResponse:
        if settings.OIDC_ONLY:
            return see_other(request, reverse("console:sign-in"))
        return view(request)

    return answer


@screen
def sign_in(request: HttpRequest) -> HttpResponse:
    # A 401 says that the address or the password is wrong, so the form shows it.
    form = Form("POST", "auth/login", {"email": _EMAIL, "password": PASSWORD}, catches={401})
    return _enter(request, form, "console/sign_in.html", **ways_in())


@of_passwords
def register(request: HttpRequest) -> HttpResponse:
    return _enter(request, Form("POST", "auth/register", _NEW_ACCOUNT), "console/register.html")


def _enter(request: HttpRequest, form: Form, template: str, **said: Any) -> HttpResponse:
    """Shows a form that opens a session. Once it is sent, opens the page that `next` names."""
    on = safe_next(request)
    return form_page(request, form, lambda _: on, template, next=on, home=HOME, **said)


@screen
def sign_out(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return see_other(request, HOME)
    answer = ask(request, "POST", "auth/logout")
    response = render(request, "console/signed_out.html")
    response.cookies.update(answer.cookies)
    return response


@of_passwords
def forgot_password(request: HttpRequest) -> HttpResponse:
    form = Form("POST", "auth/forgot-password", {"email": _EMAIL})
    sent = form.send(request) is not None
    context = {"form": form, "sent": sent}
    return render(request, "console/forgot_password.html", context, status=form.status)


@screen
def account(request: HttpRequest) -> HttpResponse:
    """Shows the visitor's account, and where they are signed in."""
    context = {
        "user": ask(request, "GET", "auth/me").data["user"],
        "sessions": ask(request, "GET", "auth/sessions", query={"limit": 100}).data["items"],
        "sent": request.GET.get("sent"),
        **ways_in(),
    }
    return render(request, "console/account.html", context)


@screen
def change_account(request: HttpRequest) -> HttpResponse:
    looks = {
        "name": Look(autocomplete="name"),
        "timezone": Look("Time zone", help="As in Europe/London. Empty for UTC."),
    }
    user = ask(request, "GET", "auth/me").data["user"]
    form = Form("PATCH", "auth/me", looks, values=user)
    back = reverse("console:account")
    said = {"title": "Change name or time zone", "button": "Save", "back": back}
    return form_page(request, form, lambda _: back, **said)


@screen
def delete_account(request: HttpRequest) -> HttpResponse:
    user = ask(request, "GET", "auth/me").data["user"]
    asks = user["hasPassword"] and not settings.OIDC_ONLY
    form = Form("DELETE", "auth/me", {"password": PASSWORD} if asks else {})
    if deleted := form.send(request):
        response = render(request, "console/signed_out.html", {"deleted": True})
        response.cookies.update(deleted.cookies)
        return response
    said = {
        "title": "Delete the account?",
        "text": "You leave all environments, and your sessions and the keys of your command lines end. What you made"
        " there stays. Nothing brings the account back.",
        "button": "Delete the account",
        "back": reverse("console:account"),
        "username": user["email"],
    }
    return render(request, "console/form.html", {"form": form, **said}, status=form.status)


@of_passwords
def change_password(request: HttpRequest) -> HttpResponse:
    looks = {
        "currentPassword": replace(PASSWORD, label="Current password"),
        "newPassword": replace(_NEW_PASSWORD, help="All your other sessions end."),
    }
    form = Form("POST", "auth/change-password", looks)
    return _change(request, form, title="Change the password", to="")


@of_passwords
def change_email(request: HttpRequest) -> HttpResponse:
    looks = {
        "newEmail": replace(
            _EMAIL, label="New e-mail address", help="A mail to it has the link that confirms it."
        ),
        "currentPassword": PASSWORD,
    }
    form = Form("POST", "auth/change-email", looks)
    return _change(request, form, title="Change the e-mail address", to="?sent=address")


def _change(request: HttpRequest, form: Form, *, title: str, to: str) -> HttpResponse:
    """Shows a form that changes the account. Once it is sent, opens the account's page."""
    # The form names the user, because a password manager must know whose password it is.
    username = ask(request, "GET", "auth/me").data["user"]["email"]
    back = reverse("console:account")
    said = {"title": title, "button": title, "back": back, "username": username}
    return form_page(request, form, lambda _: f"{back}{to}", **said)


@screen
def send_confirmation(request: HttpRequest) -> HttpResponse:
    """Sends again the mail that confirms the visitor's address."""
    if request.method == "POST":
        ask(request, "POST", "auth/resend-verification")
    return see_other(request, f"{reverse('console:account')}?sent=confirmation")


@screen
def end_sessions(request: HttpRequest) -> HttpResponse:
    """Ends the session that the form names, or all sessions but this one."""
    if request.method == "POST":
        if session := request.POST.get("session"):
            ask(request, "DELETE", f"auth/sessions/{session}")
        else:
            ask(request, "POST", "auth/sessions/revoke-others")
    return see_other(request, reverse("console:account"))


TOKEN = Look("Token", help="It is what follows “token=” in the link of the mail.")


@screen
def verify(request: HttpRequest) -> HttpResponse:
    # A visitor without a session is sent to sign in and back, so that they confirm the address of their own account.
    account = ask(request, "GET", "auth/me").data["user"]
    form = Form("POST", "auth/verify-email", {"token": TOKEN})
    return answer_link(
        request,
        form,
        "{user[email]} is confirmed.",
        title="Confirm your e-mail address",
        text="Confirm that this e-mail address is yours.",
        button="Confirm",
        account=account,
    )


@of_passwords
def reset(request: HttpRequest) -> HttpResponse:
    form = Form("POST", "auth/reset-password", {"token": TOKEN, "newPassword": _NEW_PASSWORD})
    return answer_link(
        request,
        form,
        "The new password is set. Sign in with it.",
        title="Set a new password",
        text="All sessions of your account end, on every device."
        + (
            " So does its link to the sign-in service, if it has one."
            if ways_in()["issuer"]
            else ""
        ),
        button="Set the password",
    )


@of_passwords
def register_anew(request: HttpRequest) -> HttpResponse:
    """Registers the owner of an address that a stranger registered and never confirmed."""
    form = Form("POST", "auth/register", {"registrationToken": TOKEN, **_NEW_ACCOUNT})
    text = (
        "You get a new account with the e-mail address to which the mail came."
        " The account that somebody made with it and never confirmed is closed."
    )
    return _enter(
        request, form, "console/link.html", title="Register", text=text, button="Register"
    )


@screen
def invitation(request: HttpRequest) -> HttpResponse:
    """Shows who invites the visitor into which environment, and what they do to accept."""
    look = Form("POST", "invitations/look", {"token": TOKEN})
    if (answer := look.send(request)) is None:
        context = {"form": look, "title": "Invitation", "button": "Look at the invitation"}
        context |= {"text": "Somebody invites you to work with them.", "at_once": True}
        return render(request, "console/link.html", context, status=look.status)
    invited, step, token = answer.data, request.POST.get("step"), request.POST["token"]
    if step == "accept":
        member = ask(request, "POST", "invitations/accept", body={"token": token}).data
        return see_other(request, reverse("console:environment", args=[member["environmentId"]]))
    form = Form(
        "POST", "auth/register", {each: _NEW_ACCOUNT[each] for each in ("name", "password")}
    )
    proof = {"email": invited["email"], "invitationToken": token}
    if step == "register" and (made := form.send(request, more=proof)):
        response = see_other(request, HOME)
        response.cookies.update(made.cookies)
        return response
    context = {"invitation": invited, "form": form, "token": token, **ways_in()}
    return render(request, "console/invitation.html", context, status=form.status)


# The answers of an address's owner: the endpoint, further fields of its body, and what the page says afterwards.
_ANSWERS = {
    "confirm": ("confirm", {}, "Thank you. Notices come to your e-mail address from now on."),
    "refuse-one": (
        "refuse",
        {"everywhere": False},
        "No notices of this environment will come to your e-mail address any more.",
    ),
    "refuse": ("refuse", {}, "No notices will come to your e-mail address any more."),
}
_REFUSALS = [("refuse-one", "None of this environment"), ("refuse", "Never send me any")]


@screen
def notices(request: HttpRequest) -> HttpResponse:
    """Asks the owner of an address whether it may get notices. Opening the page changes nothing, because some programs
    open every link of a mail.
    """
    endpoint, more, done = _ANSWERS.get(request.POST.get("step", ""), _ANSWERS["confirm"])
    form = Form("POST", f"addresses/{endpoint}", {"token": TOKEN})
    text = (
        "Somebody wants to have notices sent to your e-mail address."
        " They say when automatic work fails, and when it works again."
    )
    return answer_link(
        request,
        form,
        done,
        more=more,
        title="Notices by mail",
        text=text,
        button="Send them to me",
        refusals=_REFUSALS,
    )


def answer_link(
    request: HttpRequest, form: Form, done: str, *, more: Json | None = None, **said: Any
) -> HttpResponse:
    """Shows the form that a mail's link opens. Once it is sent, with `more` in its body, shows `done`: a sentence with
    places for parts of the API's answer.
    """
    if answer := form.send(request, more=more):
        said["done"] = done.format(**answer.data)
    return render(request, "console/link.html", {"form": form, **said}, status=form.status)
