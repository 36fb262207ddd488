"""The HTML page `/pair`, on which a person approves or denies a pairing (RFC 8628; its §5.4 describes phishing)."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.core import signing
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from accounts import throttles
from accounts.authentication import PresentedSession
from accounts.cookies import clear_auth_cookie, set_auth_cookie
from accounts.models import User
from accounts.serializers import LoginBody
from accounts.services import log_in, log_out
from accounts.sessions import device_of
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError, Conflict, Invalid, NotFound
from pipedai.api.origin import check_origin
from pipedai.api.posted_form import PostedForm
from pipedai.api.principal import UserPrincipal, address_of
from pipedai.api.request_id import current_request_id
from pipedai.events import Actor
from workers.enrollment import pairing
from workers.enrollment.codes import normal_user_code
from workers.hosts.worker_package import worker_package
from workers.models import Enrollment, Worker
from workspaces.models import Environment
from workspaces.queries import administered_environments

PATH = "/pair"
_SALT = "pipedai.pairing-page"

Values = dict[str, Any]


# This page needs no CSRF token: a request is refused unless its Origin is allowed, as in the API (pipedai.api.origin).
@method_decorator(csrf_exempt, name="dispatch")
@method_decorator(never_cache, name="dispatch")
class PairingPage(View):
    """GET and POST /pair: the user signs in, types the code, sees which host asks, and approves or denies it.

    Each step is a form. The page ignores a code in its URL: a person who follows a stranger's link must still read the
    code from the machine that they let in.
    """

    http_method_names = ["get", "head", "post"]

    def get(self, request: HttpRequest) -> HttpResponse:
        """Shows the form for signing in, or the form for the code if the user is signed in."""
        visit = _Visit(request)
        try:
            visit.find_user()
        except ApiError as error:
            return visit.show("sign-in", error=error)
        return visit.show("code" if visit.user else "sign-in")

    def post(self, request: HttpRequest) -> HttpResponse:
        """Carries out the step of the submitted form, such as `approve`, and shows the next one."""
        visit = _Visit(request)
        step = visit.posted("step")
        try:
            check_origin(visit.asked)
            visit.find_user()
        except ApiError as error:
            return visit.show("sign-in", error=error)
        if step == "sign-in":
            return _sign_in(visit)
        if visit.user is None:
            return visit.show("sign-in")
        return _STEPS.get(step, _type_code)(visit)


class _Visit:
    """One request to the page, with the signed-in user and their session, if there are any."""

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

    def posted(self, name: str) -> str:
        """Returns a field of the form. NUL characters are removed, because PostgreSQL refuses them in text."""
        return str(self.request.POST.get(name, "")).replace("\0", "")

    def actor(self) -> Actor:
        """Returns who acts, for the audit log: the user, or an actor without an id before the user has signed in."""
        user_id = self.session.id if self.session else None
        return Actor("user", user_id, address_of(self.asked), current_request_id.get() or None)

    def show(self, step: str, *, error: ApiError | None = None, **context: Any) -> HttpResponse:
        """Renders the page at this step, such as `sign-in`, with the status and headers of `error` if there is one."""
        context = {
            "step": step,
            "install": worker_package().install_command,
            "user": self.user,
            "error": error and _sentence(error),
            **context,
        }
        status = error.status_code if error else 200
        response = render(self.request, "pairing/page.html", context, status=status)
        for name, value in (error.headers if error else {}).items():
            response[name] = value
        response["Referrer-Policy"] = "same-origin"
        return response


def _sign_in(visit: _Visit) -> HttpResponse:
    try:
        for throttle in throttles.LOGIN:
            throttle.check(visit.asked)
        _, session = log_in(
            **_credentials(visit.request.POST),
            replaces=visit.session,
            device=device_of(visit.asked),
            actor=visit.actor(),
        )
    except ApiError as error:
        visit.user = None
        return visit.show("sign-in", error=error, email=visit.posted("email"))
    response = HttpResponseRedirect(PATH)
    response.status_code = 303
    set_auth_cookie(response, session)
    return response


def _credentials(form: QueryDict) -> dict[str, Any]:
    """Returns the e-mail address and password of the form, checked as the API's login checks them. Raises Invalid."""
    body = LoginBody(data={name: form.get(name, "") for name in ("email", "password")})
    if not body.is_valid():
        raise Invalid(form=["Type your e-mail address and your password."])
    return dict(body.validated_data)


