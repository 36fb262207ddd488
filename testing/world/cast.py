"""Makes a small fixed cast for tests: the people, keys and worker of one workspace, and a stranger."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models.functions import Now
from rest_framework.test import APIClient

from accounts.models import Session, User
from accounts.sessions import LIFETIME, new_session_token
from pipedai.api.authentication import AUTH_COOKIE
from pipedai.events import Actor
from testing.probes import leaks
from testing.world.trigger_values import trigger_values
from testing.world.users import UserFactory
from triggers import services
from workers.enrollment.issuing import issue_code
from workers.enrollment.redeeming import Redeemed, redeem
from workers.models import Enrollment
from workers.registration import Registered, register_worker
from workspaces.api_keys import mint_api_key, mint_registration_token
from workspaces.models import Environment, Membership, Workspace
from workspaces.roles import Role
from workspaces.services import create_environment, create_workspace

TEST_ACTOR = Actor("system")


@dataclass
class Cast:
    """The people and rows that most tests use.

    `owner`, `admin`, `operator` and `viewer` are members of `environment`, and `worker` is registered in it. `stranger`
    owns `strange_environment` in another workspace.
    """

    workspace: Workspace
    environment: Environment
    owner: User
    admin: User
    operator: User
    viewer: User
    stranger: User
    strange_environment: Environment
    worker: Registered
    trigger_id: UUID

    def client(self, user: User) -> APIClient:
        """Returns a client that sends the user's session cookie, as a browser does."""
        return browser(session_cookie(user))

    def key_client(self, role: str = "operator") -> APIClient:
        """Returns a client that sends a new `pwk_` key of `environment`, as an external system does."""
        return bearer(self.mint("pwk", role=role))

    def worker_client(self, worker: Registered | None = None) -> APIClient:
        """Returns a client that sends the worker's `wkt_` token."""
        return bearer((worker or self.worker).worker_token)

    def host(self, hostname: str = "host-enrolled") -> Redeemed:
        """Enrolls a host in `environment`, and returns its worker and its two tokens."""
        return enroll(self.environment, self.owner, hostname)

    def mint(self, kind: str, **kwargs: Any) -> str:
        """Makes a new key of `environment` and returns its token."""
        return _mint(self.environment, self.owner, kind, **kwargs)

    def mint_elsewhere(self, kind: str, **kwargs: Any) -> str:
        """Makes a new key of `strange_environment` and returns its token."""
        return _mint(self.strange_environment, self.stranger, kind, **kwargs)

    def register(self, hostname: str, *, max_concurrency: int = 1) -> Registered:
        """Registers another worker in `environment`."""
        return register(self.mint("wrk"), hostname, max_concurrency=max_concurrency)

    def register_by_key(self, hostname: str) -> Registered:
        """Registers a worker in `environment` whose `wrk_` token a `pwk_` key minted, so that no person approved it."""
        self.mint("pwk", role="admin")
        key = self.environment.api_keys.filter(kind="pwk").latest("id")
        minted = mint_registration_token(
            environment_id=self.environment.id, label=None, actor=Actor("api_key", key.id)
        )
        return register(minted.token, hostname)

    def add_trigger(self, **values: Any) -> UUID:
        """Adds another trigger to `environment`, for `worker` unless the values name another."""
        values = {"worker_id": self.worker.worker_id, **values}
        return services.TRIGGERS.create(
            environment_id=self.environment.id, actor=TEST_ACTOR, values=trigger_values(**values)
        )


def make_cast() -> Cast:
    """Makes the cast by calling the services."""
    names = [*(role.value for role in Role), "stranger"]
    *users, stranger = User.objects.bulk_create(UserFactory.build(name=name) for name in names)
    people = dict(zip(Role, users, strict=True))
    owner = people[Role.OWNER]
    workspace, environment = _environment_of(owner, "production")
    Membership.objects.bulk_create(
        Membership(environment=environment, user=user, role=role.value)
        for role, user in people.items()
        if role is not Role.OWNER
    )
    _, strange_environment = _environment_of(stranger, "strange")
    cast = Cast(
        workspace=workspace,
        environment=environment,
        owner=owner,
        admin=people[Role.ADMIN],
        operator=people[Role.OPERATOR],
        viewer=people[Role.VIEWER],
        stranger=stranger,
        strange_environment=strange_environment,
        worker=None,  # type: ignore[arg-type]  # It is set below.
        trigger_id=None,  # type: ignore[arg-type]
    )
    cast.worker = cast.register("host-1")
    cast.trigger_id = cast.add_trigger()
    return cast


def register(token: str, hostname: str, *, max_concurrency: int = 1) -> Registered:
    """Registers a worker with a `wrk_` token."""
    values = {
        "hostname": hostname,
        "os": "linux",
        "version": "1.0.0",
        "auth_mode": "claude_max",
        "max_concurrency": max_concurrency,
    }
    return register_worker(token=token, values=values, actor=TEST_ACTOR)


def issue_enrollment(
    environment: Environment, admin: User, auth_mode: str = "claude_max"
) -> tuple[Enrollment, str]:
    """Returns an enrollment that an admin issues, and its code."""
    return issue_code(
        environment_id=environment.id,
        label=None,
        auth_mode=auth_mode,
        expires_at=None,
        user_id=admin.id,
        actor=TEST_ACTOR,
    )


def enroll(environment: Environment, admin: User, hostname: str) -> Redeemed:
    """Enrolls a host by a new code."""
    _, code = issue_enrollment(environment, admin)
    values = {"hostname": hostname, "os": "linux", "version": "1.0.0", "label": None}
    return redeem(code=code, device_code=None, values=values, actor=TEST_ACTOR)


class JSONClient(APIClient):
    """A test client that sends JSON unless a call asks for another format."""

    default_format = "json"

    def generic(  # type: ignore[override]  # its parents disagree with each other
        self, method: str, path: str, data: Any = "", *args: Any, **kwargs: Any
    ) -> Any:
        """Sends the request, and passes the answer to the watch for leaked secrets."""
        response = super().generic(method, path, data, *args, **kwargs)
        headers = [f"{name}: {value}" for name, value in response.headers.items()]
        text = "\n".join([*headers, response.content.decode(errors="replace")])
        leaks.answered(path.partition("?")[0], str(data), text)
        return response


def browser(cookie: str | None = None) -> APIClient:
    """Returns a client that sends this session cookie. Without a cookie it is not authenticated until it logs in."""
    client = JSONClient()
    if cookie is not None:
        client.cookies[AUTH_COOKIE] = cookie
    return client


def bearer(token: str) -> APIClient:
    """Returns a client that sends the token as a Bearer header."""
    client = JSONClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client


def session_cookie(user: User) -> str:
    """Makes a session of the user and returns its `auth_token`."""
    session = Session.objects.create(user=user, expires_at=Now() + LIFETIME, last_used_at=Now())
    return new_session_token(user.id, session.id)


def _mint(environment: Environment, user: User, kind: str, **kwargs: Any) -> str:
    _, token = mint_api_key(
        environment_id=environment.id,
        name=kind,
        kind=kind,
        user_id=user.id,
        actor=TEST_ACTOR,
        **kwargs,
    )
    return token


def _environment_of(user: User, name: str) -> tuple[Workspace, Environment]:
    workspace = create_workspace(name=name, user_id=user.id, actor=TEST_ACTOR)
    environment = create_environment(
        workspace_id=workspace.id, name=name, user_id=user.id, actor=TEST_ACTOR
    )
    return workspace, environment
