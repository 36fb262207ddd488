"""The pages for login to Django admin, logout, and a staff user's own account."""

from typing import Any
from urllib.parse import urlsplit

import segno
from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.middleware.csrf import rotate_token
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme
from django.views import View
from django.views.decorators.cache import never_cache
from rest_framework.request import Request

from accounts import authenticators, throttles
from accounts.emails import Email, NotAnEmail, read_email
from accounts.models import User
from accounts.services import (
    change_password,
    log_in_staff,
    log_out_staff,
)
from accounts.sessions import device_of, open_staff_session
from pipedai.admin.base import staff_actor
from pipedai.admin.site import site
from pipedai.api.authentication import PostedForm
from pipedai.api.errors import ApiError, Invalid, Overloaded
from pipedai.api.throttling import check_rate


def _password(**options: Any) -> forms.CharField:
    autocomplete = options.pop("autocomplete", "current-password")
    widget = forms.PasswordInput({"autocomplete": autocomplete})
    return forms.CharField(strip=False, max_length=1024, widget=widget, **options)


def _code(**options: Any) -> forms.CharField:
    widget = forms.TextInput({"autocomplete": "one-time-code"})
    return forms.CharField(max_length=64, widget=widget, **options)


class LoginForm(forms.Form):
    """The login form of Django admin. It asks everybody for a code, so that nobody learns who has an authenticator."""

    email = forms.CharField(
        label="E-mail address",
        max_length=254,
        strip=False,
        widget=forms.TextInput({"autocomplete": "username", "autofocus": True}),
    )
    password = _password()
    code = _code(
        required=False,
        help_text="From your authenticator, or a recovery code; empty if you have none.",
    )

    def clean_email(self) -> Email:
        try:
            return read_email(self.cleaned_data["email"])
        except NotAnEmail as error:
            raise forms.ValidationError(str(error)) from None


class PasswordForm(forms.Form):
    current = _password(label="Current password")
    new = _password(label="New password", autocomplete="new-password")


class CodeForm(forms.Form):
    code = _code()


