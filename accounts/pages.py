"""The HTML pages to which the links of mails lead while DASHBOARD_URL is not set (SPEC §15).

A script moves the token from the URL's fragment, which no browser sends, into the page's form.
"""

from typing import Any, ClassVar

from django.conf import settings
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from accounts import throttles
from accounts.addresses import verify_email
from accounts.authentication import PresentedSession
from accounts.mail.tokens import find_mail
from accounts.models import AccountMail, Session, User
from accounts.registration import RegistrationClosed, check_registration, register_user
from accounts.resets import reset_password
from accounts.serializers import LoginBody, RegisterBody, ResetPasswordBody
from accounts.services import log_in, log_out
from accounts.session_tokens import clear_auth_cookie, set_auth_cookie
from accounts.sessions import Device, device_of
from pipedai.api.authentication import PostedForm, check_origin
from pipedai.api.errors import ApiError, Invalid
from pipedai.api.principal import UserPrincipal, address_of
from pipedai.api.serializers import StrictBody
from pipedai.api.throttling import Throttle
from pipedai.events import Actor
from pipedai.ids import current_request_id


class Visit:
    """A request to a page, with the signed-in user and session, if any. Subclasses set `template`."""

    template: str

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        self.asked = PostedForm(request)
        self.session: UserPrincipal | None = None
        self.user: User | None = None

    def find_user(self) -> None:
        """Sets `session` and `user` from the cookie. Raises Unauthenticated for a bearer token or for two cookies."""
        found = PresentedSession().authenticate(self.asked)
        if found is not None:
            self.session = found[0]
            self.user = User.objects.get(id=self.session.id)

    def begin(self) -> None:
        """Checks a submitted form and its origin, and finds the signed-in user. Raises Forbidden, Invalid,
        Unauthenticated.
        """
        check_origin(self.asked)
        self.refuse_nul(self.request.POST)
        self.find_user()

    def refuse_nul(self, fields: QueryDict) -> None:
        """Raises Invalid if a field has a NUL character, which no honest form sends and PostgreSQL refuses in text."""
        if any("\0" in value for _, values in fields.lists() for value in values):
            raise Invalid(form=["Null characters are not allowed."])

    def posted(self, name: str) -> str:
        """Returns a field of the form, or nothing if it has a NUL character: the page of a refused form shows it."""
        value = str(self.request.POST.get(name, ""))
        return "" if "\0" in value else value

    def actor(self) -> Actor:
        """Returns who acts, for the audit log: the user, or an actor without an id before the user has signed in."""
        user_id = self.session.id if self.session else None
        return Actor("user", user_id, address_of(self.asked), current_request_id.get() or None)

    def device(self) -> Device:
        return device_of(self.asked)

    def sign_in(self) -> Session:
        """Signs in with the form's `email` and `password`. The caller sets the cookie. Raises the login's errors."""
        for throttle in throttles.LOGIN:
            throttle.check(self.asked)
        form = self.request.POST  # NUL characters stay, so that an address with one is refused.
        body = LoginBody(data={name: form.get(name, "") for name in ("email", "password")})
        if not body.is_valid():
            raise Invalid(form=["Type your e-mail address and your password."])
        self.user, session = log_in(
            **body.validated_data,
            replaces=self.session,
            device=self.device(),
            actor=self.actor(),
        )
        self.session = UserPrincipal(self.user.id, session.id)
        return session

    def show(self, *, error: ApiError | None = None, **context: Any) -> HttpResponse:
        context = {"user": self.user, "error": error and sentence_of(error), **context}
        status = error.status_code if error else 200
        response = render(self.request, self.template, context, status=status)
        for name, value in (error.headers if error else {}).items():
            response[name] = value
        response["Referrer-Policy"] = "same-origin"
        return response


def sentence_of(error: ApiError) -> str:
    """Returns what a page says about an error: its sentence, or the messages about the form."""
    if not isinstance(error, Invalid):
        return error.message
    messages = [*error.form, *(each for field in error.fields.values() for each in field)]
    return " ".join(messages) or error.message


