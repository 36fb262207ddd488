"""Reads bodies and filters of the worker endpoints for people, reads workers from the database, and renders them."""

from datetime import datetime
from typing import Any, Literal, NoReturn
from uuid import UUID

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Case, Count, Exists, F, OuterRef, Q, QuerySet, Subquery, When
from django.db.models.functions import Coalesce, Now
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.fields import NameField, TextField, TrueFalseField, WholeNumberField
from pipedai.api.filters import ApiFilterSet, IdFilter, IncludeFilter, TrueFalseFilter, WordFilter
from pipedai.api.serializers import Body, NamedSerializer, RowSerializer, StrictBody, sources_of
from pipedai.sql import NOW, Row, fetch_all
from triggers.models import Run
from workers.models import MAX_CONCURRENCY, ONLINE_WITHIN, PoolMember, Worker
from workspaces.serializers import PoolIdsField


class AuthModeField(serializers.ChoiceField):
    """How the agent pays for the model: `claude_max` or `api_key`. Hyphens instead of underscores are accepted."""

    def to_internal_value(self, data: Any) -> Any:
        return super().to_internal_value(data.replace("-", "_") if isinstance(data, str) else data)


class AccountIdField(TextField):
    """An opaque text for the account that pays for the model: 1 to 64 printable ASCII characters, or null."""

    def __init__(self) -> None:
        super().__init__(max_length=64, required=False, allow_null=True)

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if not (value.isascii() and value.isprintable()):
            raise serializers.ValidationError("Must be printable ASCII characters.")
        return value

    def to_representation(self, value: Any) -> NoReturn:
        raise NotImplementedError


@extend_schema_field({"type": "null"})
class NullField(serializers.Field[Any, Any, Any, Any]):
    """A field that can only be cleared: every value but null is an error."""

    # DRF's `allow_null` would do the same, but drf-spectacular can't describe a field that allows null alone.
    def validate_empty_values(self, data: Any) -> tuple[bool, Any]:
        return (True, None) if data is None else super().validate_empty_values(data)

    def to_internal_value(self, data: Any) -> NoReturn:
        raise serializers.ValidationError("Must be null.")


class WorkerBody(StrictBody):
    label = NameField(max_length=255)  # type: ignore[assignment]
    maxConcurrency = WholeNumberField(min_value=1, max_value=MAX_CONCURRENCY)
    disabled = TrueFalseField()
    accountId = AccountIdField()
    limitedUntil = NullField()


class ProblemSerializer(RowSerializer):
    """What a worker says is wrong with its machine."""

    code = serializers.CharField()
    message = serializers.CharField()


# The values of a worker's `status`, for the schema.
PRESENCE = ("online", "offline")
# The groups of workers that a list counts, as conditions on their rows with the column `online`.
KINDS = {"online": Q(online=True), "offline": Q(online=False), "withProblems": ~Q(problems=[])}
ONLINE = Coalesce(Q(last_seen_at__gt=Now() - ONLINE_WITHIN, signed_off_at__isnull=True), False)


class WorkerSerializer(RowSerializer):
    """A worker as the API shows it. `status`, `derivedStatus`, `currentRunId` and `heldRuns` are computed, not
    stored."""

    of = Worker
    shows = (
        "id environmentId workspaceId label hostname os version authMode maxConcurrency status"
        " derivedStatus currentRunId heldRuns disabled approved limitedUntil problems poolIds"
        " lastSeenAt createdAt"
    )
    workspaceId = serializers.UUIDField()
    status = serializers.SerializerMethodField()
    derivedStatus = serializers.SerializerMethodField()
    currentRunId = serializers.UUIDField(allow_null=True)
    heldRuns = serializers.IntegerField()
    disabled = serializers.BooleanField()
    approved = serializers.BooleanField()
    limitedUntil = serializers.DateTimeField(source="limit_ends_at", allow_null=True)
    problems = ProblemSerializer(many=True)
    poolIds = serializers.ListField(child=serializers.UUIDField())

    def get_status(self, worker: dict[str, Any]) -> Literal["online", "offline"]:
        """`online` if the worker polled or sent a heartbeat lately, else `offline`."""
        return "online" if worker["online"] else "offline"

    def get_derivedStatus(  # noqa: N802
        self, worker: dict[str, Any]
    ) -> Literal["disabled", "busy", "online", "offline"]:
        """The first of these that holds: `disabled`, `busy` (the worker has claimed a run that has not ended),
        `online`, `offline`.
        """
        if worker["disabled"]:
            return "disabled"
        return "busy" if worker["current_run_id"] else self.get_status(worker)


