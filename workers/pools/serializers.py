"""Reads the bodies of requests about pools, reads pools from the database, and renders them for the API."""

from typing import Any

from rest_framework import serializers

from pipedai.api.fields import NameField, TextField
from pipedai.api.serializers import RowSerializer, StrictBody, sources_of
from pipedai.sql import fetch_all
from triggers.runs.conditions import is_online
from workspaces.tenant_columns import KeyField, LabelField


class PoolBody(StrictBody):
    key = KeyField()
    managedBy = LabelField()
    name = NameField(max_length=200)
    description = TextField(max_length=2000, allow_blank=True, default="")


class PoolWorkersSerializer(RowSerializer):
    """How many workers a pool has, how many of them are online, and how many of these can take another run now."""

    total = serializers.IntegerField()
    online = serializers.IntegerField()
    free = serializers.IntegerField()


class PoolSerializer(RowSerializer):
    """A pool."""

    id = serializers.UUIDField()
    key = serializers.CharField(allow_null=True)
    managedBy = serializers.CharField(allow_null=True)
    environmentId = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField()
    workers = PoolWorkersSerializer()
    createdAt = serializers.DateTimeField()


# The columns that the rows of `with_workers` have.
COLUMNS = sorted(sources_of(PoolSerializer) - {"workers"})

# Counts the workers of pools. A worker that is in several of the pools is looked at once. It is free if it is online
# and could take another run: it is neither disabled nor limited, and holds fewer runs than it may. Each worker's state
# comes with the list of its pools, because a join of states and members would compare each with each if PostgreSQL
# expected few rows.
_COUNT = f"""
WITH state AS MATERIALIZED (
    SELECT member.pool_ids, w.disabled_at IS NULL AND coalesce(w.limited_until <= statement_timestamp(), true)
        AND w.max_concurrency > (
            SELECT count(*) FROM run r
            WHERE r.worker_id = w.id AND r.environment_id = w.environment_id AND r.slot IS NOT NULL)
        AS may_take, {is_online("w", "statement_timestamp()")} AS online
    FROM (
        SELECT worker_id, array_agg(pool_id) AS pool_ids FROM pool_member
        WHERE pool_id = ANY(%(pool_ids)s) GROUP BY worker_id) member
    JOIN worker w ON w.id = member.worker_id)
SELECT pool_id, count(*) AS total, count(*) FILTER (WHERE online) AS online,
    count(*) FILTER (WHERE online AND may_take) AS free
FROM state CROSS JOIN unnest(pool_ids) AS pool_id
GROUP BY pool_id
"""  # noqa: S608
_NONE = {"total": 0, "online": 0, "free": 0}


def with_workers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds to each pool how many `workers` it has: `total`, `online` and `free`. It takes one query."""
    params = {"pool_ids": [row["id"] for row in rows]}
    counts = {count.pop("pool_id"): count for count in fetch_all(_COUNT, params)}
    return [{**row, "workers": counts.get(row["id"], _NONE)} for row in rows]