def _sign_out(visit: _Visit) -> HttpResponse:
    assert visit.session is not None
    log_out(principal=visit.session, actor=visit.actor())
    response = HttpResponseRedirect(PATH)
    response.status_code = 303
    clear_auth_cookie(response)
    return response


def _type_code(visit: _Visit) -> HttpResponse:
    assert visit.session is not None
    typed = visit.posted("code")
    try:
        found = pairing.find_pending(typed=typed, user_id=visit.session.id)
    except NotFound:
        return visit.show("code", error=_NoSuchCode(), typed=typed)
    except ApiError as error:
        return visit.show("code", error=error)
    return _ask(visit, found, normal_user_code(typed) or "")


def _approve(visit: _Visit) -> HttpResponse:
    assert visit.session is not None
    try:
        found, code = _found(visit)
    except ApiError as error:
        return visit.show("code", error=error)
    environment = _chosen(visit)
    auth_mode = visit.posted("auth_mode")
    if environment is None or auth_mode not in Worker.AuthMode.values:
        message = "Choose the environment that the host is to work for."
        return _ask(visit, found, code, error=Invalid(form=[message]))
    try:
        pairing.approve_pairing(
            enrollment_id=found.id,
            environment_id=environment.id,
            auth_mode=auth_mode,
            user_id=visit.session.id,
            actor=visit.actor(),
        )
    except ApiError as error:
        return visit.show("code", error=error)
    return visit.show("approved", environment=environment)


def _deny(visit: _Visit) -> HttpResponse:
    assert visit.session is not None
    try:
        found, _ = _found(visit)
        pairing.deny_pairing(enrollment_id=found.id, user_id=visit.session.id, actor=visit.actor())
    except ApiError as error:
        return visit.show("code", error=error)
    return visit.show("denied")


_STEPS: dict[str, Callable[[_Visit], HttpResponse]] = {
    "code": _type_code,
    "approve": _approve,
    "deny": _deny,
    "sign-out": _sign_out,
}


def _ask(
    visit: _Visit, found: Enrollment, code: str, *, error: ApiError | None = None
) -> HttpResponse:
    """Shows which host asks. The form carries a signed proof that this session typed the code."""
    assert visit.session is not None
    proof = {"id": str(found.id), "session": str(visit.session.session_id), "code": code}
    return visit.show(
        "decide",
        error=error,
        pairing=found,
        code=code,
        proof=signing.dumps(proof, salt=_SALT),
        environments=administered_environments(visit.session.id),
        auth_mode=visit.posted("auth_mode") or Worker.AuthMode.CLAUDE_MAX.value,
    )


def _found(visit: _Visit) -> tuple[Enrollment, str]:
    """Returns the pairing whose code this session typed, and the code. Raises Conflict if the pairing no longer waits
    for a decision.
    """
    assert visit.session is not None
    try:
        proof = signing.loads(visit.posted("proof"), salt=_SALT, max_age=pairing.LIFETIME)
        if proof["session"] != str(visit.session.session_id):
            raise Conflict(_OVER, code=ErrorCode.ENROLLMENT_EXPIRED)
        return pairing.pending_pairing(UUID(proof["id"])), proof["code"]
    except (signing.BadSignature, NotFound):
        raise Conflict(_OVER, code=ErrorCode.ENROLLMENT_EXPIRED) from None


_OVER = "Somebody has decided on this request already, or it has expired: type the code again."


def _chosen(visit: _Visit) -> Environment | None:
    """Returns the environment that the form names. None if the user is no admin of it."""
    assert visit.session is not None
    try:
        chosen = UUID(visit.posted("environment"))
    except ValueError:
        return None
    return administered_environments(visit.session.id).filter(id=chosen).first()


def _sentence(error: ApiError) -> str:
    return error.form[0] if isinstance(error, Invalid) and error.form else error.message


class _NoSuchCode(ApiError):  # noqa: N818
    status_code = 404

    def __init__(self) -> None:
        super().__init__(
            "No host waits with this code. It is shown on the host's own screen.",
            code=ErrorCode.NOT_FOUND,
        )
