"""Sends deliveries in threads of the scheduler process, with a limit on all and on those to one host (SPEC §7)."""

import threading
from collections import Counter

from django.db import close_old_connections

from pipedai import timeouts
from pipedai.logs import get_logger
from pipedai.outgoing import Answer
from pipedai.sql import Row
from triggers.webhooks.crew import Crew
from triggers.webhooks.due_deliveries import Taker, Turns, claim_deliveries, taker_of
from triggers.webhooks.sending import record_answer, send_delivery

log = get_logger(__name__)

# How many deliveries one process sends at the same time, to all hosts and to one host.
AT_ONCE = 32
PER_HOST = 4
# How long `finish` waits for requests under way. SIGTERM leaves the process 5 s for everything.
STOP_SECONDS = 3.0
# Only these threads have a connection to the database: a burst of answers must not open as many as there are senders.
RECORDING_AT_ONCE = 4
# How long the end waits for threads that have nothing to do any more.
_GOODBYE_SECONDS = 0.5


class Senders:
    """A bounded pool of threads. It claims no more deliveries than it has free places, so each is sent at once.

    One crew of threads sends, and a smaller one records the answers. A slow or dead host takes `per_host` of the places
    and no more, and a workspace with many such hosts half of them: see `claim_deliveries`. The threads are daemons: a
    delivery that is still under way when the process ends stays claimed, and is due again when the claim is over.
    """

    def __init__(self, *, at_once: int = AT_ONCE, per_host: int = PER_HOST) -> None:
        self._at_once = at_once
        self._per_host = per_host
        self._busy: Counter[Taker] = Counter()
        self._turns = Turns()
        self._changed = threading.Condition()
        self._sending = Crew("webhook-sender", at_once, self._send)
        self._recording = Crew("webhook-recorder", RECORDING_AT_ONCE, self._record)

    def top_up(self) -> int:
        """Claims due deliveries for the free places and starts to send them. Returns how many, and waits for none."""
        with self._changed:
            busy = dict(self._busy)
        room = self._at_once - sum(busy.values())
        if room <= 0:
            return 0
        claimed = claim_deliveries(room=room, busy=busy, per_host=self._per_host, turns=self._turns)
        for delivery in claimed:
            with self._changed:
                self._busy[taker_of(delivery)] += 1
            self._sending.give(delivery)
        return len(claimed)

    def wait(self, seconds: float = STOP_SECONDS) -> bool:
        """Waits for up to `seconds` until no delivery is being sent. Returns whether that was reached."""
        with self._changed:
            idle = self._changed.wait_for(lambda: not self._busy, seconds)
            if not idle:
                log.info("webhook.left_claimed", deliveries=self._busy.total())
        return idle

    def finish(self) -> None:
        """For the end of the loop: lets what is under way end, within `STOP_SECONDS`, and then ends idle threads."""
        if self.wait():
            self._sending.stop(_GOODBYE_SECONDS / 2)
            self._recording.stop(_GOODBYE_SECONDS / 2)

    def _send(self, delivery: Row) -> None:
        try:
            answer = send_delivery(delivery)
        except Exception:
            # It is still claimed, so it is sent again.
            log.exception("webhook.not_recorded", delivery_id=str(delivery["id"]))
            self._leave(delivery)
        else:
            self._recording.give((delivery, answer))

    def _record(self, sent: tuple[Row, Answer]) -> None:
        delivery, answer = sent
        try:
            close_old_connections()
            with timeouts.overriding(timeouts.SCHEDULER):
                record_answer(delivery, answer)
        except Exception:
            # It is still claimed, so it is sent again.
            log.exception("webhook.not_recorded", delivery_id=str(delivery["id"]))
        finally:
            self._leave(delivery)

    def _leave(self, delivery: Row) -> None:
        with self._changed:
            taker = taker_of(delivery)
            self._busy[taker] -= 1
            if not self._busy[taker]:
                del self._busy[taker]
            self._changed.notify_all()


senders = Senders()
