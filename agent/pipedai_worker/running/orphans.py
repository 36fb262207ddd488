"""Ends the processes that runs have left behind after their worker was killed, and no other process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from pipedai_worker.disk.journal import HeldRun
from pipedai_worker.logs import get_logger
from pipedai_worker.running import process

log = get_logger(__name__)

# The environment variable that marks the processes of a run, which all inherit it. Its value is the random id of the
# run's claim, so no other process has it by chance.
MARK = "PIPEDAI_CLAIM_ID"
TERM_GRACE_SECONDS = 2.0


def end_orphans(run: HeldRun) -> None:
    """End the run's program and its process group, and (on Linux) every other process with the run's mark.

    The mark is an environment variable, which all processes of a run inherit.
    """
    if run.pid is not None and run.process_started is not None:
        _end_group(run.pid, run.process_started)
    end_marked(run.claim_id)


def end_marked(claim_id: str) -> None:
    """Kill every process whose environment has the mark of this claim, even outside the run's group (on Linux)."""
    for _ in range(10):
        # A process may have started another one during the search, so the search is repeated until it finds none.
        killed = [pid for pid in _process_ids() if _kill_if_marked(pid, claim_id)]
        if not killed:
            return
        time.sleep(0.02)


def _process_ids() -> list[int]:
    if not sys.platform.startswith("linux") or not hasattr(os, "pidfd_open"):
        return []
    try:
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    except OSError:
        return []


def _kill_if_marked(pid: int, claim_id: str) -> bool:
    """Kill the process if its environment has the mark of this claim, and tell whether it did.

    The process is opened (pidfd) before its environment is read. If the process ends in between and another one gets
    its id, the signal therefore reaches nobody.
    """
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # The environment of a process that has ended, and only waits for its parent to notice, is empty: it is not
        # killed again.
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"{MARK}={claim_id}".encode() not in variables:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _end_group(pid: int, started: str) -> None:
    """End a process group. Do nothing if its first process is gone, because another group may have got its id since."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.start_time(pid) != started:
            return
        log.warning("ending process group %d, left running by a killed worker", pid)
        _signal_group(pid, number)
        _wait_for_end(pid, started)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _wait_for_end(pid: int, started: str) -> None:
    deadline = time.monotonic() + TERM_GRACE_SECONDS
    while time.monotonic() < deadline and process.start_time(pid) == started:
        time.sleep(0.05)
