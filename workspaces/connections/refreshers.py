"""The threads of a scheduler that refresh connections, so that a slow server holds up no other job."""

import time
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from django.db import close_old_connections, connection
from django.dispatch import Signal

from pipedai import timeouts
from pipedai.logs import get_logger
from pipedai.outgoing import Lane
from pipedai.sql import Row
from workspaces.connections.refreshing import (
    LEASE_SECONDS,
    Ailing,
    Given,
    Healthy,
    NotGiven,
    ask,
    record,
)

T = TypeVar("T")

log = get_logger(__name__)

# This signal tells the metrics of each request for tokens that has been recorded, with its `result` and `seconds`.
refreshed = Signal()

_RECORD_AGAIN_SECONDS = 0.5


class Refreshers(Lane):
    """The lane of healthy connections, or of ailing ones."""

    def __init__(self, queue: Healthy | Ailing, *, at_once: int | None = None) -> None:
        super().__init__("refresher", queue, at_once or queue.shares, queue.per_host)

    def _do(self, row: Row) -> None:
        begun = time.monotonic()
        try:
            answer = ask(row)
            said = isinstance(answer, Given) or answer.is_refused
            self._remember(row["host"], answered=said, seconds=time.monotonic() - begun)
            until = begun + LEASE_SECONDS
            result = surely(lambda: record(row, answer), until, connection_id=row["id"])
        except Exception:
            log.exception("connection.not_recorded", connection_id=str(row["id"]))
        else:
            seconds = time.monotonic() - begun
            refreshed.send(sender=Refreshers, result=result, seconds=seconds)
            log.info(
                "connection.refreshed",
                connection_id=str(row["id"]),
                result=result,
                error=answer.error if isinstance(answer, NotGiven) else None,
                duration_ms=round(seconds * 1000),
            )
        finally:
            # Most threads wait most of the time, and shall hold no connection meanwhile.
            connection.close()
            self._leave(row)


def surely(work: Callable[[], T], until: float, *, connection_id: UUID) -> T:
    """Records an answer. The server may have rotated the refresh token, or used a code up, so what it gave is not given
    up while the database is away, until the lease is over.
    """
    while True:
        try:
            close_old_connections()
            with timeouts.overriding(timeouts.SCHEDULER):
                return work()
        except Exception as error:
            if time.monotonic() > until:
                raise
            id_, name = str(connection_id), type(error).__name__
            log.warning("connection.not_recorded_yet", connection_id=id_, error=name)
            time.sleep(_RECORD_AGAIN_SECONDS)
