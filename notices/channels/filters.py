"""The filters of the list of a channel's notices."""

from notices.channels.models import Notice
from pipedai.api.filters import ApiFilterSet, WordsFilter


class NoticeFilters(ApiFilterSet):
    """The filters of a list of notices: `?status`."""

    status = WordsFilter(field_name="status", choices=Notice.Status.values)
