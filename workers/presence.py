"""Records what a worker's calls tell about it: that it is there, its process and version, its features, and the account
that pays for its model. Decides when a worker is silent or offline, and records a silence that ends with a call.
"""

import re
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction

from pipedai.api.principal import WorkerPrincipal
from pipedai.sql import execute, fetch_one
from pipedai.wakeups import announce_things, watches
from triggers.heartbeats import REACHABLE_SINCE, gap_seconds
from triggers.runs.routing import open_to_pools
from workers.worker_events import GONE_SECONDS, STOPPED, record, record_presence

# A worker counts as offline after it has been silent for this long.
SILENT_FOR: Final = timedelta(minutes=10)
# A worker that has signed off counts as offline after this long, so that people hear of a worker that somebody stopped,
# but not of one that is restarted.
RESTARTS_WITHIN: Final = timedelta(minutes=1)

# The SQL for the time of the last call of the worker `w`. A worker that has never called is silent since it registered.
LAST_SEEN = "coalesce(w.last_seen_at, w.created_at)"
# The SQL for the time from which on people are told that the worker `w` is offline, unless it calls before.
OFFLINE_AT = f"least({LAST_SEEN} + %(silent_for)s, w.signed_off_at + %(restarts_within)s)"
OFFLINE_PARAMS: Final = {"silent_for": SILENT_FOR, "restarts_within": RESTARTS_WITHIN}
# The SQL condition that an enabled trigger points at the worker `w`.
_NEEDS_IT = "t.worker_id = w.id AND t.enabled AND t.deleted_at IS NULL"
IS_NEEDED = f"EXISTS (SELECT FROM trigger t WHERE {_NEEDS_IT})"

# Inserts the silence that a call of the worker `w` ends, if a scheduler would have told people about it: the worker was
# needed, not disabled and in no paused environment, and could reach the service. `w` is the locked row as it was before
# the call. The silence counts from the moment at which a scheduler would have noticed it. Right after an outage of the
# service nothing is inserted. The call only writes a row, in case no scheduler has seen the silence; a scheduler tells
# people later. This SQL is a part of other statements, which give it OFFLINE_PARAMS and the `gap`.
_NOTE_SILENCE = f"""
INSERT INTO worker_silence (environment_id, worker_id, last_seen_at, offline_at, ended_at)
SELECT w.environment_id, w.id, w.last_seen_at, o.at, statement_timestamp()
FROM w CROSS JOIN LATERAL (
    SELECT greatest({OFFLINE_AT}, {REACHABLE_SINCE} + %(silent_for)s, (
        SELECT min(coalesce(h.counts_from, t.created_at))
        FROM trigger t LEFT JOIN trigger_health h ON h.trigger_id = t.id
        WHERE {_NEEDS_IT})) AS at) o
WHERE NOT EXISTS (SELECT FROM environment e WHERE e.id = w.environment_id AND e.paused_at IS NOT NULL)
    AND w.disabled_at IS NULL AND o.at < statement_timestamp() AND {REACHABLE_SINCE} IS NOT NULL AND {IS_NEEDED}
"""  # noqa: S608


_SANE_WORD = re.compile(r"[\w.+-]{1,64}", re.ASCII)
_SANE_ACCOUNT = re.compile(r"[!-~]{1,64}", re.ASCII)

_IS_CALLER = "id = %(worker_id)s AND token_digest = %(token_digest)s"
# A poll of the process that has signed off, which may arrive late, does not bring the worker back.
_NOTE_PROCESS = """process_id = CASE WHEN %(polls)s THEN %(process)s ELSE worker.process_id END,
    signed_off_at = CASE WHEN NOT %(polls)s OR worker.process_id = %(process)s THEN worker.signed_off_at END"""
_NOTE = f"""
UPDATE worker SET
    last_seen_at = CASE WHEN %(seen)s THEN greatest(last_seen_at, statement_timestamp()) ELSE last_seen_at END,
    version = coalesce(%(version)s, version),
    {_NOTE_PROCESS}
WHERE {_IS_CALLER}
"""  # noqa: S608
# Records the first call after a long silence. The row is locked before it is read, so that only one of several calls
# sees the silence.
_NOTE_RETURN = f"""
WITH w AS (
    SELECT id, environment_id, last_seen_at, signed_off_at, created_at, disabled_at FROM worker
    WHERE {_IS_CALLER} FOR NO KEY UPDATE),
silence AS ({_NOTE_SILENCE})
UPDATE worker SET last_seen_at = greatest(worker.last_seen_at, statement_timestamp()),
    version = coalesce(%(version)s, version),
    {_NOTE_PROCESS}
FROM w WHERE worker.id = w.id
"""  # noqa: S608
_SIGN_OFF = f"""
UPDATE worker SET signed_off_at = statement_timestamp()
WHERE {_IS_CALLER} AND process_id IS NOT DISTINCT FROM %(process)s AND signed_off_at IS NULL
"""  # noqa: S608
# A worker that moves from one account to another is free of the old one's limit. A worker that names its account for
# the first time keeps its own limit.
_SET_ACCOUNT = """
UPDATE worker w
SET account_id = %(account_id)s, limited_until = CASE
    WHEN w.account_id <> %(account_id)s THEN mates.limited_until
    ELSE greatest(w.limited_until, mates.limited_until) END
FROM (
    SELECT max(limited_until) AS limited_until FROM worker
    WHERE environment_id = %(environment_id)s AND account_id = %(account_id)s AND deleted_at IS NULL
        AND id <> %(worker_id)s AND limited_until > statement_timestamp()) mates
WHERE w.id = %(worker_id)s
RETURNING CASE WHEN w.limited_until > statement_timestamp() THEN w.limited_until END AS limited_until
"""


