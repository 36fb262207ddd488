"""Records from a worker's calls when the worker was last seen, and which version of the program it runs (SPEC §5)."""

import re
from typing import Any

from pipedai.api.principal import WorkerPrincipal
from pipedai.sql import execute
from pipedai.wakeups import announce_things, watches
from workers.silence import NOTE_SILENCE, SILENT_FOR, silence_params
from workers.worker_events import GONE_SECONDS, record_presence

_SANE_VERSION = re.compile(r"[\w.+-]{1,64}", re.ASCII)

_IS_CALLER = "id = %(worker_id)s AND token_digest = %(token_digest)s"
_NOTE = f"""
UPDATE worker SET
    last_seen_at = CASE WHEN %(seen)s THEN greatest(last_seen_at, statement_timestamp()) ELSE last_seen_at END,
    version = coalesce(%(version)s, version)
WHERE {_IS_CALLER}
"""  # noqa: S608
# Notes the first call after a long silence. The row is locked before it is read, so that of several calls at once only
# one sees the silence.
_NOTE_RETURN = f"""
WITH w AS (
    SELECT id, environment_id, last_seen_at, created_at, disabled_at FROM worker WHERE {_IS_CALLER} FOR NO KEY UPDATE),
silence AS ({NOTE_SILENCE})
UPDATE worker SET last_seen_at = greatest(worker.last_seen_at, statement_timestamp()),
    version = coalesce(%(version)s, version)
FROM w WHERE worker.id = w.id
"""  # noqa: S608


def sane_version(header: str | None) -> str | None:
    """Returns the version that a worker's header tells, or None if it tells none or is no sane version."""
    return header if header and _SANE_VERSION.fullmatch(header) else None


def note_call(worker: WorkerPrincipal, *, version_header: str | None, seen: bool) -> None:
    """Records a worker's call with few writes: `last_seen_at`, if `seen`, at most every 10 s; its version if that is
    new; and after a long silence a row of `worker_silence`.
    """
    sane = sane_version(version_header)
    version = sane if sane != worker.version else None
    seen = seen and not worker.seen_lately
    last = worker.last_seen_at
    silence = None if last is None else worker.now - last
    if seen or version:
        params: dict[str, Any] = {
            "seen": seen,
            "version": version,
            "worker_id": worker.id,
            "token_digest": worker.token_digest,
        }
        if seen and (silence is None or silence > SILENT_FOR):
            execute(_NOTE_RETURN, params | silence_params())
        else:
            execute(_NOTE, params)
    # The event that reports the worker's return is recorded after the worker's row was written. If the row can't be
    # written, no event is recorded, so that the worker's next call does not record it a second time.
    if seen:
        seconds = None if silence is None else silence.total_seconds()
        record_presence(worker.id, seconds)
        if (seconds is None or seconds > GONE_SECONDS) and watches.is_watched(
            worker.environment_id
        ):
            announce_things(worker.environment_id, "worker", [worker.id])