class LinkVisit(Visit):
    """A visit to a page by a mail's link. If it opens a session, the answer sets the session's cookie."""

    def __init__(self, request: HttpRequest, template: str, title: str) -> None:
        super().__init__(request)
        self.template, self.title = template, title
        self.opened: Session | None = None

    def ensure_signed_in(self) -> None:
        if self.session is None:
            self.opened = self.sign_in()

    def register(self, kind: str) -> None:
        """Registers with the form. `kind` says what the form's token is: `registration` or `invitation`."""
        self.check(throttles.REGISTER)
        mail = find_mail(self.posted("token"), AccountMail.Purpose(kind))
        values = read_form(
            RegisterBody,
            email=mail.address,
            name=self.posted("name"),
            password=self.posted("password"),
        )
        values |= {f"{kind}_token": self.posted("token")}
        self.user, self.opened = register_user(**values, device=self.device(), actor=self.actor())

    def sign_out(self) -> HttpResponse:
        if self.session is not None:
            log_out(principal=self.session, actor=self.actor())
        self.session = self.user = None
        response = self.page()
        clear_auth_cookie(response)
        return response

    def check(self, limits: tuple[Throttle, ...]) -> None:
        """Counts the visit against the limits of its IP address or of its signed-in user. Raises TooManyRequests."""
        if self.session is not None:
            # Throttles that count by user read `user`, as they do in the API.
            self.asked.user = self.session  # type: ignore[assignment]
        for throttle in limits:
            throttle.check(self.asked)

    def page(self, *, error: ApiError | None = None, **context: Any) -> HttpResponse:
        response = self.show(
            error=error,
            title=self.title,
            token=self.posted("token"),
            dashboard=settings.DASHBOARD_URL,
            # There is no use in a form for who may not register.
            refused=isinstance(error, RegistrationClosed),
            **context,
        )
        if self.opened is not None:
            set_auth_cookie(response, self.opened)
        return response


def read_form(body: type[StrictBody], **values: str) -> dict[str, Any]:
    read = body(data=values)
    if not read.is_valid():
        raise Invalid(
            {name: [str(each) for each in errors] for name, errors in read.errors.items()}
        )
    return dict(read.validated_data)


# These pages need no CSRF token, because a request is refused unless its Origin is allowed, as in the API
# (pipedai.api.authentication).
@method_decorator(csrf_exempt, name="dispatch")
@method_decorator(never_cache, name="dispatch")
class LinkPage(View):
    """A page whose GET shows a form and whose POST carries it out. Subclasses set `template` and `title`."""

    http_method_names = ["get", "head", "post"]
    template: ClassVar[str]
    title: ClassVar[str]

    def get(self, request: HttpRequest) -> HttpResponse:
        visit = LinkVisit(request, self.template, self.title)
        try:
            visit.find_user()
            self.check()
        except ApiError as error:
            return visit.page(error=error)
        return visit.page()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Carries the form out. If that fails, shows the form again with a sentence about the error."""
        visit = LinkVisit(request, self.template, self.title)
        try:
            visit.begin()
            if visit.posted("step") == "sign-out":
                return visit.sign_out()
            context = self.act(visit)
        except ApiError as error:
            return visit.page(error=error, **self.again(visit))
        return visit.page(**context)

    def check(self) -> None:
        """Raises an ApiError if nobody can use the page at present."""

    def act(self, visit: LinkVisit) -> dict[str, Any]:
        """Returns the values for the page's template: `done` is the sentence that ends the visit."""
        raise NotImplementedError

    def again(self, visit: LinkVisit) -> dict[str, Any]:
        return {name: visit.posted(name) for name in ("email", "name")}


class VerifyPage(LinkPage):
    """GET and POST /account/verify: proves an address. The visitor must sign in to the account as well."""

    template, title = "account/verify.html", "Confirm your address"

    def act(self, visit: LinkVisit) -> dict[str, Any]:
        visit.ensure_signed_in()
        assert visit.session is not None
        visit.check(throttles.VERIFY_EMAIL)
        user = verify_email(
            principal=visit.session, token=visit.posted("token"), actor=visit.actor()
        )
        visit.user = user
        return {"done": f"{user.email} is confirmed."}


class ResetPage(LinkPage):
    template, title = "account/reset.html", "Set a new password"

    def act(self, visit: LinkVisit) -> dict[str, Any]:
        visit.check(throttles.RESET_PASSWORD)
        values = read_form(
            ResetPasswordBody, token=visit.posted("token"), newPassword=visit.posted("password")
        )
        reset_password(**values, actor=visit.actor())
        visit.user = None
        return {"done": "The new password is set. Sign in with it."}


class RegisterPage(LinkPage):
    """GET and POST /account/register: makes an account for the owner of an address that a stranger registered."""

    template, title = "account/register.html", "Register"

    def check(self) -> None:
        check_registration(invited=False)

    def act(self, visit: LinkVisit) -> dict[str, Any]:
        visit.register("registration")
        return {"done": "Your account is ready, and your address is confirmed."}
