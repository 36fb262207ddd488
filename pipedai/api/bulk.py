"""Does one action to several rows, each in its own transaction, and answers for each as a call for it alone would."""

from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from django.db.models import QuerySet
from rest_framework import serializers

from pipedai.api.errors import ApiError, NotFound
from pipedai.api.fields import IdField, ListField
from pipedai.api.schema.operation import Answer, answer
from pipedai.api.serializers import RowSerializer, StrictBody

MOST_ROWS: Final = 100


class BulkBody(StrictBody):
    """The rows, in the order in which they are taken. A subclass adds what is to be done."""

    ids = ListField(child=IdField(), allow_empty=False, max_length=MOST_ROWS)


class BulkResultSerializer(RowSerializer):
    """What became of one row."""

    id = serializers.UUIDField()
    done = serializers.BooleanField()
    error = serializers.CharField(allow_null=True)
    code = serializers.CharField(allow_null=True)


BULK_ANSWER: Final[dict[int, Answer | None]] = {
    200: answer(
        "BulkResults",
        "What became of each row, in the order of the ids.",
        items=BulkResultSerializer(many=True),
    )
}


def done_to_each(
    rows: QuerySet[Any], ids: Sequence[UUID], do: Callable[[UUID], Any]
) -> dict[str, Any]:
    """Calls `do` once for each id of a row in `rows`, and reports all other ids as not found. `do` must leave a row
    unchanged when it raises an ApiError.
    """
    known = set(rows.filter(id__in=ids).values_list("id", flat=True))
    items: list[dict[str, Any]] = []
    for row_id in dict.fromkeys(ids):
        error: dict[str, Any] = {}
        try:
            if row_id not in known:
                raise NotFound
            do(row_id)
        except ApiError as refused:
            error = refused.body()
        found = {"done": not error, "error": error.get("error"), "code": error.get("code")}
        items.append({"id": row_id, **found})
    return {"items": items}
