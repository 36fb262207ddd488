"""The screens to which the links of mails lead.

The token of a mail is in the URL's fragment, which browsers send to no server and keep through redirects. A script
moves it into the form; without the script, people copy it there.
"""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import ask
from console.forms import Form, Look
from console.pages import HOME, screen, see_other
from console.screens.accounts import NEW_ACCOUNT, NEW_PASSWORD, enter

_TEMPLATE = "console/link.html"
_TOKEN = Look("Token", help="It is what follows “token=” in the link of the mail.")


@screen
def verify(request: HttpRequest) -> HttpResponse:
    # Who is not signed in is sent to sign in and back, and so proves the account that is theirs.
    account = ask(request, "GET", "auth/me").data["user"]
    form = Form("POST", "auth/verify-email", {"token": _TOKEN})
    said = {"title": "Confirm your address", "button": "Confirm", "account": account}
    if request.method == "POST" and (answer := form.send(request)):
        return _show(request, form, done=f"{answer.data['user']['email']} is confirmed.", **said)
    return _show(request, form, text="Confirm that this address is yours.", **said)


@screen
def reset(request: HttpRequest) -> HttpResponse:
    form = Form("POST", "auth/reset-password", {"token": _TOKEN, "newPassword": NEW_PASSWORD})
    said = {"title": "Set a new password", "button": "Set the password"}
    if request.method == "POST" and form.send(request):
        return _show(request, form, done="The new password is set. Sign in with it.", **said)
    text = "All sessions of your account end, on every device."
    return _show(request, form, text=text, **said)


@screen
def register(request: HttpRequest) -> HttpResponse:
    """Makes an account for the owner of an address that a stranger registered and never confirmed."""
    form = Form("POST", "auth/register", {"registrationToken": _TOKEN, **NEW_ACCOUNT})
    text = (
        "You get a new account with the address to which the mail came."
        " The account that somebody made with it and never confirmed is closed."
    )
    return enter(request, form, _TEMPLATE, title="Register", text=text, button="Register")


@screen
def invitation(request: HttpRequest) -> HttpResponse:
    """Who invites me into what, and what do I do to accept?"""
    look = Form("POST", "invitations/look", {"token": _TOKEN})
    if request.method != "POST" or not (answer := look.send(request)):
        said = {"title": "Invitation", "button": "Look at the invitation", "at_once": True}
        return _show(request, look, text="Somebody invites you to work with them.", **said)
    invited, step = answer.data, request.POST.get("step")
    token = request.POST["token"]
    if step == "accept":
        member = ask(request, "POST", "invitations/accept", body={"token": token}).data
        return see_other(request, reverse("console:environment", args=[member["environmentId"]]))
    form = Form("POST", "auth/register", {each: NEW_ACCOUNT[each] for each in ("name", "password")})
    proof = {"email": invited["email"], "invitationToken": token}
    if step == "register" and (made := form.send(request, more=proof)):
        response = see_other(request, HOME)
        response.cookies.update(made.cookies)
        return response
    context = {"invitation": invited, "form": form, "token": token}
    return render(request, "console/invitation.html", context, status=form.status)


# The answers of an address's owner: the endpoint, what its body has besides the token, and what the page then says.
_ANSWERS = {
    "confirm": ("confirm", {}, "Thank you. Notices come to your address from now on."),
    "refuse-one": (
        "refuse",
        {"everywhere": False},
        "No notices of this environment will come to your address any more.",
    ),
    "refuse": ("refuse", {}, "No notices will come to your address any more."),
}
_REFUSALS = [("refuse-one", "None of this environment"), ("refuse", "Never send me any")]


@screen
def notices(request: HttpRequest) -> HttpResponse:
    """Asks the owner of an address whether it shall get notices. Opening the page changes nothing, because some
    programs open every link of a mail.
    """
    endpoint, more, done = _ANSWERS.get(request.POST.get("step", ""), _ANSWERS["confirm"])
    form = Form("POST", f"addresses/{endpoint}", {"token": _TOKEN})
    said = {"title": "Notices by mail", "button": "Send them to me", "refusals": _REFUSALS}
    if request.method == "POST" and form.send(request, more=more):
        return _show(request, form, done=done, **said)
    text = (
        "Somebody wants to have notices sent to your address."
        " They say when automatic work fails, and when it works again."
    )
    return _show(request, form, text=text, **said)


def _show(request: HttpRequest, form: Form, **said: Any) -> HttpResponse:
    return render(request, _TEMPLATE, {"form": form, **said}, status=form.status)
