"""The filters of the worker list, and the parameters of the overview and the statistics (SPEC §5, §12)."""

from uuid import UUID

from django import forms
from django.db.models import Exists, OuterRef, Q, QuerySet

from pipedai.api.filters import ApiFilter, ApiFilterSet, IdFilter, TimeFilter, WordFilter
from triggers.runs.stats import GROUPINGS
from triggers.schedules.cron import BadTimezone, check_timezone
from workers.models import PoolMember, Worker


class WorkerFilters(ApiFilterSet):
    status = WordFilter(choices=[("online", "online"), ("offline", "offline")], method="by_status")
    poolId = IdFilter(method="by_pool")

    def by_status(
        self,
        queryset: QuerySet[Worker],
        name: str,
        value: str,
    ) -> QuerySet[Worker]:
        """Keeps the workers that are online for `online`, and all others for `offline`."""
        return queryset.filter(Q(online=value == "online"))

    def by_pool(self, queryset: QuerySet[Worker], name: str, value: UUID) -> QuerySet[Worker]:
        return queryset.filter(
            Exists(PoolMember.objects.filter(pool_id=value, worker_id=OuterRef("id")))
        )


class _ZoneField(forms.CharField):
    """The IANA name of a time zone, by default UTC."""

    def clean(self, value: str | None) -> str:
        name = "UTC" if value is None else value
        try:
            check_timezone(name)
        except BadTimezone as error:
            raise forms.ValidationError(str(error)) from None
        return name


class _ZoneFilter(ApiFilter):
    field_class = _ZoneField
    described = {"schema": {"type": "string", "maxLength": 64, "default": "UTC"}}


class OverviewFilters(ApiFilterSet):
    timezone = _ZoneFilter()


class StatsFilters(ApiFilterSet):
    groupBy = WordFilter(choices=[(each, each) for each in GROUPINGS], required=True)
    to = TimeFilter()
    timezone = _ZoneFilter()
    # `from` is a keyword of Python, so it cannot be assigned directly.
    vars()["from"] = TimeFilter()
