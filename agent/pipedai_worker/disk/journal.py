"""Keeps runs in hand and unreported outcomes on disk, and cleans up what a killed worker has left behind."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

from pipedai_worker.disk import durable
from pipedai_worker.disk.durable import logged
from pipedai_worker.disk.sessions import NOT_KEPT, Sessions, session_of
from pipedai_worker.disk.tool_calls import RecordedCalls, ToolCalls
from pipedai_worker.executors.base import Executor
from pipedai_worker.running import process
from pipedai_worker.running.outcome import FAILED, INFRA, Outcome

log = logging.getLogger(__name__)
Entry = TypeVar("Entry")

# The folders of the state directory with the runs in hand, and with the events that the API has not taken yet.
HELD, EVENTS = "held", "events"
# The suffix of an event file: SENT if its events are sent as they come, KEPT if only after a run without success.
SENT, KEPT = ".ndjson", ".kept.ndjson"


class AlreadyRunning(Exception):  # noqa: N818 - a state, not a mistake
    """Another process is already running a worker with this registration."""


@dataclass(frozen=True)
class HeldRun:
    run_id: str
    claim_id: str
    # The directory in which its program works; None before the program could be started.
    scratch: str | None = None
    pid: int | None = None
    process_started: str | None = None
    # The session of an earlier attempt in which the run is to go on; None if it begins anew.
    resume_session_id: str | None = None
    # What the worker saw when it looked for something new, as the API takes it; None if it has not looked.
    before: dict[str, Any] | None = None


@dataclass(frozen=True)
class Holder:
    """The process that works with a registration. `draining` is true if it takes no new runs."""

    pid: int
    started: str | None
    draining: bool


class Journal:
    """The state directory of one worker registration. Only one process at a time may use it."""

    def __init__(self, directory: Path) -> None:
        """Lock the directory. Raises AlreadyRunning if another process uses it, OSError if it can't be used."""
        self._held = durable.private_directory(directory / HELD)
        self._outcomes = durable.private_directory(directory / "outcomes")
        self._calls = durable.private_directory(directory / "calls")
        self._events = durable.private_directory(directory / EVENTS)
        self.sessions = Sessions(directory / "sessions")
        self._next_claim = directory / "next-claim.json"
        self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise AlreadyRunning from None
        self._next_claim_id = self._read_next_claim()
        # Whether the last attempt to write down a run failed.
        self._could_not_hold = False
        self.tell(draining=False)

    def _read_next_claim(self) -> str | None:
        """Return the claimId with which an earlier process asked for a run, unless a run on disk already has it."""
        try:
            claim_id = durable.read_json_object(self._next_claim).get("claimId")
        except (OSError, ValueError):
            return None
        if not isinstance(claim_id, str) or any(run.claim_id == claim_id for run in self.held()):
            return None
        return claim_id

    def next_claim_id(self) -> str:
        """Return the claimId for the next run, which stays on disk until it is dropped. Raises OSError."""
        if self._could_not_hold:
            durable.try_writing(self._held)
            self._could_not_hold = False
        if self._next_claim_id is None:
            claim_id = uuid4().hex
            durable.write_json(self._next_claim, {"claimId": claim_id})
            self._next_claim_id = claim_id
        return self._next_claim_id

    def drop_next_claim_id(self) -> None:
        """Use another claimId from now on: the run of the present one has been written down. Raises OSError."""
        self._next_claim_id = None
        durable.remove(self._next_claim)

    def tell(self, *, draining: bool) -> None:
        """Write which process works here, and whether it takes runs, into the locked file itself. Raises OSError."""
        holder = Holder(os.getpid(), process.start_time(os.getpid()), draining)
        content = json.dumps(asdict(holder)).encode()
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, content, 0)

    @staticmethod
    def holder(directory: Path) -> Holder | None:
        """Return the process that works with the registration whose state directory this is; None if none is known."""
        try:
            holder = Holder(**durable.read_json_object(directory / "lock"))
            alive = process.start_time(holder.pid) == holder.started
        except (OSError, ValueError, TypeError):
            return None
        return holder if alive and holder.started is not None else None

    def close(self) -> None:
        os.close(self._lock)

    def hold(self, run: HeldRun) -> HeldRun:
        try:
            durable.write_json(self._held / f"{run.run_id}.json", asdict(run))
        except OSError:
            self._could_not_hold = True
            raise
        return run

    def update(self, run: HeldRun, **changes: Any) -> HeldRun:
        return self.hold(replace(run, **changes))

    def release(self, run_id: str) -> None:
        durable.remove(self._held / f"{run_id}.json")
        durable.remove(self.calls_of(run_id))

    def calls_of(self, run_id: str) -> Path:
        return self._calls / f"{run_id}.ndjson"

    def events_of(self, run_id: str, *, kept: bool) -> Path:
        return self._events / f"{run_id}{KEPT if kept else SENT}"

    def events(self) -> dict[str, Path]:
        """Return the files of unsent events by their runs' ids, older ones first, without those of runs that wait."""
        paths = sorted(self._events.glob("*.ndjson"), key=lambda path: path.stat().st_mtime)
        found = {path.name.partition(".")[0]: path for path in paths}
        waiting = {session.run_id for session in self.sessions.all() if session.waits}
        return {run_id: path for run_id, path in found.items() if run_id not in waiting}

    def sweep(self) -> None:
        """Remove files of tool calls that belong to no run of this worker. A kill at a bad moment leaves them."""
        held = {path.stem for path in self._held.glob("*.json")}
        for path in self._calls.iterdir():
            if path.is_dir():
                log.warning("%s is no file of a run; left as it is", path)
            elif path.suffix != ".ndjson" or path.stem not in held:
                log.warning("%s belongs to no run; removed", path)
                path.unlink()

    def held(self) -> list[HeldRun]:
        return list(_read_all(self._held, lambda _, content: HeldRun(**content)))

    def put_outcome(self, run_id: str, body: dict[str, Any]) -> None:
        durable.write_json(self._outcomes / f"{run_id}.json", body)

    def drop_outcome(self, run_id: str) -> None:
        durable.remove(self._outcomes / f"{run_id}.json")

    def has_outcome(self, run_id: str) -> bool:
        return (self._outcomes / f"{run_id}.json").exists()

    def outcomes(self) -> dict[str, dict[str, Any]]:
        return dict(_read_all(self._outcomes, lambda run_id, content: (run_id, content)))


