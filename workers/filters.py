"""The filters of the worker list (SPEC §5)."""

from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet

from pipedai.api.filters import ApiFilterSet, IdFilter, WordFilter
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
