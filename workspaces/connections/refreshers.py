"""The threads of a scheduler that refresh connections, so that a slow server holds up no other job (SPEC §24)."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TypeVar

from django.db import close_old_connections, connection
from django.dispatch import Signal

from pipedai import timeouts
from pipedai.logs import get_logger
from pipedai.loop import Job
from pipedai.outgoing.pool import STOP_SECONDS, Crew
from pipedai.sql import Row
from workspaces.connections.refreshing import (
    LEASE_SECONDS,
    Given,
    NotGiven,
    ask,
    claim_due,
    record,
    server_of,
)

T = TypeVar("T")

log = get_logger(__name__)

# This signal tells the metrics of each request for tokens that has been recorded, with its `result` and `seconds`.
refreshed = Signal()

# How many connections one scheduler refreshes at once, each with a connection to the database while it records the
# answer.
AT_ONCE = 16
# How often a scheduler looks for connections that are due, as for messages.
_EVERY_SECONDS = 0.25
_RECORD_AGAIN_SECONDS = 0.5


class Refreshers:
    """Claims only what a thread can refresh at once. A workspace, and a server, have at most as many threads as stay
    free, so that others always find one.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        # What is being refreshed, by the id of the claim.
        self._claims: dict[object, Row] = {}
        self._changed = threading.Condition()
        self._crew = Crew("refresher", at_once, self._refresh)

    def job(self) -> Job:
        return Job("refresh-connections", _EVERY_SECONDS, self.top_up, finish=self.finish)

    def top_up(self) -> int:
        """Claims what can be refreshed now, and begins to. Returns how many connections."""
        return sum(1 for _ in self._begun())

    def _begun(self) -> Iterator[Row]:
        while True:
            with self._changed:
                claims = list(self._claims.values())
            room = self._at_once - len(claims)
            if room <= 0:
                return
            claim = claim_due(
                full_servers=_full(Counter(map(server_of, claims)), room),
                full_workspaces=_full(Counter(each["workspace_id"] for each in claims), room),
            )
            if claim is None:
                return
            with self._changed:
                self._claims[claim["lease_id"]] = claim
            self._crew.give(claim)
            yield claim

    def wait(self, seconds: float = STOP_SECONDS) -> bool:
        """Waits until nothing is being refreshed. Returns False after `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._claims, seconds)

    def finish(self) -> None:
        """Waits a moment for what is being refreshed. What is left is claimed again when its lease is over."""
        if self.wait():
            self._crew.stop(STOP_SECONDS / 6)
        else:
            log.info("connection.left_claimed", connections=len(self._claims))

    def _refresh(self, claims: list[Row]) -> None:
        (claim,) = claims
        begun = time.monotonic()
        try:
            answer = ask(claim)
            result = _record_surely(claim, answer, begun + LEASE_SECONDS)
        except Exception:
            log.exception("connection.not_recorded", connection_id=str(claim["id"]))
        else:
            seconds = time.monotonic() - begun
            refreshed.send(sender=Refreshers, result=result, seconds=seconds)
            log.info(
                "connection.refreshed",
                connection_id=str(claim["id"]),
                result=result,
                error=answer.error if isinstance(answer, NotGiven) else None,
                duration_ms=round(seconds * 1000),
            )
        finally:
            # Most threads wait most of the time, and shall hold no connection meanwhile.
            connection.close()
            with self._changed:
                del self._claims[claim["lease_id"]]
                self._changed.notify_all()


def _record_surely(claim: Row, answer: Given | NotGiven, until: float) -> str:
    """Records the answer. The server may have rotated the refresh token, so the new one is not given up while the
    database is away, until the lease is over.
    """
    while True:
        try:
            close_old_connections()
            with timeouts.overriding(timeouts.SCHEDULER):
                return record(claim, answer)
        except Exception as error:
            if time.monotonic() > until:
                raise
            id_, name = str(claim["id"]), type(error).__name__
            log.warning("connection.not_recorded_yet", connection_id=id_, error=name)
            time.sleep(_RECORD_AGAIN_SECONDS)


def _full(counts: Mapping[T, int], room: int) -> list[T]:
    return [taker for taker, count in counts.items() if count >= room]
