"""Judges whether triggers are failing, in the transaction that ends their runs or changes them.

The trigger's row in `trigger_health` is locked first, so that the next statement sees the runs of every transaction
that held the lock before. Most ends of runs change nothing and take one statement.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from uuid import UUID

from notices.channels.outcomes import TELLS_OUTCOMES
from notices.incidents import Finding, change_incidents
from notices.states import Kind
from pipedai.sql import Row, execute, fetch_all

# Says whether a channel tells of the ended runs. The statement that locks the row reads this too, which saves the end
# of a run a statement of its own.
_TELLS_OUTCOMES = f"""
EXISTS (SELECT FROM channel c WHERE c.environment_id = h.environment_id AND {TELLS_OUTCOMES}) AS tells_outcomes
"""

_LOCK = f"""
SELECT h.trigger_id, h.has_outcome, h.failures, h.is_failing, h.late_since, t.alert_after_failures, {_TELLS_OUTCOMES}
FROM trigger_health h JOIN trigger t ON t.id = h.trigger_id
WHERE h.trigger_id = ANY(%(ids)s) ORDER BY h.trigger_id FOR NO KEY UPDATE OF h
"""  # noqa: S608

# Locks the row of one trigger whose ended runs all succeeded. This is the usual case, so it does not read the trigger.
_LOCK_ONE = f"""
SELECT h.trigger_id, h.has_outcome, h.failures, h.is_failing, h.late_since, {_TELLS_OUTCOMES}
FROM trigger_health h WHERE h.trigger_id = %(id)s FOR NO KEY UPDATE OF h
"""  # noqa: S608

_ADD = """
INSERT INTO trigger_health (trigger_id, environment_id, has_outcome, failures, is_failing)
SELECT id, environment_id, false, 0, false FROM trigger WHERE id = ANY(%(ids)s) ORDER BY id
ON CONFLICT (trigger_id) DO NOTHING
"""

# The SQL condition that no retry follows the run `r`. A retry that a late result canceled does not count.
IS_FINAL = """NOT EXISTS (
        SELECT FROM run retry WHERE retry.retry_of_id = r.id AND retry.environment_id = r.environment_id
            AND retry.ended_by IS DISTINCT FROM 'late_result')"""

# The final outcomes of one state that came after the last success, the newest first.
_FAULTS = f"""
SELECT r.id, r.ended_at FROM run r
WHERE r.trigger_id = h.trigger_id AND r.status = '{{status}}' AND r.ended_at >= coalesce(h.counts_from, '-infinity')
    AND r.ended_at > coalesce(won.ended_at, '-infinity')
    AND {IS_FINAL}
ORDER BY r.ended_at DESC LIMIT coalesce(t.alert_after_failures, 0)
"""  # noqa: S608

# Judges triggers by the table of runs. If the table has no success of a trigger, older failures may have been pruned,
# so the count of `trigger_health` is kept, and `added`, the number of new failures, is added to it. The scheduler is to
# check a trigger at once while it is late, or when its settings have changed. A `check_at` that has passed already is
# kept unless the settings changed, because the scheduler looks from that time on for lateness that it missed. While the
# environment of a trigger is paused, its failures are counted, but the trigger does not become failing.
_JUDGE = f"""
WITH found AS (
    SELECT h.trigger_id, t.name, h.is_failing AS was_failing, t.alert_after_failures AS alert_after, lost.run_id,
        t.enabled AND t.deleted_at IS NULL AS is_watched, t.success_deadline_seconds, given.has_ended,
        h.is_failing OR e.paused_at IS NULL AS may_be_failing,
        CASE WHEN won.ended_at IS NULL
            THEN greatest(lost.n, least(h.failures + given.added, coalesce(t.alert_after_failures, 0)))
            ELSE lost.n END AS failures
    FROM unnest(%(ids)s::uuid[], %(added)s::int[], %(has_ended)s::boolean[]) AS given (id, added, has_ended)
    JOIN trigger_health h ON h.trigger_id = given.id JOIN trigger t ON t.id = h.trigger_id
    JOIN environment e ON e.id = h.environment_id
    LEFT JOIN LATERAL (
        SELECT ended_at FROM run
        WHERE trigger_id = h.trigger_id AND status = 'succeeded' AND ended_at >= coalesce(h.counts_from, '-infinity')
        ORDER BY ended_at DESC LIMIT 1) won ON true
    CROSS JOIN LATERAL (
        SELECT count(*) AS n, (array_agg(id ORDER BY ended_at DESC))[1] AS run_id
        FROM (
            SELECT * FROM (({_FAULTS.format(status="failed")}) UNION ALL ({_FAULTS.format(status="timed_out")})) fault
            ORDER BY ended_at DESC LIMIT coalesce(t.alert_after_failures, 0)) fault) lost)
