"""The filters of the audit log (SPEC §5)."""

from pipedai.api.filters import ApiFilterSet, EndFilter, IdFilter, TimeFilter, WordsFilter
from pipedai.events import ACTIONS


class AuditFilters(ApiFilterSet):
    """`?action=&actions=a,b&targetId=&from=&to=`: `from` ≤ `createdAt` < `to`."""

    action = WordsFilter(field_name="action", choices=sorted(ACTIONS))
    actions = WordsFilter(field_name="action", choices=sorted(ACTIONS))
    targetId = IdFilter(field_name="target_id")
    to = EndFilter(field_name="created_at")
    vars()["from"] = TimeFilter(
        field_name="created_at", lookup_expr="gte"
    )  # `from` is a keyword of Python
