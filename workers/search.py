"""The endpoint that finds rows of an environment by a part of their names, and runs by a part of their ids."""

import re
from typing import Any, Final
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.filters import ApiFilterSet, TextFilter
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import RowSerializer
from pipedai.sql import Row, fetch_all
from triggers.models import Run
from workspaces.access import IsViewer, TenantViewSet

# An answer has at most this many rows of each kind.
MOST_FOUND: Final = 8
# The first 12 digits of an id are its time to the millisecond, so few runs have the same ones.
_LEAST_DIGITS = 12
# The end of an id is searched in this many of the newest runs only, because no index has it.
MOST_RUNS: Final = 50_000
_PART_OF_ID = re.compile(r"[0-9a-f-]{6,36}")

_KINDS = {"trigger": "name", "worker": "label", "pool": "name", "connection": "name"}
_NAMED = " UNION ALL ".join(
    f"""(SELECT '{kind}' AS kind, id, {name} AS name, strpos(lower({name}), lower(%(text)s)) AS place FROM {kind}
    WHERE environment_id = %(environment_id)s AND strpos(lower({name}), lower(%(text)s)) > 0
        {"" if kind == "connection" else "AND deleted_at IS NULL"}
    ORDER BY place, lower({name}), id LIMIT {MOST_FOUND})"""
    for kind, name in _KINDS.items()
)

_RUNS = f"""
SELECT r.id, r.trigger_id, t.name AS trigger_name, r.status, r.queued_at FROM (
    SELECT id, queued_at FROM run
    WHERE environment_id = %(environment_id)s AND id BETWEEN %(low)s::uuid AND %(high)s::uuid
    UNION
    SELECT id, queued_at FROM (
        SELECT id, queued_at FROM run WHERE environment_id = %(environment_id)s
        ORDER BY queued_at DESC, id DESC LIMIT %(newest)s) newest
    WHERE right(id::text, length(%(text)s)) = %(text)s
    ORDER BY queued_at DESC, id DESC LIMIT {MOST_FOUND}) found
JOIN run r ON r.id = found.id AND r.environment_id = %(environment_id)s JOIN trigger t ON t.id = r.trigger_id
ORDER BY r.queued_at DESC, r.id DESC
"""


def find_named(environment_id: UUID, text: str) -> list[Row]:
    """Returns the rows whose names contain the text in any case: of each kind the names first that have it earliest."""
    return fetch_all(_NAMED, {"environment_id": environment_id, "text": text})


def find_runs(environment_id: UUID, text: str) -> list[Row]:
    """Returns the newest runs whose ids begin or end with the text. A text that no id can have costs no query."""
    if not _PART_OF_ID.fullmatch(text := text.lower()):
        return []
    digits = text.replace("-", "")
    low = high = None
    if _LEAST_DIGITS <= len(digits) <= 32:
        low, high = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    return fetch_all(
        _RUNS,
        {
            "environment_id": environment_id,
            "text": text,
            "low": low,
            "high": high,
            # A whole id is found by its index alone.
            "newest": 0 if len(digits) == 32 else MOST_RUNS,
        },
    )


class SearchFilters(ApiFilterSet):
    q = TextFilter(method="as_they_are", max_length=200, required=True)


class FoundSerializer(RowSerializer):
    """A row that has the text in its name."""

    id = serializers.UUIDField()
    name = serializers.CharField(allow_null=True)


class FoundRunSerializer(RowSerializer):
    """A run whose id has the text at its beginning or end."""

    of = Run
    shows = "id triggerId triggerName status queuedAt"
    triggerName = serializers.CharField()


class SearchViewSet(TenantViewSet):
    tag = "Overview"
    permissions = {"retrieve": IsViewer}

    @Operation(
        "GET /environments/{environmentId}/search",
        id="search",
        summary="Find something by its name or id",
        filters=SearchFilters,
        answers={
            200: answer(
                "SearchResult",
                "What was found, by kind.",
                **{f"{kind}s": FoundSerializer(many=True) for kind in _KINDS},
                runs=FoundRunSerializer(many=True),
            )
        },
    )
    def retrieve(self, request: Request, environment_id: UUID) -> Any:
        text = SearchFilters.read(Run.objects.none(), request).values["q"]
        named = find_named(environment_id, text)
        by_kind = {kind: [row for row in named if row["kind"] == kind] for kind in _KINDS}
        found = {f"{kind}s": rows for kind, rows in by_kind.items()}
        return {**found, "runs": find_runs(environment_id, text)}
