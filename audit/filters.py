"""The filters of the audit log (SPEC §5)."""

from pipedai.api.filters import ApiFilterSet, EndFilter, IdFilter, TimeFilter, WordsFilter
from pipedai.events import ACTIONS


class AuditFilters(ApiFilterSet):
    """The filters of a list of audit entries: `?action=&actions=a,b&targetId=&from=&to=`, where `from` ≤ `createdAt` <
    `to`.
    """

    action = WordsFilter(field_name="action", choices=sorted(ACTIONS))
    actions = WordsFilter(field_name="action", choices=sorted(ACTIONS))
    targetId = IdFilter(field_name="target_id")
    to = EndFilter(field_name="created_at")
    # `from` is a keyword of Python, so it cannot be assigned directly.
    vars()["from"] = TimeFilter(field_name="created_at", lookup_expr="gte")
