"""Defines support actions, by which staff change a row, each after a page that asks for confirmation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.http import HttpRequest

from pipedai.events import Actor
from pipedai.ids import current_request_id


@dataclass(frozen=True)
class SupportAction:
    """An action on one row. `perform` calls the API's service with the row, the staff user as actor, and the form's
    values as keyword arguments.
    """

    label: str
    # What the action will do, in one or two sentences. The page that asks for confirmation shows them.
    explanation: str
    perform: Callable[..., object]
    applies: Callable[[Any], bool] = bool
    # Makes the form on the page that asks for confirmation, from the row and what was posted, which is None at first.
    # None for an action that needs no values.
    form: Callable[[Any, Mapping[str, Any] | None], forms.Form] | None = None


def staff_actor(request: HttpRequest) -> Actor:
    address = request.META.get("REMOTE_ADDR") or None
    return Actor("staff", request.user.pk, address, current_request_id.get() or None)
