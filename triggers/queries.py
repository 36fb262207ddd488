"""Reads triggers for the API, as dicts that hold only what the API shows."""

from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Case, CharField, F, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import JSONObject

from pipedai.api.serializers import sources_of
from pipedai.sql import fetch_by_ids
from triggers.events.listening import OF_SOURCE, OF_TRIGGER
from triggers.models import Listener, Run, Tick, Trigger
from triggers.serializers import LastRunSerializer, TriggerSerializer
from triggers.states import Health, Status

# The columns of triggers that are read: those that the serializer shows. Only the id of the last run is read here,
# since a second query reads all last runs of a page.
_TRIGGER_COLUMNS = sorted(
    sources_of(TriggerSerializer) - {"last_run"} | {"last_run_id", "listens_to"}
)
_LAST_RUN_COLUMNS = sorted(sources_of(LastRunSerializer))


# The SQL expression for the health of a trigger (SPEC §14), by the trigger's row in `trigger_health`.
HEALTH = Case(
    When(enabled=False, then=Value(Health.IDLE.value)),
    When(judged__is_failing=True, then=Value(Health.FAILING.value)),
    When(judged__late_since__isnull=False, then=Value(Health.LATE.value)),
    When(environment__paused_at__isnull=False, then=Value(Health.PAUSED.value)),
    When(judged__has_outcome=True, then=Value(Health.OK.value)),
    default=Value(Health.IDLE.value),
    output_field=CharField(),
)


_LISTENER_COLUMNS = ("source_id", "upstream_id", *OF_SOURCE, *OF_TRIGGER)
# The SQL expression for what a trigger listens to: a list of objects for `entry_of`.
LISTENS_TO = ArraySubquery(
    Listener.objects.filter(trigger_id=OuterRef("id"))
    .order_by("position")
    .values(row=JSONObject(**{column: column for column in _LISTENER_COLUMNS}))
)


def triggers() -> QuerySet[Trigger, dict[str, Any]]:
    newest = Run.objects.filter(trigger_id=OuterRef("id")).order_by("-queued_at", "-id")
    succeeded = Run.objects.filter(
        trigger_id=OuterRef("id"), status=Status.SUCCEEDED, ended_at__isnull=False
    ).order_by("-ended_at")
    ticks = Tick.objects.filter(trigger_id=OuterRef("id")).order_by("-tick_at")
    rows: QuerySet[Trigger, dict[str, Any]] = (
        Trigger.objects.filter(deleted_at__isnull=True)
        .annotate(
            prompt=F("revision__prompt"),
            model=F("revision__model"),
            output_schema=F("revision__output_schema"),
            has_mcp_headers=Q(mcp_headers__isnull=False) | Q(connection__isnull=False),
            has_webhook_secret=Q(webhook_secret__isnull=False),
            health=HEALTH,
            listens_to=LISTENS_TO,
            last_due_at=Subquery(ticks.values("last_tick_at")[:1]),
            last_success_at=Subquery(succeeded.values("ended_at")[:1]),
            last_run_id=Subquery(newest.values("id")[:1]),
        )
        .values(*_TRIGGER_COLUMNS)
    )
    return rows


def with_last_runs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds `last_run` to each row of `triggers()`: the trigger's newest run as a dict, or None. It takes one query."""
    ids = [(row["environment_id"], row["last_run_id"]) for row in rows if row["last_run_id"]]
    runs = {run["id"]: run for run in fetch_by_ids("run", _LAST_RUN_COLUMNS, ids)}
    return [{**row, "last_run": runs.get(row["last_run_id"])} for row in rows]