class RegistrationTokenBody(Body):
    label = NameField(max_length=200, allow_null=True, default=None)  # type: ignore[assignment]
    poolIds = PoolIdsField()


class RegistrationTokenSerializer(NamedSerializer):
    """A registration token, which is shown this once."""

    id = serializers.UUIDField(source="key.id")
    token = serializers.CharField()
    lastFour = serializers.CharField(source="key.last_four")
    expiresAt = serializers.DateTimeField(source="key.expires_at")


class WorkerFilters(ApiFilterSet):
    status = WordFilter(choices=[(each, each) for each in PRESENCE], method="by_status")
    poolId = IdFilter(method="by_pool", of=["workers.Pool"])

    def by_status(self, queryset: QuerySet[Worker], name: str, value: str) -> QuerySet[Worker]:
        """Keeps the workers that are online for `online`, and all other workers for `offline`."""
        return queryset.filter(Q(online=value == "online"))

    def by_pool(self, queryset: QuerySet[Worker], name: str, value: UUID) -> QuerySet[Worker]:
        return queryset.filter(
            Exists(PoolMember.objects.filter(pool_id=value, worker_id=OuterRef("id")))
        )


class ListedWorkerFilters(WorkerFilters):
    hasProblems = TrueFalseFilter(method="by_problems")
    include = IncludeFilter(choices=["counts", "recent"])

    def by_problems(self, queryset: QuerySet[Worker], name: str, value: bool) -> QuerySet[Worker]:
        return queryset.filter(KINDS["withProblems"] if value else ~KINDS["withProblems"])


class ListedWorkerSerializer(WorkerSerializer):
    """A worker of an environment's list. `recent` is there if it was asked for with `include=recent`."""

    recent = serializers.ListField(child=serializers.IntegerField(), required=False)


# The index `run_ended` has all of the runs of the last 24 hours that this needs.
_RECENT = f"""
SELECT worker_id, floor(extract(epoch FROM {NOW} - ended_at) / 3600)::int AS hours_ago, count(*) AS runs FROM run
WHERE environment_id = %(environment_id)s AND ended_at IS NOT NULL AND ended_at <= {NOW}
    AND ended_at > {NOW} - interval '24 hours'
GROUP BY 1, 2
"""  # noqa: S608


def with_recent_runs(
    rows: list[Row], environment_id: UUID, *, now: datetime | None = None
) -> list[Row]:
    """Adds `recent` to each worker: the number of its runs that ended in each of the last 24 hours, by one query."""
    recent = {row["id"]: [0] * 24 for row in rows}
    for found in fetch_all(_RECENT, {"environment_id": environment_id, "now": now}):
        if found["worker_id"] in recent:
            recent[found["worker_id"]][23 - found["hours_ago"]] = found["runs"]
    return [{**row, "recent": recent[row["id"]]} for row in rows]


# The columns to read: those that WorkerSerializer shows, and `online`, which its `status` is derived from.
_COLUMNS = sorted(sources_of(WorkerSerializer) | {"online"})


def worker_rows() -> QuerySet[Worker, dict[str, Any]]:
    """Returns the workers that are not deregistered, with the computed columns `online`, `disabled`, `approved`,
    `current_run_id` (of a held run), `held_runs` (how many), `limit_ends_at` (NULL if not limited) and `pool_ids`.
    """
    pools = PoolMember.objects.filter(worker_id=OuterRef("id")).order_by("pool_id")
    held = Run.objects.filter(
        environment_id=OuterRef("environment_id"), worker_id=OuterRef("id"), slot__isnull=False
    ).order_by("slot")
    count = held.order_by().values("worker_id").annotate(runs=Count("*")).values("runs")
    rows: QuerySet[Worker, dict[str, Any]] = (
        Worker.objects.filter(deleted_at__isnull=True)
        .annotate(
            workspace_id=F("environment__workspace_id"),
            online=ONLINE,
            disabled=Q(disabled_at__isnull=False),
            approved=Q(unapproved_since__isnull=True),
            limit_ends_at=Case(When(limited_until__gt=Now(), then="limited_until")),
            pool_ids=ArraySubquery(pools.values("pool_id")),
            current_run_id=Subquery(held.values("id")[:1]),
            held_runs=Coalesce(Subquery(count), 0),
        )
        .values(*_COLUMNS)
    )
    return rows
