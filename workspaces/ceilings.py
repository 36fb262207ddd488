"""The ceilings: how many rows of each kind there may be, and how staff raise these numbers for single workspaces."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Func, QuerySet, Subquery, Value

from pipedai.api.errors import CeilingReached, Invalid
from pipedai.events import Actor, Event, emit, once
from workspaces.models import Workspace

# Each ceiling by its name in the API, with the number that applies unless staff have raised it. API.md explains them.
PROFILE = {
    "workspaces": 100,
    "environments": 100,
    "members": 1_000,
    "invitations": 1_000,
    "keys": 200,
    "enrollments": 200,
    "workers": 1_000,
    "pools": 200,
    "poolsOfWorker": 20,
    "triggers": 5_000,
    "triggersOfCreator": 20_000,
    "connections": 200,
    "sources": 100,
    "listeners": 100,
    "channels": 100,
    "budgets": 100,
    "newAddresses": 20,
    "newAddressesInWorkspace": 100,
    "asksOfAddress": 20,
    "queuedRuns": 10_000,
}
# The ceilings that staff can raise. These two can't be: the one applies before there is a workspace, and the other
# protects addresses of people outside.
RAISABLE = [name for name in PROFILE if name not in ("workspaces", "asksOfAddress")]
# A raise may be at most this many times the profile's number, because statements that count read that many rows.
MOST_TIMES = 10


def check_ceiling(name: str, things: str, *, environment_id: UUID, rows: QuerySet[Any]) -> None:
    """Raises CeilingReached if the environment has as many of `rows` as it may have. Otherwise the caller may add one.

    Call it with the environment's row locked, so that nobody else counts at the same time. `name` is the API's name for
    the ceiling. `things` is the plural word by which the error's message calls the rows.
    """
    workspace = Workspace.objects.filter(environments=environment_id)
    room = once((name, environment_id), lambda: Room(*held_and_most(name, workspace, rows)))
    if not room.take():
        raise CeilingReached(name, f"The environment has {room.most} {things}, as many as it may.")


@dataclass(slots=True)
class Room:
    """How many rows there are and may be. Changes made together count the rows once, and then add their own."""

    held: int
    most: int

    def take(self) -> bool:
        """Returns whether there is room for one more row, and counts that row."""
        self.held += 1
        return self.held <= self.most


def held_and_most(
    name: str, workspace: QuerySet[Workspace], rows: QuerySet[Any]
) -> tuple[int, int]:
    """Returns how many `rows` there are, and how many their one workspace may have. One statement reads both."""
    number = Subquery(rows.order_by().values(number=Func(Value(1), function="count")))
    raised, held = workspace.values_list("ceilings", number).get()
    return held, most(name, raised)


def most(name: str, raised: Mapping[str, int]) -> int:
    """Returns the ceiling of a workspace whose column `ceilings` is `raised`."""
    return max(PROFILE[name], raised.get(name, 0))


def raise_ceilings(*, workspace_id: UUID, ceilings: Mapping[str, int], actor: Actor) -> None:
    """Sets the named ceilings of the workspace. A number equal to the profile's removes the raise.

    Raises Invalid for a number below the profile's or above MOST_TIMES of it.
    """
    wrong = {
        name: [f"From {PROFILE[name]} to {PROFILE[name] * MOST_TIMES}."]
        for name, number in ceilings.items()
        if not PROFILE[name] <= number <= PROFILE[name] * MOST_TIMES
    }
    if wrong:
        raise Invalid(wrong)
    with transaction.atomic():
        workspace = Workspace.objects.select_for_update(no_key=True).get(id=workspace_id)
        changes = {
            name: [old, number]
            for name, number in ceilings.items()
            if number != (old := most(name, workspace.ceilings))
        }
        if changes:
            raised = {**workspace.ceilings, **ceilings}
            workspace.ceilings = {
                name: number for name, number in raised.items() if number > PROFILE[name]
            }
            workspace.save(update_fields=["ceilings"])
            emit(Event("workspace.updated", actor, None, "workspace", workspace_id, changes))
