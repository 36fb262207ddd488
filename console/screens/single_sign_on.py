"""The screens for signing in at the issuer, the operator's OpenID provider, and for linking an account to the one
there.

The provider sends the browser back from another site, and then browsers send no cookie with SameSite=Strict, even after
a redirect. So a page that needs the session's cookie is opened by a page of ours that leads on by itself.
"""

from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.encoding import iri_to_uri

from console.asking import Answer, Refused, ask
from console.forms import Form, Look
from console.pages import problem, safe_next, screen, see_other
from console.screens.accounts import PASSWORD, TOKEN, answer_link
from pipedai.api.authentication import delete_cookie

_CODE = Look(
    "Code",
    help="From your authenticator, or a recovery code; empty if you have none.",
    autocomplete="one-time-code",
)

# After these refusals the code that the browser brought still works, so the same page may be opened again.
_MAY_COME_AGAIN = {"overloaded", "throttled", "database_unavailable"}


@screen
def begin(request: HttpRequest) -> HttpResponse:
    """Sends the browser to the provider. A form may bring an invitation's token, whose page is opened afterwards. A
    sign-in for admin begins by the button of admin's login page, and never by a link, which may be another site's.
    """
    on = safe_next(request)
    if request.method != "POST" and on.startswith(reverse("admin:index")):
        return see_other(request, f"{reverse('admin:login')}?{urlencode({'next': on})}")
    if token := request.POST.get("token"):
        on = f"{reverse('console:invitation')}#token={quote(token)}"
    begun = ask(request, "POST", "auth/sso/begin", body={"next": on}, changes=False)
    return _lead_on(request, begun, "url")


@screen
def callback(request: HttpRequest) -> HttpResponse:
    """Finishes the sign-in with the query that the provider gave the browser."""
    brought = {name: request.GET.get(name, "") for name in ("state", "code", "iss", "error")}
    try:
        entered = ask(request, "POST", "auth/sso/finish", body=brought, changes=False)
    except Refused as refused:
        if refused.code in _MAY_COME_AGAIN:
            raise
        if refused.code == "link_needed":
            response = _show_link(request, _link_form(), email=refused.body["email"])
            response.cookies.update(refused.cookies)
        else:
            again = reverse("console:sign-in")
            response = problem(request, refused.status, refused.sentences, again)
            delete_cookie(response, "sso")
        return response
    return _lead_on(request, entered, "next")


@screen
def link(request: HttpRequest) -> HttpResponse:
    """Links the account that has the address, by its password or by a mail."""
    form = _link_form()
    if request.method != "POST":
        return see_other(request, reverse("console:sign-in"))
    if request.POST.get("step") == "mail":
        mailed = ask(request, "POST", "auth/sso/link-mail")
        response = _show_link(request, form, sent=True)
        response.cookies.update(mailed.cookies)
        return response
    if (entered := form.send(request)) is None:
        return _show_link(request, form)
    return _lead_on(request, entered, "next")


@screen
def link_by_mail(request: HttpRequest) -> HttpResponse:
    form = Form("POST", "auth/sso/link-by-mail", {"token": TOKEN, "code": _CODE})
    return answer_link(
        request,
        form,
        "Your account is linked. Sign in again at the same place as before.",
        title="Link your account",
        text="From now on your sign-in at the sign-in service opens your account here.",
        button="Link the account",
    )


@screen
def undo(request: HttpRequest) -> HttpResponse:
    """Undoes a link by the token of the mail that told of it."""
    return answer_link(
        request,
        Form("POST", "auth/undo-link", {"token": TOKEN}),
        "The sign-in service does not open the account any more, and all its sessions have ended. Set a new password"
        " now.",
        title="Undo the link?",
        text="The sign-in service does not open your account any more, the account has the e-mail address again to"
        " which the mail went, and all its sessions end. Then you set a new password.",
        button="Undo the link",
        after=(reverse("console:forgot-password"), "Set a new password"),
    )


@screen
def unlink(request: HttpRequest) -> HttpResponse:
    """Asks before it ends the link of the visitor's account, for which the password is needed."""
    user = ask(request, "GET", "auth/me").data["user"]
    form = Form("DELETE", "auth/me/single-sign-on", {"password": PASSWORD})
    if ended := form.send(request):
        response = see_other(request, reverse("console:account"))
        response.cookies.update(ended.cookies)
        return response
    said = {
        "title": "End the link to the sign-in service?",
        "text": "From then on it does not open your account, and the sessions that began by it end.",
        "button": "End the link",
        "back": reverse("console:account"),
        "username": user["email"],
    }
    return render(request, "console/form.html", {"form": form, **said}, status=form.status)


def _link_form() -> Form:
    looks = {"password": replace(PASSWORD, label="Password of the account"), "code": _CODE}
    return Form("POST", "auth/sso/link", looks, catches={401})


def _show_link(request: HttpRequest, form: Form, **said: Any) -> HttpResponse:
    context = {"form": form, "email": request.POST.get("username", ""), **said}
    return render(request, "console/link_account.html", context, status=form.status)


def _lead_on(request: HttpRequest, answer: Answer, to: str) -> HttpResponse:
    """Opens the URL that the API's answer has under the name `to`, and passes the answer's cookies on."""
    url = answer.data[to]
    context = {"url": url, "host": urlsplit(url).netloc}
    response = render(request, "console/lead_on.html", context)
    response["Refresh"] = f"0;url={iri_to_uri(url)}"
    response.cookies.update(answer.cookies)
    return response
