"""Records from a worker's calls when the worker was last seen, which process and version of the program it runs, and
that the process ends (SPEC §5).
"""

import re
from typing import Any

from django.db import transaction

from pipedai.api.principal import WorkerPrincipal
from pipedai.sql import execute
from pipedai.wakeups import announce_things, watches
from triggers.runs.routing import open_to_pools
from workers.silence import NOTE_SILENCE, SILENT_FOR, silence_params
from workers.worker_events import GONE_SECONDS, record_presence, record_stop

_SANE_WORD = re.compile(r"[\w.+-]{1,64}", re.ASCII)

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
# Notes the first call after a long silence. The row is locked before it is read, so that of several calls at once only
# one sees the silence.
_NOTE_RETURN = f"""
WITH w AS (
    SELECT id, environment_id, last_seen_at, signed_off_at, created_at, disabled_at FROM worker
    WHERE {_IS_CALLER} FOR NO KEY UPDATE),
silence AS ({NOTE_SILENCE})
UPDATE worker SET last_seen_at = greatest(worker.last_seen_at, statement_timestamp()),
    version = coalesce(%(version)s, version),
    {_NOTE_PROCESS}
FROM w WHERE worker.id = w.id
"""  # noqa: S608
_NOTE_FEATURES = f"UPDATE worker SET takes_approvals = %(takes_approvals)s WHERE {_IS_CALLER}"  # noqa: S608
_SIGN_OFF = f"""
UPDATE worker SET signed_off_at = statement_timestamp()
WHERE {_IS_CALLER} AND process_id IS NOT DISTINCT FROM %(process)s AND signed_off_at IS NULL
"""  # noqa: S608


def sane_word(header: str | None) -> str | None:
    """Returns the version or the process that a worker's header tells, or None if it tells none or is not sane."""
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

    With `seen`, writes `last_seen_at` unless it was written within the last 10 s. With `polls`, the process of
    `process_header` is from now on the one that may sign the worker off, and a worker that another process has signed
    off is back. Writes the version of `version_header` if it is new. The first call after a long silence also writes a
    row of `worker_silence`.
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
            "worker_id": worker.id,
            "token_digest": worker.token_digest,
        }
        if seen and (silence is None or silence > SILENT_FOR or is_back):
            execute(_NOTE_RETURN, params | silence_params())
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


def note_features(worker: WorkerPrincipal, *, takes_approvals: bool) -> None:
    """Stores whether the worker can wait for approvals, if a poll says otherwise than the one before. Explanations of
    runs that it is not given read it.
    """
    if takes_approvals != worker.takes_approvals:
        params = {
            "worker_id": worker.id,
            "token_digest": worker.token_digest,
            "takes_approvals": takes_approvals,
        }
        execute(_NOTE_FEATURES, params)


def sign_off(worker: WorkerPrincipal, *, process_header: str | None) -> None:
    """Makes the worker offline at once, because its process ends. Does nothing if another process has polled since, or
    if the worker has signed off already.
    """
    params = {
        "worker_id": worker.id,
        "token_digest": worker.token_digest,
        "process": sane_word(process_header),
    }
    with transaction.atomic():
        if not execute(_SIGN_OFF, params):
            return
        open_to_pools([worker.id])
        record_stop(worker.id)
        if watches.is_watched(worker.environment_id):
            announce_things(worker.environment_id, "worker", [worker.id])
