"""Asks the process that works with a registration to finish its runs and end, and waits for that."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from pipedai_worker.journal import AlreadyRunning, Holder, Journal
from pipedai_worker.logs import get_logger

log = get_logger(__name__)

LOOK_SECONDS = 0.2


def journal_after_all_others(directory: Path) -> Journal:
    """Open the journal of a registration, after the process that has it now has finished its runs and ended.

    Raises AlreadyRunning if that process can't be found, and OSError.
    """
    asked: Holder | None = None
    while True:
        try:
            return Journal(directory)
        except AlreadyRunning:
            holder = Journal.holder(directory)
            if holder is None and asked is None:
                raise
        if holder is not None and (asked is None or holder.pid != asked.pid):
            log.info(
                "process %d works with this registration: it is to finish its runs", holder.pid
            )
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder.pid, signal.SIGUSR1)
            asked = holder
        time.sleep(LOOK_SECONDS)
