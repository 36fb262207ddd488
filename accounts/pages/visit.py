"""One visit to an HTML page of the service: who is signed in, what the form says, and how the page is shown."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from accounts import throttles
from accounts.authentication import PresentedSession
from accounts.models import Session, User
from accounts.serializers import LoginBody
from accounts.services import log_in
from accounts.sessions import Device, device_of
from pipedai.api.errors import ApiError, Invalid
from pipedai.api.origin import check_origin
from pipedai.api.posted_form import PostedForm
from pipedai.api.principal import UserPrincipal, address_of
from pipedai.api.request_id import current_request_id
from pipedai.events import Actor


class Visit:
    """One request to a page, with the signed-in user and their session, if there are any.

    A subclass for one page sets `template`.
    """

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
        """Checks the origin of a submitted form, and finds the signed-in user. Raises Forbidden, Unauthenticated."""
        check_origin(self.asked)
        self.find_user()

    def posted(self, name: str) -> str:
        """Returns a field of the form. NUL characters are removed, because PostgreSQL refuses them in text."""
        return str(self.request.POST.get(name, "")).replace("\0", "")

    def actor(self) -> Actor:
        """Returns who acts, for the audit log: the user, or an actor without an id before the user has signed in."""
        user_id = self.session.id if self.session else None
        return Actor("user", user_id, address_of(self.asked), current_request_id.get() or None)

    def device(self) -> Device:
        return device_of(self.asked)

    def sign_in(self) -> Session:
        """Signs in with the form's `email` and `password`, and sets `session` and `user`.

        Returns the new session; the caller sets its cookie. Raises the errors of the API's login.
        """
        for throttle in throttles.LOGIN:
            throttle.check(self.asked)
        form = self.request.POST  # NULs stay in it: an address with one is not valid.
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
        """Renders the page. If there is an `error`, the page has its status, its headers and its sentence."""
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
