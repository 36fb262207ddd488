"""Makes thousands of triggers at once, as copies of one, for tests and benchmarks that need many."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from pipedai.sql import execute
from testing.world.cast import Cast
from triggers.models import Trigger

_OWN = {"id", "revision_id", "schedule"}
_SAME = [str(field.column) for field in Trigger._meta.local_fields if field.column not in _OWN]

# The foreign keys of triggers and revisions refer to each other, so PostgreSQL checks both when the transaction ends.
_COPY = f"""
WITH copy AS MATERIALIZED (
    SELECT gen_random_uuid() AS id, gen_random_uuid() AS revision_id,
        coalesce(%(schedule)s, (n %% 60) || ' * * * *') AS schedule
    FROM generate_series(1, %(count)s) n),
revision AS (
    INSERT INTO trigger_revision (id, environment_id, trigger_id, prompt, model)
    SELECT copy.revision_id, r.environment_id, copy.id, r.prompt, r.model
    FROM copy, trigger_revision r WHERE r.trigger_id = %(id)s)
INSERT INTO trigger (id, revision_id, schedule, {", ".join(_SAME)})
SELECT copy.id, copy.revision_id, copy.schedule, {", ".join(f"t.{column}" for column in _SAME)}
FROM copy, trigger t WHERE t.id = %(id)s
"""  # noqa: S608 - of the model's columns


def add_triggers(
    cast: Cast,
    count: int,
    *,
    schedule: str | None = None,
    due: datetime | None = None,
    **values: Any,
) -> None:
    """Makes `count` triggers without audit rows, for the cast's worker unless the values name another.

    Without a schedule they are hourly, one sixtieth of them at each minute. All have `due` as their next due time;
    without `due` they have none, and the caller must set it.
    """
    original: UUID = cast.add_trigger(schedule=schedule or "0 * * * *", **values)
    one = Trigger.objects.filter(id=original)
    with transaction.atomic():
        if due is not None:
            one.update(next_run_at=due)
        execute(_COPY, {"id": original, "count": count, "schedule": schedule})
        one.update(schedule=None, next_run_at=None)
