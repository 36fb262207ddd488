"""Writes the heartbeat row of a scheduler process, by the database's clock (SPEC §7)."""

import os
import socket
from datetime import timedelta

from pipedai import clocks
from pipedai.ids import new_id
from pipedai.sql import execute, fetch_all
from triggers.models import SchedulerHeartbeat

BEAT_SECONDS = 5.0
# A scheduler counts as alive until it has missed four heartbeats.
ALIVE_WITHIN = timedelta(seconds=4 * BEAT_SECONDS)
# For how many seconds the row of a killed scheduler is kept. A scheduler that stops normally deletes its own row.
KEEP_SECONDS = 3600

_BEAT = """
INSERT INTO scheduler_heartbeat (id, host, pid) VALUES (%(id)s, %(host)s, %(pid)s)
ON CONFLICT (id) DO UPDATE SET beat_at = statement_timestamp()
RETURNING statement_timestamp() AS now
"""


class Heartbeat:
    """The heartbeat row of this process. The first beat inserts it."""

    every_seconds = BEAT_SECONDS

    def __init__(self) -> None:
        self.id = new_id()
        self._row = {"id": self.id, "host": socket.gethostname()[:255], "pid": os.getpid()}

    def beat(self) -> int:
        """Writes that this process lives, and removes rows of killed ones. Returns 0, so that the loop sleeps."""
        asked = clocks.machine_now()
        (row,) = fetch_all(_BEAT, self._row)
        clocks.of_this_process.compare(asked, row["now"])
        execute(
            "DELETE FROM scheduler_heartbeat"
            " WHERE beat_at < statement_timestamp() - make_interval(secs => %(seconds)s)",
            {"seconds": KEEP_SECONDS},
        )
        return 0

    def end(self) -> None:
        SchedulerHeartbeat.objects.filter(id=self.id).delete()
