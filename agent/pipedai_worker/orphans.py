"""Ends the processes that the runs of a killed worker left, and never signals any other process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from pipedai_worker import identity
from pipedai_worker.journal import HeldRun
from pipedai_worker.logs import get_logger

log = get_logger(__name__)

# Every process of a run inherits this variable. Its value is the claim's id, which is random, so no
# other process has it by chance.
MARK = "PIPEDAI_CLAIM_ID"
TERM_GRACE_SECONDS = 2.0


def end_orphans(run: HeldRun) -> None:
    """End the run's program, its process group, and (on Linux) every other process with its mark."""
    if run.pid is not None and run.process_started is not None:
        _end_group(run.pid, run.process_started)
    end_marked(run.claim_id)


def end_marked(claim_id: str) -> None:
    """Kill the processes of one run that are not in its process group any more (Linux)."""
    for _ in range(10):
        # A process may have started another one meanwhile, so the search is repeated until it finds none.
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
    """Kill the process if its environment has the claim's mark, and tell whether it did.

    The handle is opened before the environment is read. If the process ends and its id is used
    again in between, the signal then reaches nobody.
    """
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # A process that has ended and waits to be reaped shows an empty environment.
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
    """Signal the group only while its leader lives: until then no other group can have its number."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if identity.start_time(pid) != started:
            return
        log.warning("ending process group %d, left running by a killed worker", pid)
        _signal_group(pid, number)
        _wait_for_end(pid, started)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _wait_for_end(pid: int, started: str) -> None:
    deadline = time.monotonic() + TERM_GRACE_SECONDS
    while time.monotonic() < deadline and identity.start_time(pid) == started:
        time.sleep(0.05)
