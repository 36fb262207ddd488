"""The screens for signing in and out, for registering, for a forgotten password, and of one's own account."""

from dataclasses import replace
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import ask
from console.forms import Form, Look
from console.pages import HOME, safe_next, screen, see_other

_EMAIL = Look("E-mail address", kind="email", autocomplete="username")
NEW_PASSWORD = Look(
    "New password",
    help="At least 10 characters.",
    kind="password",
    autocomplete="new-password",
)
_PASSWORD = Look("Password", kind="password", autocomplete="current-password")
NEW_ACCOUNT = {
    "name": Look(autocomplete="name"),
    "email": _EMAIL,
    "password": replace(NEW_PASSWORD, label="Password"),
}


@screen
def sign_in(request: HttpRequest) -> HttpResponse:
    # A 401 says that the address or the password is wrong, and belongs at the form.
    form = Form("POST", "auth/login", {"email": _EMAIL, "password": _PASSWORD}, catches={401})
    return enter(request, form, "console/sign_in.html")


@screen
def register(request: HttpRequest) -> HttpResponse:
    return enter(request, Form("POST", "auth/register", NEW_ACCOUNT), "console/register.html")


def enter(request: HttpRequest, form: Form, template: str, **said: Any) -> HttpResponse:
    """Shows a form that opens a session, and then goes on to the page that `next` names."""
    on = safe_next(request)
    if request.method == "POST" and (answer := form.send(request)):
        response = see_other(request, on)
        response.cookies.update(answer.cookies)
        return response
    context = {"form": form, "next": on, "home": HOME, **said}
    return render(request, template, context, status=form.status)


@screen
def sign_out(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return see_other(request, HOME)
    answer = ask(request, "POST", "auth/logout")
    response = render(request, "console/signed_out.html")
    response.cookies.update(answer.cookies)
    return response


@screen
def forgot_password(request: HttpRequest) -> HttpResponse:
    form = Form("POST", "auth/forgot-password", {"email": _EMAIL})
    sent = request.method == "POST" and form.send(request) is not None
    context = {"form": form, "sent": sent}
    return render(request, "console/forgot_password.html", context, status=form.status)


@screen
def account(request: HttpRequest) -> HttpResponse:
    """Who am I, and where am I signed in?"""
    context = {
        "user": ask(request, "GET", "auth/me").data["user"],
        "sessions": ask(request, "GET", "auth/sessions", query={"limit": 100}).data["items"],
        "sent": request.GET.get("sent"),
    }
    return render(request, "console/account.html", context)


@screen
def change_password(request: HttpRequest) -> HttpResponse:
    looks = {
        "currentPassword": replace(_PASSWORD, label="Present password"),
        "newPassword": replace(NEW_PASSWORD, help="All your other sessions end."),
    }
    form = Form("POST", "auth/change-password", looks)
    return _change(request, form, title="Change the password", to="")


@screen
def change_email(request: HttpRequest) -> HttpResponse:
    looks = {
        "newEmail": replace(
            _EMAIL, label="New address", help="A mail to it has the link that confirms it."
        ),
        "currentPassword": _PASSWORD,
    }
    form = Form("POST", "auth/change-email", looks)
    return _change(request, form, title="Change the address", to="?sent=address")


def _change(request: HttpRequest, form: Form, *, title: str, to: str) -> HttpResponse:
    """Shows a form that changes the account, and then goes on to the account's page."""
    back = reverse("console:account")
    if request.method == "POST" and (answer := form.send(request)):
        response = see_other(request, f"{back}{to}")
        response.cookies.update(answer.cookies)
        return response
    user = ask(request, "GET", "auth/me").data["user"]
    # A password manager wants to know whose password it is.
    context = {
        "form": form,
        "title": title,
        "button": title,
        "back": back,
        "username": user["email"],
    }
    return render(request, "console/form.html", context, status=form.status)


@screen
def send_confirmation(request: HttpRequest) -> HttpResponse:
    """Sends the mail once more by which the address is confirmed."""
    if request.method == "POST":
        ask(request, "POST", "auth/resend-verification")
    return see_other(request, f"{reverse('console:account')}?sent=confirmation")


@screen
def end_sessions(request: HttpRequest) -> HttpResponse:
    """Ends the session that the form names, or all but this one."""
    if request.method == "POST":
        if session := request.POST.get("session"):
            ask(request, "DELETE", f"auth/sessions/{session}")
        else:
            ask(request, "POST", "auth/sessions/revoke-others")
    return see_other(request, reverse("console:account"))
