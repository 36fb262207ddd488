"""Sends a run's outcome until the API accepts it or refuses it for good, and keeps it on disk until then."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from pipedai_worker.api.answers import Refused
from pipedai_worker.api.client import Api
from pipedai_worker.api.patience import until_answered
from pipedai_worker.disk.journal import Journal
from pipedai_worker.executors.base import Executor
from pipedai_worker.logs import get_logger
from pipedai_worker.reporting.outcome import bare

log = get_logger(__name__)


def report(
    api: Api,
    journal: Journal,
    executor: Executor,
    run_id: str,
    body: dict[str, Any],
    wait: Callable[[float], bool],
) -> None:
    """Send the outcome of a run, and remove it from disk after a 2xx or a 4xx that is final.

    If the API can't store the outcome (400, 413), only its status and fault are sent. The answer says how long the
    run's session can be resumed.

    Raises GaveUp when `wait` returns True, and TokenRefused when the API refuses the token. In both cases the outcome
    stays on disk, and the worker's next start sends it.
    """
    try:
        answer = until_answered(lambda: api.complete(run_id, body), wait)
    except Refused as refused:
        if refused.is_unfit and body != bare(body):
            # Without any report the API would take the run for lost.
            log.warning("run %s: the API can't take the whole outcome: %s", run_id, refused)
            report(api, journal, executor, run_id, bare(body), wait)
            return
        log.warning("run %s: %s not accepted: %s", run_id, body.get("status"), refused)
        if refused.status == HTTPStatus.NOT_FOUND:
            journal.sessions.learn_end(run_id, None, executor)
    else:
        log.info("run %s %s", run_id, body.get("status"))
        if "resumeUntil" in answer:
            journal.sessions.learn_end(run_id, api.seconds_until(answer["resumeUntil"]), executor)
    journal.drop_outcome(run_id)
