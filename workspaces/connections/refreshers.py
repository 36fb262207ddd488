"""The threads of a scheduler that refresh connections, so that a slow server holds up no other job (SPEC §24)."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TypeVar

from pipedai.logs import get_logger
from pipedai.loop import Job
from pipedai.outgoing.pool import STOP_SECONDS, Crew
from pipedai.sql import Row
from workspaces.connections.refreshing import claim_due, refresh, server_of

T = TypeVar("T")

log = get_logger(__name__)

# How many connections one scheduler refreshes at once, each with a database connection while it records the answer.
AT_ONCE = 16
# How often a scheduler looks for connections that are due, as for messages.
_EVERY_SECONDS = 0.25


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
        try:
            refresh(claim)
        except Exception:
            log.exception("connection.not_recorded", connection_id=str(claim["id"]))
        finally:
            with self._changed:
                del self._claims[claim["lease_id"]]
                self._changed.notify_all()


def _full(counts: Mapping[T, int], room: int) -> list[T]:
    return [taker for taker, count in counts.items() if count >= room]