UPDATE trigger_health h SET
    has_outcome = f.is_watched AND (h.has_outcome OR f.has_ended OR f.failures > 0),
    failures = CASE WHEN f.is_watched THEN f.failures ELSE 0 END,
    is_failing = f.is_watched AND f.may_be_failing AND f.alert_after IS NOT NULL AND f.failures >= f.alert_after,
    check_at = CASE
        WHEN %(settings_changed)s THEN CASE
            WHEN h.late_since IS NOT NULL OR (f.is_watched AND f.success_deadline_seconds IS NOT NULL)
                THEN statement_timestamp() END
        WHEN h.late_since IS NOT NULL THEN least(h.check_at, statement_timestamp())
        ELSE h.check_at END
FROM found f WHERE h.trigger_id = f.trigger_id
RETURNING h.trigger_id, h.environment_id, f.name, f.was_failing, h.is_failing, h.failures, f.run_id,
    f.is_watched AND f.alert_after IS NOT NULL AND h.failures = 0 AS has_recovered
"""  # noqa: S608

# Makes rows for new triggers, so that the scheduler checks whether they are late. Triggers without a success deadline
# get a row when their first run ends.
_WATCH = """
INSERT INTO trigger_health (trigger_id, environment_id, has_outcome, failures, is_failing, check_at)
SELECT id, environment_id, false, 0, false, statement_timestamp() FROM trigger
WHERE id = ANY(%(ids)s) AND success_deadline_seconds IS NOT NULL
ON CONFLICT (trigger_id) DO NOTHING
"""

_WITH_RUNS = """
SELECT t.id AS trigger_id FROM environment e JOIN trigger t ON t.environment_id = e.id
WHERE e.workspace_id = %(workspace_id)s AND EXISTS (
    SELECT FROM run r
    WHERE r.trigger_id = t.id AND r.status IN ('succeeded', 'failed', 'timed_out') AND r.ended_at IS NOT NULL)
