"""Sends webhook deliveries in threads of the scheduler process. It limits how many are sent at once in all, and how
many to one host (SPEC §7).
"""

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

# How many deliveries one process sends at the same time: to all hosts together, and (`PER_HOST`) to one host.
AT_ONCE = 32
PER_HOST = 4
# For how many seconds `finish` waits for requests that are being sent. After SIGTERM the process has 5 s for
# everything.
STOP_SECONDS = 3.0
# How many threads record answers. They are fewer than those that send, because each needs a database connection.
RECORDING_AT_ONCE = 4
# For how many seconds `finish` waits until idle threads have ended.
_GOODBYE_SECONDS = 0.5


class Senders:
    """A pool with a limited number of threads that send deliveries. It claims only as many deliveries as it can send at
    once, so that none waits after it is claimed.

    One group of threads sends, and a smaller one records the answers. Of the deliveries that are sent at one time, at
    most `per_host` go to one host, so a slow host can't delay all others, and at most half belong to one workspace: see
    `claim_deliveries`. The threads are daemons: if the process ends while a delivery is being sent, the delivery stays
    claimed and comes due again when the claim has expired.
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
        """Claims as many due deliveries as can be sent now and starts to send them. Returns how many, and does not wait
        until they are sent.
        """
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
        """Waits until no delivery is being sent, for `seconds` at most. Returns whether none is."""
        with self._changed:
            idle = self._changed.wait_for(lambda: not self._busy, seconds)
            if not idle:
                log.info("webhook.left_claimed", deliveries=self._busy.total())
        return idle

    def finish(self) -> None:
        """Is called when the scheduler stops: waits for the requests that are being sent, for `STOP_SECONDS` at most,
        and then ends the idle threads.
        """
        if self.wait():
            self._sending.stop(_GOODBYE_SECONDS / 2)
            self._recording.stop(_GOODBYE_SECONDS / 2)

    def _send(self, delivery: Row) -> None:
        try:
            answer = send_delivery(delivery)
        except Exception:
            # The delivery is still claimed. When the claim expires, the delivery comes due and is sent again.
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
            # The delivery is still claimed. When the claim expires, the delivery comes due and is sent again.
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
