"""The screens for signing in and out, for registering, and for asking for a new password."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from console.asking import ask
from console.forms import Form, Look
from console.pages import HOME, safe_next, screen, see_other

_EMAIL = Look("E-mail address", kind="email", autocomplete="username")
_PASSWORD = Look("Password", kind="password", autocomplete="current-password")


@screen
def sign_in(request: HttpRequest) -> HttpResponse:
    # A 401 says that the address or the password is wrong, and belongs at the form.
    form = Form("POST", "auth/login", {"email": _EMAIL, "password": _PASSWORD}, catches={401})
    return _enter(request, form, "console/sign_in.html")


@screen
def register(request: HttpRequest) -> HttpResponse:
    looks = {
        "name": Look(autocomplete="name"),
        "email": _EMAIL,
        "password": Look(
            "Password",
            help="At least 10 characters.",
            kind="password",
            autocomplete="new-password",
        ),
    }
    return _enter(request, Form("POST", "auth/register", looks), "console/register.html")


def _enter(request: HttpRequest, form: Form, template: str) -> HttpResponse:
    """Shows a form that opens a session, and then goes on to the page that `next` names."""
    on = safe_next(request)
    if request.method == "POST" and (answer := form.send(request)):
        response = see_other(request, on)
        response.cookies.update(answer.cookies)
        return response
    return render(request, template, {"form": form, "next": on, "home": HOME}, status=form.status)


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
