"""Tells channels of runs: of their final outcomes, and of the calls about which somebody has to decide.

The end of a run notes its outcome, and a scheduler tells it. So the end of a run waits neither for channels nor for the
count of the hourly limit, and pays nothing if no channel of its environment tells of ended runs.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction

from notices.channels.announcements import of_outcomes, of_questions
from notices.channels.queueing import channels_wanting, queue_notices
from notices.states import APPROVAL_REQUESTED, RUN_ENDED, RUN_RESULT
from pipedai.ids import new_id
from pipedai.sql import Row, execute_later, fetch_all
from triggers.approvals.services import take_due_reminders

# The SQL condition that a channel `c` is enabled and tells of ended runs. The index `channel_of_outcomes` has it too.
TELLS_OUTCOMES: Final = """
c.enabled AND c.deleted_at IS NULL AND c.events && (ARRAY['run.ended', 'run.result'])::varchar(30)[]"""

_NOTE: Final = f"""
INSERT INTO untold_outcome (id, environment_id, run_id)
SELECT o.* FROM unnest(%(ids)s::uuid[], %(environments)s::uuid[], %(runs)s::uuid[]) o (id, environment_id, run_id)
WHERE EXISTS (SELECT FROM channel c WHERE c.environment_id = o.environment_id AND {TELLS_OUTCOMES})
"""  # noqa: S608

# Takes the first outcomes of each environment in turns, so that a flood of one tenant's delays no other's. It reads the
# first entries of each environment in the index, and only the first one if so many environments have some that one of
# each is enough. It skips what another scheduler has locked.
_TAKE: Final = """
WITH RECURSIVE tenant (id) AS (
    (SELECT environment_id FROM untold_outcome ORDER BY environment_id LIMIT 1)
    UNION ALL
    SELECT (SELECT environment_id FROM untold_outcome WHERE environment_id > tenant.id
        ORDER BY environment_id LIMIT 1)
    FROM tenant WHERE tenant.id IS NOT NULL),
first AS MATERIALIZED (
    SELECT u.id FROM tenant CROSS JOIN LATERAL (
        SELECT id, row_number() OVER (ORDER BY id) AS n FROM untold_outcome WHERE environment_id = tenant.id
        ORDER BY id LIMIT (SELECT CASE WHEN count(id) < %(limit)s THEN %(share)s ELSE 1 END FROM tenant)) u
    ORDER BY u.n, u.id LIMIT %(limit)s),
free AS MATERIALIZED (
    SELECT id FROM untold_outcome WHERE id IN (SELECT id FROM first) FOR UPDATE SKIP LOCKED)
DELETE FROM untold_outcome u USING free WHERE u.id = free.id RETURNING u.environment_id, u.run_id
"""


def note_outcomes(outcomes: Sequence[tuple[UUID, UUID]]) -> None:
    """Notes final outcomes, each an environment's id and a run's, in the transaction that ends the runs. A late result
    that replaces one is noted as well. The statement goes out with the transaction's next one.
    """
    params = {
        "ids": [new_id() for _ in outcomes],
        "environments": [environment_id for environment_id, _ in outcomes],
        "runs": [run_id for _, run_id in outcomes],
    }
    execute_later(_NOTE, params)


def tell_outcomes(*, share: int = 50, limit: int = 200, now: datetime | None = None) -> int:
    """Queues the notices about up to `limit` final outcomes, of each environment up to `share`, in a constant number of
    statements. Returns how many outcomes it took. The hourly limit counts here.
    """
    with transaction.atomic():
        taken = fetch_all(_TAKE, {"share": share, "limit": limit})
        if not taken:
            return 0
        environments = {row["environment_id"] for row in taken}
        if channels := channels_wanting(environments, [RUN_ENDED, RUN_RESULT], now=now):
            run_ids = sorted({row["run_id"] for row in taken})
            # `always` and `failed` need no more than the run.
            with_documents = any(each["tells_when"].startswith("[") for each in channels)
            announcements = of_outcomes(run_ids, with_documents=with_documents)
            queue_notices(channels, announcements, now=now)
    return len(taken)


def announce_questions(
    questions: Sequence[Row], *, is_reminder: bool = False, now: datetime | None = None
) -> None:
    """Queues the notices about approvals, rows with `id` and `environment_id`, in the caller's transaction."""
    environments: set[UUID] = {each["environment_id"] for each in questions}
    if channels := channels_wanting(environments, [APPROVAL_REQUESTED], now=now):
        at = channels[0]["now"] if is_reminder else None
        queue_notices(channels, of_questions([each["id"] for each in questions], at), now=now)


def remind_of_questions(*, limit: int = 100, now: datetime | None = None) -> int:
    """Reminds people of up to `limit` calls, of each once. Returns of how many."""
    with transaction.atomic():
        questions = take_due_reminders(limit=limit, now=now)
        if questions:
            announce_questions(questions, is_reminder=True, now=now)
    return len(questions)
