"""What an HTML page outside of the console knows of its visitor, and how it shows an error."""

from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render

from accounts.authentication import PresentedSession
from accounts.models import User
from pipedai.api.authentication import PostedForm
from pipedai.api.errors import ApiError, Invalid
from pipedai.api.principal import UserPrincipal, address_of
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