@method_decorator(never_cache, name="dispatch")
class StaffLogin(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        if site.has_permission(request):
            return HttpResponseRedirect(_next(request))
        return self._form(request, LoginForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        """The throttles count the try before a password is hashed, since hashing costs much CPU."""
        form = LoginForm(request.POST)
        asked = PostedForm(request)
        try:
            for throttle in throttles.LOGIN:
                throttle.check(asked)
            if not form.is_valid():
                return self._form(request, form, status=400)
            session = log_in_staff(
                **form.cleaned_data,
                device=device_of(asked),
                actor=staff_actor(request),
            )
        except ApiError as error:
            form.add_error(None, error.message)
            return self._form(request, form, status=error.status_code, headers=error.headers)
        request.session.delete()
        _hand_out(request, session)
        return HttpResponseRedirect(_next(request))

    def _form(self, request: HttpRequest, form: LoginForm, **answer: Any) -> HttpResponse:
        allowed = User.objects.filter(password_allowed=True, is_staff=True, is_active=True)
        context = {
            **site.each_context(request),
            "title": "Log in",
            "form": form if not settings.OIDC_ONLY or allowed.exists() else None,
            "issuer": urlsplit(settings.OIDC_ISSUER).netloc,
        }
        return TemplateResponse(
            request, "staff/login.html", {**context, "next": _next(request)}, **answer
        )


class StaffView(View):
    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """Wraps the view in Django admin's check, which redirects everybody except staff to the login page."""
        return site.admin_view(super().as_view(**initkwargs))

    @property
    def user(self) -> User:
        user = self.request.user
        assert isinstance(user, User), "the site's door lets in nobody else"
        return user


class StaffLogout(StaffView):
    http_method_names = ("post",)

    def post(self, request: HttpRequest) -> HttpResponse:
        log_out_staff(user=self.user, session=request.session, actor=staff_actor(request))
        return HttpResponseRedirect(reverse("admin:login"))


class StaffAccount(StaffView):
    """The page /admin/account/, where staff change their password and set up or remove their authenticator."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._page(request)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Carries out the form whose button was pressed."""
        try:
            if settings.THROTTLES_ENABLED:
                check_rate(throttles.STAFF_ACCOUNT, str(self.user.id))
            if "change-password" in request.POST:
                return self._change_password(request)
            if "begin" in request.POST:
                return self._page(request, setup=authenticators.begin_setup(self.user))
            if "enable" in request.POST:
                return self._enable(request)
            if "disable" in request.POST:
                return self._disable(request)
        except ApiError as error:
            messages.error(request, error.message)
        return HttpResponseRedirect(reverse("staff-account"))

    def _change_password(self, request: HttpRequest) -> HttpResponse:
        form = PasswordForm(request.POST)
        if not form.is_valid():
            return self._page(request, password_form=form, status=400)
        device = device_of(Request(request))
        try:
            session = change_password(
                user_id=self.user.id,
                current_password=form.cleaned_data["current"],
                new_password=form.cleaned_data["new"],
                actor=staff_actor(request),
                enter=lambda user: open_staff_session(user, device),
            )
        except (Invalid, Overloaded) as error:
            # The form itself shows the error, and not Django's message storage. If too many passwords are being hashed,
            # the web server drops this response and handles the POST again later, but a stored message would appear.
            said = error.fields if isinstance(error, Invalid) else {"": [error.message]}
            names = {"currentPassword": "current", "newPassword": "new"}
            for field, sentences in said.items():
                for sentence in sentences:
                    form.add_error(names.get(field), sentence)
            return self._page(
                request, password_form=form, status=error.status_code, headers=error.headers
            )
        _hand_out(request, session)
        messages.success(request, "Your password is changed; your other sessions have ended.")
        return HttpResponseRedirect(reverse("staff-account"))

    def _enable(self, request: HttpRequest) -> HttpResponse:
        code = str(request.POST.get("code", ""))
        codes = authenticators.confirm_setup(self.user, code, actor=staff_actor(request))
        if codes is None:
            messages.error(request, "This is not the authenticator's present code.")
            return HttpResponseRedirect(reverse("staff-account"))
        # The recovery codes are shown in this response only, since they are stored nowhere in plain text.
        return self._page(request, codes=codes)

    def _disable(self, request: HttpRequest) -> HttpResponse:
        code = str(request.POST.get("code", ""))
        if authenticators.disable(self.user.id, code, actor=staff_actor(request)):
            messages.success(request, "Your authenticator is off.")
        else:
            messages.error(request, "This is neither an unused code of now nor a recovery code.")
        return HttpResponseRedirect(reverse("staff-account"))

    def _page(
        self,
        request: HttpRequest,
        *,
        password_form: PasswordForm | None = None,
        setup: authenticators.Setup | None = None,
        codes: list[str] | None = None,
        **answer: Any,
    ) -> HttpResponse:
        context: dict[str, Any] = {
            **site.each_context(request),
            "title": "Your account",
            "password_form": password_form or PasswordForm(),
            "code_form": CodeForm(),
            "codes": codes,
            "is_enabled": authenticators.has_authenticator(self.user.id),
        }
        if setup is not None:
            context["secret"] = setup.secret
            context["qr"] = segno.make(setup.uri).svg_inline(
                omitsize=True, border=2, svgclass=None, lineclass=None
            )
        return TemplateResponse(request, "staff/account.html", context, **answer)


def _hand_out(request: HttpRequest, session: SessionBase) -> None:
    request.session = session
    rotate_token(request)


def _next(request: HttpRequest) -> str:
    """Returns the page of admin that the user asked for before the login, or else admin's start page."""
    wanted = str(request.POST.get("next") or request.GET.get("next") or "")
    start = reverse("admin:index")
    if wanted.startswith(start) and url_has_allowed_host_and_scheme(wanted, allowed_hosts=None):
        return wanted
    return start
