"""Queues the notices of runs: about their final outcomes, and about approvals that wait for a decision.

The end of a run only notes its outcome; a scheduler queues the notices later. So the end of a run does not wait for
the count of the hourly limit, and costs nothing if no channel of its environment wants ended runs.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Final
from uuid import UUID

from notices.channels.announcements import Announcement, of_outcomes, of_questions
from notices.channels.queueing import channels_wanting, queue_notices
from notices.states import APPROVAL_REQUESTED, RUN_ENDED, RUN_RESULT
from pipedai.ids import new_id
from pipedai.sql import Row, execute, execute_later, fetch_all
from pipedai.turns import due_rows, in_time
from triggers.approvals.services import TO_REMIND_OF, note_reminders

# The SQL condition that a channel `c` is enabled and tells of ended runs. The index `channel_of_outcomes` has the same
# condition, so that this reads it.
TELLS_OUTCOMES: Final = """
c.enabled AND c.deleted_at IS NULL AND c.events && (ARRAY['run.ended', 'run.result'])::varchar(30)[]"""

_NOTE: Final = f"""
INSERT INTO untold_outcome (id, environment_id, run_id)
SELECT o.* FROM unnest(%(ids)s::uuid[], %(environments)s::uuid[], %(runs)s::uuid[]) o (id, environment_id, run_id)
WHERE EXISTS (SELECT FROM channel c WHERE c.environment_id = o.environment_id AND {TELLS_OUTCOMES})
"""  # noqa: S608

_TURNS: Final = due_rows("untold_outcome", waits="true", order="id", is_due=False)
_READ: Final = "SELECT id, environment_id, run_id FROM untold_outcome WHERE id = ANY(%(ids)s)"
_TOLD: Final = "DELETE FROM untold_outcome WHERE id = ANY(%(ids)s)"


def note_outcomes(outcomes: Sequence[tuple[UUID, UUID]]) -> None:
    """Notes final outcomes, given as pairs of an environment's id and a run's id, in the transaction that ends the
    runs. A late result that replaces an outcome is noted as well. The INSERT waits for the transaction's next
    statement, and is sent together with it.
    """
    params = {
        "ids": [new_id() for _ in outcomes],
        "environments": [environment_id for environment_id, _ in outcomes],
        "runs": [run_id for _, run_id in outcomes],
    }
    execute_later(_NOTE, params)


def tell_outcomes(*, limit: int = 50, now: datetime | None = None) -> int:
    """Queues the notices about up to `limit` final outcomes, in a constant number of statements. Returns how many
    outcomes it took. The hourly limit applies to these notices.
    """
    return _TURNS.take(partial(_tell, now=now), limit=limit, now=now)


def _tell(untold: list[Row], now: datetime | None) -> int:
    """Tells of the outcomes that it reaches in the time of a turn, because clauses of many channels may take long."""
    outcomes = fetch_all(_READ, {"ids": [row["id"] for row in untold]})
    environments = {row["environment_id"] for row in outcomes}
    left: set[UUID | None] = set()
    if channels := channels_wanting(environments, [RUN_ENDED, RUN_RESULT], now=now):
        run_ids = sorted({row["run_id"] for row in outcomes})
        # `always` and `failed` can be decided from the run alone; only clauses, a JSON list, need the documents.
        with_documents = any(each["tells_when"].startswith("[") for each in channels)
        announcements = of_outcomes(run_ids, with_documents=with_documents)
        left = {each.run_id for each in announcements}

        def in_turn() -> Iterator[Announcement]:
            for run_id, of_run in in_time(groupby(announcements, key=attrgetter("run_id"))):
                left.remove(run_id)
                yield from of_run

        queue_notices(channels, in_turn(), now=now)
    ids = [row["id"] for row in outcomes if row["run_id"] not in left]
    execute(_TOLD, {"ids": ids})
    return len(ids)


def announce_questions(
    questions: Sequence[Row], *, is_reminder: bool = False, now: datetime | None = None
) -> None:
    """Queues the notices about approvals, given as rows with `id` and `environment_id`, in the caller's transaction."""
    environments: set[UUID] = {each["environment_id"] for each in questions}
    if channels := channels_wanting(environments, [APPROVAL_REQUESTED], now=now):
        at = channels[0]["now"] if is_reminder else None
        queue_notices(channels, of_questions([each["id"] for each in questions], at), now=now)


def remind_of_questions(*, limit: int = 100, now: datetime | None = None) -> int:
    """Queues one reminder for each of up to `limit` undecided approvals. Returns how many it reminded of."""

    def remind_of(due: list[Row]) -> int:
        if questions := note_reminders(due, now):
            announce_questions(questions, is_reminder=True, now=now)
        return len(questions)

    return TO_REMIND_OF.take(remind_of, limit=limit, now=now)