def _read_all(directory: Path, make: Callable[[str, dict[str, Any]], Entry]) -> Iterator[Entry]:
    for path in sorted(directory.glob("*.json")):
        try:
            yield make(str(UUID(path.stem)), durable.read_json_object(path))
        except (OSError, ValueError, TypeError) as error:
            durable.set_aside(path, error)


RESTARTED = Outcome(FAILED, INFRA, error_message="worker restarted")
# The outcome of a run whose program was never started: it called no tool and cost nothing, though its claim started it.
NEVER_BEGUN = replace(RESTARTED, tool_calls={"total": 0, "effects": 0, "unknown": 0}, cost_usd=0.0)
# The outcome of a run that the API has granted while the worker was ending, and of one that the worker can't read.
NOT_BEGUN = replace(NEVER_BEGUN, error_message="The worker was stopped before the run began.")
UNREADABLE = replace(NEVER_BEGUN, error_message="The worker can't read this run.")


def clean_up(journal: Journal, executor: Executor) -> None:
    """End the programs of earlier runs, remove files that no session to resume needs, and write down the outcomes."""
    spooled = journal.outcomes()
    for run in journal.held():
        end_orphans(run)
        calls = _calls_of(journal, run)
        session = journal.sessions.of_run(run.run_id)
        if session is not None:
            if session.root:
                executor.clean_up(session.id, session.work, run.pid, keep_session=True)
                durable.strip(Path(session.root))
            if session.in_use:
                # If its tool calls are not known, the run may have had effects.
                had_effects = replace(session, had_effects=True)
                known = session.after(calls.counts(), calls.listed()) if calls else had_effects
                with logged(NOT_KEPT):
                    journal.sessions.keep(replace(known, waits=False), executor)
        elif run.scratch:
            session_id, work = session_of(run.claim_id), durable.work(Path(run.scratch))
            executor.clean_up(session_id, work, run.pid)
            durable.remove_tree(Path(run.scratch))
        if run.run_id not in spooled:
            log.warning("run %s was in hand when the worker stopped", run.run_id)
            outcome = RESTARTED if run.scratch else NEVER_BEGUN
            if run.scratch and calls:
                outcome = replace(outcome, tool_calls=calls.counts(), tool_call_list=calls.listed())
            resumable = session.id if session else run.resume_session_id
            outcome = replace(outcome, session_id=resumable, before=run.before)
            journal.put_outcome(run.run_id, outcome.body())
        journal.release(run.run_id)
    for session in journal.sessions.all():
        if session.in_use:
            # The file of the session's run was lost, so nobody knows what the run has done.
            with logged(NOT_KEPT):
                journal.sessions.keep(replace(session, had_effects=True), executor)
    journal.sweep()


def _calls_of(journal: Journal, run: HeldRun) -> RecordedCalls | None:
    """Return the tool calls of an earlier process's run; None if they are not known."""
    path = journal.calls_of(run.run_id)
    with logged(f"the tool calls of run {run.run_id} can't be read"):
        return ToolCalls.read(path) if path.exists() else None
    return None


# This variable marks the processes of a run, which inherit it. Its value is the random id of the run's claim.
CLAIM_VARIABLE = "PIPEDAI_CLAIM_ID"
TERM_GRACE_SECONDS = 2.0


def end_orphans(run: HeldRun) -> None:
    """End the run's process group and, on Linux, every process that has the run's mark in its environment."""
    pid, started = run.pid, run.process_started
    for number in (signal.SIGTERM, signal.SIGKILL):
        # If the group's first process is gone, another group may have got its id since.
        if pid is None or started is None or process.start_time(pid) != started:
            break
        log.warning("ending process group %d, left running by a killed worker", pid)
        process.signal_group(pid, number)
        deadline = time.monotonic() + TERM_GRACE_SECONDS
        while time.monotonic() < deadline and process.start_time(pid) == started:
            time.sleep(0.05)
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
    """Kill the process if it has the mark of this claim, and tell whether it did. Its pidfd is opened before the mark
    is read, so that no process that gets the same id is killed.
    """
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # A process that has ended, and waits for its parent to notice, has no environment: it is not killed again.
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"{CLAIM_VARIABLE}={claim_id}".encode() not in variables:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True
