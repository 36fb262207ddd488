"""Keeps the worker's current runs and unreported outcomes on disk, so that they survive if the worker is killed."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

from pipedai_worker.disk import durable
from pipedai_worker.disk.sessions import Sessions
from pipedai_worker.logs import get_logger
from pipedai_worker.running import process

log = get_logger(__name__)
Entry = TypeVar("Entry")

# The folders of the state directory with the runs in hand, and with the events that the API has not taken yet.
HELD, EVENTS = "held", "events"
# A run's file of events ends so if they are sent as they come, or if they are sent only if the run does not succeed.
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
        """Return the claimId with which an earlier process has asked for a run, if it may have got none by it."""
        try:
            claim_id = durable.read_json_object(self._next_claim).get("claimId")
        except (OSError, ValueError):
            return None
        if not isinstance(claim_id, str) or any(run.claim_id == claim_id for run in self.held()):
            return None
        return claim_id

    def next_claim_id(self) -> str:
        """Return the claimId for the next run. It is on disk before it is sent, and stays until `drop_next_claim_id()`,
        because its answer may be lost. Raises OSError, also while an earlier run could not be written down.
        """
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
        """Return the files of events that the API has not taken yet, by their run's id. Older ones come first. Those of
        runs that wait for a person are left out.
        """
        paths = sorted(self._events.glob("*.ndjson"), key=lambda path: path.stat().st_mtime)
        found = {path.name.partition(".")[0]: path for path in paths}
        waiting = {session.run_id for session in self.sessions.all() if session.waits}
        return {run_id: path for run_id, path in found.items() if run_id not in waiting}

    def sweep(self) -> None:
        """Remove files of tool calls that belong to no run of this worker. A kill at a bad moment leaves them."""
        held = {path.stem for path in self._held.glob("*.json")}
        for path in self._calls.iterdir():
            if path.suffix != ".ndjson" or path.stem not in held:
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
