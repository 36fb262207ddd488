"""The filters of the worker list (SPEC §5)."""

from django.db.models import Q, QuerySet

from pipedai.api.filters import ApiFilterSet, WordFilter
from workers.models import Worker


class WorkerFilters(ApiFilterSet):
    """The query parameter `status` of the worker list, which is `online` or `offline`."""

    status = WordFilter(choices=[("online", "online"), ("offline", "offline")], method="by_status")

    def by_status(
        self,
        queryset: QuerySet[Worker],
        name: str,
        value: str,
    ) -> QuerySet[Worker]:
        """Keeps the workers that called within ONLINE_WITHIN for `online`, and all others for `offline`."""
        return queryset.filter(Q(online=value == "online"))
