"""The pages below `/account/connections`: where authorization servers send the browser back, and our clients' data."""

from dataclasses import fields
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from accounts.models import User
from accounts.sessions import PresentedSession, session_ended
from pipedai.api.authentication import PostedForm, is_from_own_page
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError, Forbidden, Invalid
from pipedai.api.principal import UserPrincipal, actor_from
from pipedai.api.throttling import Rate, Throttle, by_address
from pipedai.links import link_to_page
from workspaces.connections import authorizing
from workspaces.connections.authorizing import Returned
from workspaces.connections.models import Connection
from workspaces.connections.servers import client_metadata, document_of, redirect_uri_of

# Each visit counts against this rate, because a code makes work for a scheduler, and an unknown state may be a guess.
_RATE = Throttle(Rate("connection-callback", 60, 60), by_address)
_BROUGHT = tuple(each.name for each in fields(Returned))


@require_safe
def client_document(_request: HttpRequest, connection_id: UUID) -> HttpResponse:
    """Answers with the client ID metadata document of a connection, whose URL is the client id."""
    scopes = (
        Connection.objects.filter(
            id=connection_id,
            grant_type=Connection.Grant.AUTHORIZATION_CODE,
            client_given=False,
            environment__deleted_at__isnull=True,
        )
        .values_list("scopes", flat=True)
        .first()
    )
    if scopes is None:
        raise Http404
    metadata = client_metadata(
        redirect_uri=redirect_uri_of(connection_id), auth_method="none", scopes=scopes
    )
    return JsonResponse({"client_id": document_of(connection_id), **metadata})


# This page needs no CSRF token, because it accepts only forms of our own pages.
@method_decorator(csrf_exempt, name="dispatch")
@method_decorator(never_cache, name="dispatch")
class CallbackPage(View):
    """GET shows what will be connected, and changes nothing. The POST of its form finishes the authorization."""

    http_method_names = ["get", "head", "post"]
    # The signed-in user and their session, if any.
    session: UserPrincipal | None = None
    user: User | None = None

    def dispatch(self, request: HttpRequest, connection_id: UUID) -> HttpResponseBase:
        self.asked = PostedForm(request)
        try:
            return super().dispatch(request, connection_id)
        except ApiError as error:
            return self._page(connection_id, error=error)

    def get(self, request: HttpRequest, connection_id: UUID) -> HttpResponse:
        brought = self._read(request.GET)
        self._find_user()
        # With COOKIE_SAMESITE=Strict browsers send no cookie when another site leads here, but they do with our form.
        if self.session is None:
            return self._page(connection_id, brought=brought)
        return self._look(connection_id, self.session, brought)

    def post(self, request: HttpRequest, connection_id: UUID) -> HttpResponse:
        brought = self._read(request.POST)
        if not is_from_own_page(request):
            raise Forbidden(
                "Only this service's own page may finish this.", code=ErrorCode.FOREIGN_ORIGIN
            )
        self._find_user()
        if self.session is None:
            raise session_ended()
        if request.POST.get("step") != "connect":
            return self._look(connection_id, self.session, brought)
        authorizing.finish(
            connection_id=connection_id,
            session_id=self.session.session_id,
            returned=Returned(**brought),
            actor=actor_from(self.asked, "user", self.session.id),
        )
        return self._page(connection_id, done=True)

    def _read(self, given: QueryDict) -> dict[str, str]:
        """Returns what the browser brought. Raises TooManyRequests, and Invalid if a field has a NUL character, which
        no honest form sends and PostgreSQL refuses in text.
        """
        _RATE.check(self.asked)
        if any("\0" in value for _, values in given.lists() for value in values):
            raise Invalid(form=["Null characters are not allowed."])
        return {name: str(given.get(name, "")) for name in _BROUGHT}

    def _find_user(self) -> None:
        """Sets `session` and `user` from the cookie. Raises Unauthenticated for a bearer token or for two cookies."""
        found = PresentedSession().authenticate(self.asked)
        if found is not None:
            self.session = found[0]
            self.user = User.objects.get(id=self.session.id)

    def _look(
        self, connection_id: UUID, session: UserPrincipal, brought: dict[str, str]
    ) -> HttpResponse:
        begun = authorizing.find(
            connection_id=connection_id, session_id=session.session_id, state=brought["state"]
        )
        authorizing.check(begun, Returned(**brought))
        return self._page(connection_id, begun=begun, brought=brought)

    def _page(
        self, connection_id: UUID, *, error: ApiError | None = None, **context: Any
    ) -> HttpResponse:
        context = {"user": self.user, "error": error and _sentence_of(error), **context}
        context["back"] = link_to_page("connection", connection_id)
        status = error.status_code if error else 200
        response = render(self.request, "account/connection.html", context, status=status)
        for name, value in (error.headers if error else {}).items():
            response[name] = value
        # The page's URL contains a code, which other sites must not see.
        response["Referrer-Policy"] = "no-referrer"
        return response


def _sentence_of(error: ApiError) -> str:
    """Returns what a page says about an error: its sentence, or the messages about the form."""
    if not isinstance(error, Invalid):
        return error.message
    messages = [*error.form, *(each for field in error.fields.values() for each in field)]
    return " ".join(messages) or error.message