"""

# Locks the health of all triggers of an environment. So an end of a run that is judged at the same moment is judged
# either before this, and its failure is read here, or afterwards, when the environment is no longer paused.
_LOCK_ALL_OF = """
SELECT h.trigger_id, h.failures, h.is_failing FROM trigger t JOIN trigger_health h ON h.trigger_id = t.id
WHERE t.environment_id = %(environment_id)s ORDER BY h.trigger_id FOR NO KEY UPDATE OF h
"""

_COUNT_ANEW = """
UPDATE trigger_health SET counts_from = statement_timestamp(), has_outcome = false, failures = 0, is_failing = false
WHERE trigger_id = ANY(%(ids)s)
"""


@dataclass(slots=True)
class Ended:
    """What ended for one trigger: whether a run succeeded, how many failed, whether a late result changed that."""

    succeeded: bool = False
    failures: int = 0
    replaced: bool = False

    def changes(self, health: Row | None) -> bool:
        """Returns whether the trigger must be judged. `health` is its row; a trigger without a row must be judged."""
        if health is None or self.replaced:
            return True
        if not health["has_outcome"] or (self.succeeded and health["late_since"] is not None):
            return True
        if self.succeeded and (health["failures"] or health["is_failing"]):
            return True
        return bool(
            self.failures
            and not health["is_failing"]
            and health["alert_after_failures"] is not None
        )


def judge_ends(ended: Mapping[UUID, Ended]) -> set[UUID]:
    """Judges the triggers whose runs have just ended, in the same transaction. It runs one statement if nothing
    changes. Returns the triggers whose ended runs no channel tells of; new triggers may be missing from it.
    """
    health = _lock(ended)
    changed = {id_: each for id_, each in ended.items() if each.changes(health.get(id_))}
    missing = changed.keys() - health.keys()
    if missing:
        _add(missing)
    _judge(changed)
    return {id_ for id_, row in health.items() if not row["tells_outcomes"]}


def watch_new(trigger_ids: Collection[UUID]) -> None:
    """Makes the scheduler check whether these new triggers are late. Call it in the transaction that created them."""
    execute(_WATCH, {"ids": list(trigger_ids)})


def judge_made_up(workspace_id: UUID) -> None:
    """Judges the triggers of a workspace whose runs were made up for a demo, because such runs emit no events."""
    rows = fetch_all(_WITH_RUNS, {"workspace_id": workspace_id})
    ids = sorted(row["trigger_id"] for row in rows)
    _add(ids)
    # `succeeded=True` only says that a run has ended. The statement reads the outcomes from the table of runs.
    _judge(dict.fromkeys(ids, Ended(succeeded=True)))


def judge_settings(trigger_ids: Collection[UUID], *, enabled: Collection[UUID] = ()) -> None:
    """Judges triggers that were deleted or changed, in the same transaction. `enabled` has those that have just been
    enabled, whose earlier outcomes no longer count.
    """
    if not trigger_ids:
        return
    _add(trigger_ids)
    if enabled:
        change_incidents(Kind.TRIGGER_FAILING, withdrawn=enabled)
        execute(_COUNT_ANEW, {"ids": list(enabled)})
    _judge(dict.fromkeys(trigger_ids, Ended()), settings_changed=True)


def judge_resumed(environment_id: UUID) -> None:
    """Judges the triggers whose runs failed during a pause, in the transaction that ends the pause."""
    rows = fetch_all(_LOCK_ALL_OF, {"environment_id": environment_id})
    failed = [row["trigger_id"] for row in rows if row["failures"] and not row["is_failing"]]
    _judge(dict.fromkeys(failed, Ended()))


def _lock(ended: Mapping[UUID, Ended]) -> dict[UUID, Row]:
    """Locks and returns the existing rows of these triggers. Missing rows of several triggers are made first."""
    ids = list(ended)
    if len(ids) > 1:
        execute(_ADD, {"ids": ids})
    elif not ended[ids[0]].failures:
        return {row["trigger_id"]: row for row in fetch_all(_LOCK_ONE, {"id": ids[0]})}
    return {row["trigger_id"]: row for row in fetch_all(_LOCK, {"ids": ids})}


def _add(trigger_ids: Collection[UUID]) -> None:
    """Makes the missing rows, and locks the rows of all these triggers."""
    ids = list(trigger_ids)
    execute(_ADD, {"ids": ids})
    fetch_all(_LOCK, {"ids": ids})


def _judge(ended: Mapping[UUID, Ended], *, settings_changed: bool = False) -> None:
    if not ended:
        return
    params = {
        "ids": list(ended),
        "added": [each.failures for each in ended.values()],
        "has_ended": [each.succeeded or each.failures > 0 for each in ended.values()],
        "settings_changed": settings_changed,
    }
    judged = fetch_all(_JUDGE, params)
    over = [row for row in judged if row["was_failing"] and not row["is_failing"]]
    change_incidents(
        Kind.TRIGGER_FAILING,
        begun=[_finding(row) for row in judged if row["is_failing"] and not row["was_failing"]],
        recovered=[row["trigger_id"] for row in over if row["has_recovered"]],
        withdrawn=[row["trigger_id"] for row in over if not row["has_recovered"]],
    )


def _finding(row: Row) -> Finding:
    count = row["failures"]
    message = (
        "The last run failed or timed out."
        if count == 1
        else f"The last {count} runs failed or timed out."
    )
    return Finding(row["environment_id"], row["trigger_id"], row["name"], message, row["run_id"])
