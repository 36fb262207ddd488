"""Writes what the end of a run leads to, in its transaction: error, retry, webhook, event, audit row and budgets."""

from decimal import Decimal
from typing import Any
from uuid import UUID

from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.sql import Row, execute
from triggers.budgets.settling import settle_reservations
from triggers.runs import texts
from triggers.runs.pools import freed_slots, wake_for
from triggers.runs.retries import create_retries, retry_events, stopped_by_effects
from triggers.webhooks.outbox import queue_deliveries


def follow_up(
    ended: list[Row],
    events: list[Event],
    *,
    retry_after_seconds: int | None = None,
    told_cost: Decimal | None = None,
) -> None:
    """Writes the errors, retries, deliveries, events and audit rows of ended runs, and settles their budgets, in the
    transaction of their end. It sets in each row `will_retry`, and `resume_until`: until when the worker may continue
    the session, or None. `told_cost` is what the worker of a single run told of the cost of its last spell. On commit
    workers and streams are woken.
    """
    keep_errors([run for run in ended if run["error_message"] is not None])
    retries = create_retries(ended, retry_after_seconds=retry_after_seconds)
    retry_of = {retry["retry_of_id"]: retry for retry in retries}
    for run in ended:
        retry = retry_of.get(run["id"])
        run["will_retry"] = retry is not None
        run["resume_until"] = None if retry is None else retry["resume_until"]
    queue_deliveries(ended)
    _keep_ends([run["id"] for run in ended if run["is_heard"]])
    emit(*events, *retry_events(retries))
    # Budgets come last, because the claims and ends of runs of an environment wait for each other from here on.
    if reserved := [run["id"] for run in ended if run["has_reservations"]]:
        settle_reservations(reserved, told_cost=told_cost)
    # The ids of the ended runs wake the streams of their events, which then end as well.
    told = [id_ for run in ended for id_ in (run["worker_id"], run["id"])]
    wake_for([*retries, *freed_slots(ended)], also=told)


def _keep_ends(run_ids: list[UUID]) -> None:
    if run_ids:
        execute(texts.KEEP_ENDS, {"ids": [new_id() for _ in run_ids], "run_ids": run_ids})


def keep_errors(runs: list[Row]) -> None:
    if runs:
        execute(
            texts.KEEP_ERRORS,
            {
                "run_ids": [run["id"] for run in runs],
                "environment_ids": [run["environment_id"] for run in runs],
                "messages": [run["error_message"] for run in runs],
            },
        )


def ended_event(action: str, actor: Actor, run: Row, more: dict[str, Any] | None = None) -> Event:
    """Returns the event of an ended run. It says if possible effects of tool calls prevent a retry."""
    if stopped_by_effects(run):
        more = {**(more or {}), "retry": "had_effects"}
    return run_event(action, actor, run, more)


def run_event(action: str, actor: Actor, run: Row, more: dict[str, Any] | None = None) -> Event:
    metadata = {"triggerId": str(run["trigger_id"]), "status": run["status"], **(more or {})}
    if run["fault_class"] is not None:
        metadata["faultClass"] = run["fault_class"]
    return Event(action, actor, run["environment_id"], "run", run["id"], metadata)
