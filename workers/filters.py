"""The filters of the worker list (SPEC §5)."""

from django.db.models import Q, QuerySet

from pipedai.api.filters import ApiFilterSet, WordFilter
from workers.models import Worker


class WorkerFilters(ApiFilterSet):
    """`?status=online|offline`"""

    status = WordFilter(choices=[("online", "online"), ("offline", "offline")], method="by_status")

    def by_status(
        self,
        queryset: QuerySet[Worker],
        name: str,
        value: str,
    ) -> QuerySet[Worker]:
        """`online` workers have called lately (within ONLINE_WITHIN), and `offline` ones have not."""
        return queryset.filter(Q(online=value == "online"))  # queries.workers() annotates `online`
