"""Sends deliveries in threads of the scheduler process, with a limit on all and on those to one host (SPEC §7)."""

import threading
from collections import Counter

from django.db import close_old_connections, connection

from pipedai import timeouts
from pipedai.logs import get_logger
from pipedai.sql import Row
from triggers.webhooks.due_deliveries import Taker, Turns, claim_deliveries, taker_of
from triggers.webhooks.sending import record_answer, send_delivery

log = get_logger(__name__)

# How many deliveries one process sends at the same time, to all hosts and to one host.
AT_ONCE = 32
PER_HOST = 4
# How long `finish` waits for requests under way. SIGTERM leaves the process 5 s for everything.
STOP_SECONDS = 3.0
# How many threads record an answer at the same time, each with a database connection of its own. Without this limit
# many answers at once would open as many connections.
_RECORDING_AT_ONCE = 4


class Senders:
    """A bounded pool of threads. It claims no more deliveries than it has free places, so each is sent at once.

    A slow host takes at most `per_host` of the places, and a workspace with many slow hosts half of them; see
    `claim_deliveries`. The threads are daemons: if the process ends while a delivery is being sent, the delivery stays
    claimed and comes due again when the claim ends.
    """

    def __init__(self, *, at_once: int = AT_ONCE, per_host: int = PER_HOST) -> None:
        self._at_once = at_once
        self._per_host = per_host
        self._busy: Counter[Taker] = Counter()
        self._turns = Turns()
        self._changed = threading.Condition()
        self._recording = threading.BoundedSemaphore(_RECORDING_AT_ONCE)

    def top_up(self) -> int:
        """Claims due deliveries for the free places and starts to send them. Returns how many, and waits for none."""
        with self._changed:
            busy = dict(self._busy)
        room = self._at_once - sum(busy.values())
        if room <= 0:
            return 0
        claimed = claim_deliveries(room=room, busy=busy, per_host=self._per_host, turns=self._turns)
        for delivery in claimed:
            self._start(delivery)
        return len(claimed)

    def wait(self, seconds: float = STOP_SECONDS) -> bool:
        """Waits for up to `seconds` until no delivery is being sent. Returns whether that was reached."""
        with self._changed:
            idle = self._changed.wait_for(lambda: not self._busy, seconds)
            if not idle:
                log.info("webhook.left_claimed", deliveries=self._busy.total())
        return idle

    def finish(self) -> None:
        """Lets the requests under way end, within STOP_SECONDS. The scheduler's loop calls it when it ends."""
        self.wait()

    def _start(self, delivery: Row) -> None:
        with self._changed:
            self._busy[taker_of(delivery)] += 1
        threading.Thread(
            target=self._run, args=(delivery,), name="webhook-sender", daemon=True
        ).start()

    def _run(self, delivery: Row) -> None:
        try:
            answer = send_delivery(delivery)
            with self._recording, timeouts.overriding(timeouts.SCHEDULER):
                close_old_connections()
                try:
                    record_answer(delivery, answer)
                finally:
                    connection.close()
        except Exception:
            # The delivery stays claimed, so it is sent again when the claim ends.
            log.exception("webhook.not_recorded", delivery_id=str(delivery["id"]))
        finally:
            with self._changed:
                taker = taker_of(delivery)
                self._busy[taker] -= 1
                if not self._busy[taker]:
                    del self._busy[taker]
                self._changed.notify_all()


senders = Senders()