def _caller(worker: WorkerPrincipal) -> dict[str, Any]:
    return {"worker_id": worker.id, "token_digest": worker.token_digest}


def sane_word(header: str | None) -> str | None:
    """Returns the version or process in a worker's header; None if there is no header or it is malformed."""
    return header if header and _SANE_WORD.fullmatch(header) else None


def note_call(
    worker: WorkerPrincipal,
    *,
    version_header: str | None,
    process_header: str | None,
    seen: bool,
    polls: bool,
) -> None:
    """Records a worker's call in the worker's row, with as few writes as possible.

    With `seen`, it writes `last_seen_at` unless that was written within the last 10 s. With `polls`, the process of
    `process_header` becomes the one that may sign the worker off, and a worker that another process has signed off is
    online again. It writes the version of `version_header` if that is new. The first call after a long silence also
    writes a row of `worker_silence`.
    """
    sane, process = sane_word(version_header), sane_word(process_header)
    version = sane if sane != worker.version else None
    is_another = polls and process != worker.process_id
    is_back = polls and worker.signed_off and (is_another or process is None)
    seen = is_another or is_back or (seen and not worker.seen_lately)
    last = worker.last_seen_at
    silence = None if last is None else worker.now - last
    if seen or version:
        params: dict[str, Any] = {
            "seen": seen,
            "polls": polls,
            "process": process,
            "version": version,
            **_caller(worker),
        }
        if seen and (silence is None or silence > SILENT_FOR or is_back):
            execute(_NOTE_RETURN, params | OFFLINE_PARAMS | {"gap": gap_seconds()})
        else:
            execute(_NOTE, params)
    # The event that reports the worker's return is recorded after the worker's row was written. If the row can't be
    # written, no event is recorded, so that the worker's next call does not record it a second time.
    if seen:
        seconds = None if silence is None or is_back else silence.total_seconds()
        record_presence(worker.id, seconds)
        if (seconds is None or seconds > GONE_SECONDS) and watches.is_watched(
            worker.environment_id
        ):
            announce_things(worker.environment_id, "worker", [worker.id])


def note_features(worker: WorkerPrincipal, features: list[str]) -> None:
    """Stores the features of the worker, if they differ from those of the poll before. Explanations read them to say
    why the worker is not given a run.
    """
    if features != worker.features:
        execute(
            f"UPDATE worker SET features = %(features)s::varchar[] WHERE {_IS_CALLER}",  # noqa: S608
            {**_caller(worker), "features": features},
        )


_NOTE_PROBLEMS = f"""
UPDATE worker SET problems = %(problems)s::jsonb,
    problems_since = CASE WHEN %(problems)s::jsonb <> '[]' THEN statement_timestamp() END
WHERE {_IS_CALLER} AND problems <> %(problems)s::jsonb
"""  # noqa: S608


def note_problems(worker: WorkerPrincipal, problems: str) -> None:
    """Stores the problems that a worker reports about its machine, as a JSON list, if they differ from those before."""
    changed = execute(_NOTE_PROBLEMS, {**_caller(worker), "problems": problems})
    if changed and watches.is_watched(worker.environment_id):
        announce_things(worker.environment_id, "worker", [worker.id])


def note_account(worker: WorkerPrincipal, *, header: str | None) -> None:
    """Stores the account in a poll's `header`, if it is a new one. Each poll has it, because a worker can compute it
    only when it knows its environment, and because somebody may log in to another account at any time.
    """
    if header is None or header == worker.account_id or not _SANE_ACCOUNT.fullmatch(header):
        return
    with transaction.atomic():
        # The machine may have registered again since the call began, and have another token and account now.
        if execute(f"SELECT FROM worker WHERE {_IS_CALLER} FOR NO KEY UPDATE", _caller(worker)):
            set_account(
                environment_id=worker.environment_id, worker_id=worker.id, account_id=header
            )


def set_account(*, environment_id: UUID, worker_id: UUID, account_id: str | None) -> None:
    """Stores a worker's account, and limits the worker while the account's other workers are limited. Other workers of
    its pools may then take its runs at once, except runs that continue a session. The caller has locked the worker.
    """
    params = {"environment_id": environment_id, "worker_id": worker_id, "account_id": account_id}
    row = fetch_one(_SET_ACCOUNT, params)
    if row is not None and row["limited_until"] is not None:
        open_to_pools([worker_id], until=row["limited_until"])


def sign_off(worker: WorkerPrincipal, *, process_header: str | None) -> None:
    """Makes the worker offline at once, because its process ends. Does nothing if another process has polled since, or
    if the worker has signed off already.
    """
    with transaction.atomic():
        if not execute(_SIGN_OFF, {**_caller(worker), "process": sane_word(process_header)}):
            return
        open_to_pools([worker.id])
        record(worker.id, STOPPED)
        if watches.is_watched(worker.environment_id):
            announce_things(worker.environment_id, "worker", [worker.id])
