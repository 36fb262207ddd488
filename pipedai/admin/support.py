"""Support actions: what staff may do to a row, each on a page that asks first (SPEC §10)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import Model
from django.http import HttpRequest

from pipedai.api.request_id import current_request_id
from pipedai.events import Actor


@dataclass(frozen=True)
class SupportAction:
    """One action. `perform` is a service of the API's, which checks, does and audits as for any other caller."""

    name: str
    label: str
    # What will happen, in a sentence or two, for somebody who is about to confirm it.
    explanation: str
    done: str
    applies: Callable[[Any], bool]
    perform: Callable[[Any, Actor], object]
    is_harsh: bool = False


def staff_actor(request: HttpRequest) -> Actor:
    """The staff user of a request, for the audit log."""
    address = request.META.get("REMOTE_ADDR") or None
    return Actor("staff", request.user.pk, address, current_request_id.get() or None)


def actions_for(actions: tuple[SupportAction, ...], row: Model) -> list[SupportAction]:
    """Those that can be taken on the row as it is."""
    return [action for action in actions if action.applies(row)]
