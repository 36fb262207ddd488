"""The HTML page `/pair`, on which a person approves or denies a pairing (RFC 8628; its §5.4 describes phishing)."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.core import signing
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from accounts.pages import Visit
from accounts.services import log_out
from accounts.session_tokens import clear_auth_cookie, set_auth_cookie
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError, Conflict, Forbidden, Invalid, NotFound
from workers.enrollment import pairing
from workers.enrollment.codes import normal_user_code
from workers.hosts.worker_package import worker_package
from workers.models import Enrollment, Worker
from workspaces.access import environments_with
from workspaces.models import Environment
from workspaces.roles import KEY_ROLES, Role

PATH = "/pair"
_SALT = "pipedai.pairing-page"

Values = dict[str, Any]


# This page needs no CSRF token: a request is refused unless its Origin is allowed, as in the API
# (pipedai.api.authentication).
@method_decorator(csrf_exempt, name="dispatch")
@method_decorator(never_cache, name="dispatch")
class PairingPage(View):
    """The user signs in, types the code, sees which host asks, and approves or denies it. A code in the URL is ignored,
    so that a person who follows a stranger's link must still read the code from a machine.
    """

    http_method_names = ["get", "head", "post"]

    def get(self, request: HttpRequest) -> HttpResponse:
        visit = _Visit(request)
        try:
            visit.find_user()
        except ApiError as error:
            return visit.at("sign-in", error=error)
        return visit.at("code" if visit.user else "sign-in")

    def post(self, request: HttpRequest) -> HttpResponse:
        """Carries out the step of the submitted form, such as `approve`, and shows the next one."""
        visit = _Visit(request)
        step = visit.posted("step")
        try:
            visit.begin()
        except ApiError as error:
            return visit.at("sign-in", error=error)
        if step == "sign-in":
            return _sign_in(visit)
        if visit.user is None:
            return visit.at("sign-in")
        return _STEPS.get(step, _type_code)(visit)


class _Visit(Visit):
    template = "pairing/page.html"

    def at(self, step: str, *, error: ApiError | None = None, **context: Any) -> HttpResponse:
        """Renders the page at this step, such as `sign-in`, with the status and headers of `error` if there is one."""
        install = worker_package().install_command
        return self.show(error=error, step=step, install=install, **context)


def _sign_in(visit: _Visit) -> HttpResponse:
    try:
        session = visit.sign_in()
    except ApiError as error:
        visit.user = None
        return visit.at("sign-in", error=error, email=visit.posted("email"))
    response = HttpResponseRedirect(PATH)
    response.status_code = 303
    set_auth_cookie(response, session)
    return response


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
        return visit.at("code", error=_NoSuchCode(), typed=typed)
    except ApiError as error:
        return visit.at("code", error=error)
    return _ask(visit, found, normal_user_code(typed) or "")


def _approve(visit: _Visit) -> HttpResponse:
    assert visit.session is not None
    try:
        found, code = _found(visit)
    except ApiError as error:
        return visit.at("code", error=error)
    if found.kind == Enrollment.Kind.KEY:
        return _approve_login(visit, found, code)
    environment = _chosen(visit, Role.ADMIN)
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
        return visit.at("code", error=error)
    return visit.at("approved", environment=environment, pairing=found)


def _approve_login(visit: _Visit, found: Enrollment, code: str) -> HttpResponse:
    assert visit.session is not None
    environment = _chosen(visit, Role.VIEWER)
    role = visit.posted("role")
    if environment is None or role not in KEY_ROLES:
        message = "Choose the environment and the role."
        return _ask(visit, found, code, error=Invalid(form=[message]))
    try:
        pairing.approve_login(
            enrollment_id=found.id,
            environment_id=environment.id,
            role=Role(role),
            user_id=visit.session.id,
            actor=visit.actor(),
        )
    except Forbidden:
        message = "Your own role there is lower. Choose that, or a lower one."
        return _ask(visit, found, code, error=Invalid(form=[message]))
    except ApiError as error:
        return visit.at("code", error=error)
    return visit.at("approved", environment=environment, pairing=found)


def _deny(visit: _Visit) -> HttpResponse:
    assert visit.session is not None
    try:
        found, _ = _found(visit)
        pairing.deny_pairing(enrollment_id=found.id, user_id=visit.session.id, actor=visit.actor())
    except ApiError as error:
        return visit.at("code", error=error)
    return visit.at("denied")


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
    needs = Role.VIEWER if found.kind == Enrollment.Kind.KEY else Role.ADMIN
    proof = {"id": str(found.id), "session": str(visit.session.session_id), "code": code}
    return visit.at(
        "decide",
        error=error,
        pairing=found,
        code=code,
        proof=signing.dumps(proof, salt=_SALT),
        environments=environments_with(needs, visit.session.id),
        roles=[role.value for role in KEY_ROLES],
        auth_mode=visit.posted("auth_mode") or Worker.AuthMode.CLAUDE_MAX.value,
    )


def _found(visit: _Visit) -> tuple[Enrollment, str]:
    """Returns the pairing whose code this session typed, and the code. Raises Conflict if it no longer waits."""
    assert visit.session is not None
    try:
        proof = signing.loads(visit.posted("proof"), salt=_SALT, max_age=pairing.LIFETIME)
        if proof["session"] != str(visit.session.session_id):
            raise Conflict(_OVER, code=ErrorCode.ENROLLMENT_EXPIRED)
        return pairing.pending_pairing(UUID(proof["id"])), proof["code"]
    except (signing.BadSignature, NotFound):
        raise Conflict(_OVER, code=ErrorCode.ENROLLMENT_EXPIRED) from None


_OVER = "Somebody has decided on this request already, or it has expired: type the code again."


def _chosen(visit: _Visit, needs: Role) -> Environment | None:
    assert visit.session is not None
    try:
        chosen = UUID(visit.posted("environment"))
    except ValueError:
        return None
    return environments_with(needs, visit.session.id).filter(id=chosen).first()


class _NoSuchCode(ApiError):  # noqa: N818
    status_code = 404

    def __init__(self) -> None:
        super().__init__(
            "Nothing waits with this code. It is shown where you began, on the host's or your own screen.",
            code=ErrorCode.NOT_FOUND,
        )
