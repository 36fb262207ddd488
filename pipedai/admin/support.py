"""Defines support actions, by which staff change a row, each after a page that asks for confirmation (SPEC §10)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import Model
from django.http import HttpRequest

from pipedai.api.request_id import current_request_id
from pipedai.events import Actor


@dataclass(frozen=True)
class SupportAction:
    """An action by which staff change one row.

    `perform` calls the same service as the API, which checks and audits it.
    """

    name: str
    label: str
    # What the action will do, in one or two sentences. The page that asks for confirmation shows them.
    explanation: str
    done: str
    applies: Callable[[Any], bool]
    perform: Callable[[Any, Actor], object]
    is_harsh: bool = False


def staff_actor(request: HttpRequest) -> Actor:
    """Returns the staff user of a request as an actor for the audit log."""
    address = request.META.get("REMOTE_ADDR") or None
    return Actor("staff", request.user.pk, address, current_request_id.get() or None)


def actions_for(actions: tuple[SupportAction, ...], row: Model) -> list[SupportAction]:
    """Returns the actions that are possible with the row in its present state."""
    return [action for action in actions if action.applies(row)]
