"""Defines the principals, which say who is calling, and the audit actor of a request."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from django.http import HttpRequest
from rest_framework.request import Request

from pipedai.events import Actor, ActorType
from pipedai.ids import current_request_id


@dataclass(frozen=True, slots=True)
class Principal:
    type: ClassVar[ActorType]
    # DRF reads this attribute of `request.user`. A principal is always an authenticated caller.
    is_authenticated: ClassVar[bool] = True
    id: UUID


@dataclass(frozen=True, slots=True)
class UserPrincipal(Principal):
    """A person in a browser, identified by the session behind the `auth_token` cookie."""

    type: ClassVar[ActorType] = "user"
    session_id: UUID


@dataclass(frozen=True, slots=True)
class TokenPrincipal(Principal):
    """The owner of a token, who acts in one environment."""

    environment_id: UUID
    workspace_id: UUID


@dataclass(frozen=True, slots=True)
class KeyPrincipal(TokenPrincipal):
    """An external system, identified by a `pwk_` key, which acts in one environment with one role."""

    type: ClassVar[ActorType] = "api_key"
    role: str
    # Whether a person got the key by the login of the command line.
    is_login: bool = False


@dataclass(frozen=True, slots=True)
class HostPrincipal(TokenPrincipal):
    """A machine that supervises workers, identified by its `hos_` key. It may change only the workers it registered."""

    type: ClassVar[ActorType] = "api_key"


@dataclass(frozen=True, slots=True)
class WorkerPrincipal(TokenPrincipal):
    """A worker, by its `wkt_` token, with the columns that every call of a worker needs, read in the same query."""

    type: ClassVar[ActorType] = "worker"
    token_digest: bytes
    max_concurrency: int
    # How the worker's CLI is paid for: `claude_max` or `api_key`.
    auth_mode: str
    disabled: bool
    # Whether an admin approved the worker, so that it may claim runs whose triggers have secret headers.
    approved: bool
    # The opaque word for the account that pays for the worker's model, or None if the worker has not reported one.
    account_id: str | None
    # The features (docs/glossary.md) that the worker has, as its last poll said.
    features: Sequence[str]
    # Until when the worker gets no runs, because the usage limit of its account was reached; None if it has no limit.
    limited_until: datetime | None
    # The pools in which the worker is.
    pool_ids: Sequence[UUID]
    version: str
    last_seen_at: datetime | None
    # The word by which the process that polled last names itself; None if it sent none.
    process_id: str | None
    # Whether that process has said that it ends.
    signed_off: bool
    # Whether a client has ever opened the event stream of this worker.
    is_streamed: bool
    # Whether the worker's `lastSeenAt` is so recent that this call need not write it.
    seen_lately: bool
    # The time of the call on the database's clock.
    now: datetime


def principal_of(request: Request) -> Principal:
    principal: object = request.user
    assert isinstance(principal, Principal), "this action is public"
    return principal


def actor_of(request: Request) -> Actor:
    principal = principal_of(request)
    return actor_from(request, principal.type, principal.id)


def actor_from(request: HttpRequest | Request, type_: ActorType, id_: UUID | None = None) -> Actor:
    """Returns the actor of a request that has no principal, such as the request of a host that enrolls."""
    return Actor(type_, id_, address_of(request), current_request_id.get() or None)


def address_of(request: HttpRequest | Request) -> str | None:
    """Returns the client's address, as the ASGI wrapper resolved it through the trusted proxies."""
    return request.META.get("REMOTE_ADDR") or None
