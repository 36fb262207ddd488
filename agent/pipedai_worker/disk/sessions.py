"""Keeps the sessions of claude in which later attempts may go on, and gives each attempt directory and session."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from pipedai_worker.disk import durable
from pipedai_worker.disk.durable import Scratch, logged
from pipedai_worker.disk.tool_calls import UNKNOWN, ToolCalls
from pipedai_worker.executors.base import Execution, Executor, JobSession
from pipedai_worker.running.assigned import AssignedRun
from pipedai_worker.running.outcome import FAILED, INFRA, WAITING, Outcome
from pipedai_worker.running.stopping import StopReason

log = logging.getLogger(__name__)

# The ids of claude's sessions are derived from this namespace (a random UUID). It must not change, because a new
# version of the worker has to compute the same ids as the old one.
_NAMESPACE = UUID("5d0f3c52-3c8e-4c55-9c4e-0f6a2f1b7a90")
# A usage limit is waited for 8 days at most, and a session can be resumed for an hour after it. A session is
# kept so long unless the API tells another time.
RESUME_SECONDS = 3600.0
LONGEST_SECONDS = 8 * 86_400.0 + RESUME_SECONDS
# The most bytes that the files of one session, and of all sessions, may take. Beyond that, and beyond so many sessions,
# the oldest ones lose their files.
LARGEST_BYTES = 256 * 1024 * 1024
LARGEST_SUM_BYTES = 1024 * 1024 * 1024
MOST_KEPT = 100
# For at most this many sessions the worker remembers what it knows of them, without their files.
MOST_KNOWN = 1000
MOST_UNANSWERED = 50
NOT_KEPT = "a run's session can't be kept"
# A run may have to wait for the end of the attempt before it, which the API has given up.
TAKE_SECONDS = 60.0
LOOK_SECONDS = 0.1


def session_of(claim_id: str) -> str:
    """Return the id of a claim's session. It is derived from the claim's id, which is known after a crash."""
    return str(uuid5(_NAMESPACE, claim_id))


@dataclass(frozen=True)
class Session:
    """What the worker knows of one session. It holds no prompt and no secret."""

    id: str
    # The run that uses the session, or that used it last.
    run_id: str
    # The run's scratch directory. Empty if the session's files have been removed.
    root: str
    in_use: bool = True
    # When the session and its files are removed, in seconds since 1970.
    keep_until: float = 0.0
    # True if an attempt called a tool that may have had an effect.
    had_effects: bool = False
    # The names of the tools that the attempts called without getting an answer.
    unanswered: tuple[str, ...] = ()
    # True if the working directory was not empty when the last attempt ended.
    had_files: bool = False
    bytes: int = 0
    # True while the session's run waits for a person's decision: its files are then not removed to make room.
    waits: bool = False
    # True if claude may have deferred a tool call at the end of the session.
    deferred: bool = False
    # The tool of that call, as the MCP server names it; empty if no call was deferred.
    asked_tool: str = ""
    # The tools that may have an effect, by any list that the run's MCP server gave before the run began to wait.
    with_effect: tuple[str, ...] = ()

    @property
    def work(self) -> Path:
        """The working directory in which the session was begun. Claude resumes a session only there."""
        return durable.work(Path(self.root))

    def after(self, counts: dict[str, int], listed: list[dict[str, Any]]) -> Session:
        new = [str(call["tool"]) for call in listed if call["outcome"] == UNKNOWN]
        # Each name counts once. The list is cut, as no run has so many different tools that the last ones matter.
        unanswered = tuple(dict.fromkeys((*self.unanswered, *new)))[:MOST_UNANSWERED]
        # A call without an answer may have had an effect, whatever its tool is said to do.
        had_effects = self.had_effects or counts["effects"] > 0 or counts["unknown"] > 0
        return replace(self, had_effects=had_effects, unanswered=unanswered)


class Sessions:
    """The sessions of one worker registration, each in a file of its own. Several threads may use it."""

    def __init__(self, directory: Path) -> None:
        self._directory = durable.private_directory(directory)
        # It is not held while files are removed, as that takes long if a run has left very many.
        self._lock = threading.Lock()
        # The ids of the sessions whose files are being removed.
        self._going: set[str] = set()

    def all(self) -> list[Session]:
        found = (self._read(path) for path in self._directory.glob("*.json"))
        return [session for session in found if session is not None]

    def of_run(self, run_id: str) -> Session | None:
        return next((session for session in self.all() if session.run_id == run_id), None)

    def waiting(self) -> list[str]:
        """Return the ids of the runs that wait for a person's decision, as far as this worker knows."""
        return [each.run_id for each in self.all() if each.waits and not each.in_use][:MOST_KEPT]

    def begin(self, session: Session) -> None:
        with self._lock:
            self._write(replace(session, in_use=True))

    def take(self, session_id: str, run_id: str, given_up: Callable[[], bool]) -> Session | None:
        """Mark a session as used, and return it; None if it is unknown or stays in use. Wait for an earlier attempt
        that still works, at most for a minute and until `given_up()` is true. Raises OSError.
        """
        until = time.monotonic() + TAKE_SECONDS
        while True:
            with self._lock:
                session = self._find(session_id)
                if session is None:
                    return None
                is_free = not session.in_use or session.run_id == run_id
                if is_free and session_id not in self._going:
                    session = replace(session, run_id=run_id, in_use=True)
                    self._write(session)
                    return session
            if given_up() or time.monotonic() >= until:
                return None
            time.sleep(LOOK_SECONDS)

    def make_room(
        self, session_id: str, executor: Executor, tool: str, with_effect: set[str]
    ) -> bool:
        """Note that the session's run is about to wait, that claude defers a call of `tool` at its end, and which tools
        may have an effect. Return False if there is no room for one more session whose files must stay. Raises OSError.
        """
        with self._lock:
            session = self._find(session_id)
            if session is None:
                return False
            waiting = [each for each in self.all() if each.waits and each.id != session_id]
            size = self._size(session, executor)
            if size > LARGEST_BYTES or len(waiting) >= MOST_KEPT:
                return False
            if size + sum(each.bytes for each in waiting) > LARGEST_SUM_BYTES:
                return False
            names = tuple(sorted(with_effect))
            noted = replace(session, bytes=size, asked_tool=tool, with_effect=names)
            self._write(replace(noted, waits=True, deferred=True))
            return True

    def undefer(self, session_id: str) -> None:
        """Note that the deferred call of a session is about to be made. Raises OSError."""
        with self._lock:
            session = self._find(session_id)
            if session is not None:
                self._write(replace(session, deferred=False))

    def keep(self, session: Session, executor: Executor) -> bool:
        """Keep an unused session, or just a note of its effects. Tell whether it can be resumed. Raises OSError."""
        stored = self._find(session.id) or session
        had_files = any(session.work.iterdir()) if session.work.is_dir() else session.had_files
        paths = executor.session_files(session.id, session.work)
        size = self._size(session, executor)
        if paths and size > LARGEST_BYTES and not session.waits:
            log.warning("the session of run %s is too large to be resumed", session.run_id)
            paths = []
        if not paths:
            session, size = self._without_files(session, executor), 0
        kept = replace(
            session,
            in_use=False,
            keep_until=time.time() + LONGEST_SECONDS,
            had_files=had_files,
            bytes=size,
            deferred=stored.deferred,
            asked_tool=stored.asked_tool,
            with_effect=stored.with_effect,
        )
        with self._lock:
            self._write(kept)
        self._bound(executor)
        left = self._find(session.id)
        return left is not None and bool(left.root)

    def learn_end(
        self, run_id: str, seconds: float | None, executor: Executor, *, waits: bool = False
    ) -> None:
        """Let this run's session stay so long, and an hour longer if the run `waits`. With None, remove it."""
        if seconds is None or seconds <= 0:
            session = self.of_run(run_id)
            if session is not None:
                self._drop(session.id, executor, lambda one: one.run_id == run_id)
            return
        with self._lock:
            session = self.of_run(run_id)
            if session is None or session.in_use:
                return
            seconds += RESUME_SECONDS if waits else 0.0
            until = time.time() + min(seconds, LONGEST_SECONDS)
            self._write(replace(session, keep_until=until, waits=waits))

    def keep_while_limited(self, seconds: float) -> None:
        """Keep idle sessions until an hour after the usage limit, which ends in `seconds`. Raises OSError."""
        until = time.time() + min(seconds + RESUME_SECONDS, LONGEST_SECONDS)
        with self._lock:
            for session in self.all():
                if not session.in_use and session.keep_until < until - 1:
                    self._write(replace(session, keep_until=until))

    def forget(self, session_id: str, executor: Executor) -> None:
        """Remove a session and all of its files, even if a run uses it. It raises nothing."""
        self._drop(session_id, executor, lambda _: True, in_use=True)

    def tidy(self, executor: Executor, now: float) -> None:
        """Remove sessions whose time is over."""
        for session in self.all():
            self._drop(session.id, executor, lambda one: one.keep_until <= now)

    def _bound(self, executor: Executor) -> None:
        idle = [session for session in self.all() if not session.in_use]
        idle.sort(key=lambda session: (session.waits, session.keep_until), reverse=True)
        size = count = 0
        for number, session in enumerate(idle):
            if session.root:
                size, count = size + session.bytes, count + 1
                full = size > LARGEST_SUM_BYTES or count > MOST_KEPT
                if full and not session.waits:
                    log.warning("the session of run %s made room for newer ones", session.run_id)
                    self._drop(session.id, executor, lambda one: not one.waits, note=True)
            if number >= MOST_KNOWN and not session.waits:
                self._drop(session.id, executor, lambda one: not one.waits)

    def _size(self, session: Session, executor: Executor) -> int:
        paths = executor.session_files(session.id, session.work)
        return sum(map(_bytes_in, [Path(session.root), *paths]))

    def _drop(
        self,
        session_id: str,
        executor: Executor,
        may_go: Callable[[Session], bool],
        *,
        in_use: bool = False,
        note: bool = False,
    ) -> None:
        """Remove the files of a session that `may_go` and is idle, or may be `in_use`; and then what is known of it,
        except with `note`.
        """
        with self._lock:
            session = self._find(session_id)
            if session is None or session_id in self._going or not may_go(session):
                return
            if session.in_use and not in_use:
                return
            self._going.add(session_id)
        bare = self._without_files(session, executor)
        with self._lock, logged("a session can't be forgotten"):
            self._going.remove(session_id)
            if note:
                self._write(bare)
            else:
                durable.remove(self._path(session_id))

    def _without_files(self, session: Session, executor: Executor) -> Session:
        if session.root:
            executor.clean_up(session.id, session.work, None)
            durable.remove_tree(Path(session.root))
        return replace(session, root="", bytes=0)

    def _find(self, session_id: str) -> Session | None:
        try:
            return self._read(self._path(str(UUID(session_id))))
        except ValueError:
            return None

    def _path(self, session_id: str) -> Path:
        return self._directory / f"{session_id}.json"

    def _write(self, session: Session) -> None:
        durable.write_json(self._path(session.id), asdict(session))

    def _read(self, path: Path) -> Session | None:
        try:
            content = durable.read_json_object(path)
            tuples = {name: tuple(content[name]) for name in ("unanswered", "with_effect")}
            return Session(**{**content, **tuples})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            durable.set_aside(path, error)
            return None


def _bytes_in(path: Path) -> int:
    """Return how many bytes a file has, or all files in a directory. What can't be read counts as nothing."""
    total = 0
    with contextlib.suppress(OSError):
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_size
    waiting = [str(path)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


# When a run is stopped for one of these reasons, the API gives it to a worker again.
HANDED_BACK = frozenset({StopReason.LOST, StopReason.SHUTDOWN, StopReason.TOKEN_REFUSED})
HAD_EFFECTS = (
    "The session of the earlier attempt can't be resumed on this worker. That attempt had effects, or may have had"
    " some, so the run did not begin anew (had_effects)."
)


class HadEffects(Exception):  # noqa: N818 - a state, not a mistake
    """A session can't be resumed, and its run must not begin anew, because what it has done would be done twice."""

    # This outcome names no session. The API, which knows the tool calls that the earlier attempts reported, therefore
    # retries the run anew if they had no effects after all, and otherwise not at all.
    outcome = Outcome(FAILED, INFRA, short_message=HAD_EFFECTS, error_message=HAD_EFFECTS)


@dataclass(frozen=True)
class Workplace:
    """Where one attempt works. `known` is what the worker knows of the session, if that can be resumed later."""

    scratch: Scratch
    session: JobSession
    known: Session | None


@dataclass(frozen=True)
class Workplaces:
    """Finds the workplaces of one granted run, and leaves them."""

    _run: AssignedRun
    _claim_id: str
    _executor: Executor
    _sessions: Sessions

    def find(self, given_up: Callable[[], bool]) -> Workplace:
        """Return the run's workplace. To resume a session, this is the earlier attempt's, and the call waits until that
        has left it or `given_up()` is true. Raises HadEffects, OSError.
        """
        run = self._run
        if run.resume_session_id is None:
            return self._anew()
        earlier = self._sessions.take(run.resume_session_id, run.id, given_up)
        if earlier is None:
            # The worker can't know what the earlier attempt has done.
            log.warning("run %s: its session is not known here", run.id)
            raise HadEffects
        scratch = _open_again(earlier, self._executor)
        if scratch is None:
            return self.instead(earlier)
        log.info("run %s goes on in the session of an earlier attempt", run.id)
        session = JobSession(
            earlier.id,
            resumed=True,
            deferred=earlier.deferred,
            kept=self._is_kept,
            unanswered=earlier.unanswered,
        )
        return Workplace(scratch, session, earlier)

    def instead(self, earlier: Session) -> Workplace:
        """Return a new workplace for a run whose session can't be resumed. Raises HadEffects, and OSError."""
        self._sessions.forget(earlier.id, self._executor)
        if earlier.had_effects:
            log.warning("run %s: its session can't be resumed, and had effects", self._run.id)
            raise HadEffects
        log.warning(
            "run %s: its session can't be resumed; it had no effects, so it begins anew",
            self._run.id,
        )
        return self._anew()

    def _anew(self) -> Workplace:
        scratch = Scratch()
        session_id = session_of(self._claim_id)
        session = JobSession(session_id, kept=self._is_kept and self._executor.resumes)
        if not session.kept:
            return Workplace(scratch, session, None)
        known = Session(session.id, self._run.id, str(scratch.root))
        try:
            self._sessions.begin(known)
        except OSError:
            durable.remove_tree(scratch.root)
            raise
        return Workplace(scratch, session, known)

    @property
    def _is_kept(self) -> bool:
        return self._run.may_be_resumed or self._run.approvals is not None

    def leave(
        self, workplace: Workplace, execution: Execution | None, calls: ToolCalls, pid: int | None
    ) -> bool:
        """Remove what the attempt left, or keep what another one needs to go on. Tell whether that is kept."""
        scratch, known, executor = workplace.scratch, workplace.known, self._executor
        waits = execution is not None and execution.outcome.status == WAITING
        goes_on = waits or (self._run.may_be_resumed and _may_be_retried(execution))
        if known is not None and workplace.session.kept and goes_on:
            executor.clean_up(known.id, scratch.work, pid, keep_session=True)
            durable.strip(scratch.root)
            with logged(NOT_KEPT):
                after = known.after(calls.counts(), calls.listed())
                return self._sessions.keep(replace(after, waits=waits), executor)
        executor.clean_up(workplace.session.id, scratch.work, pid)
        durable.remove_tree(scratch.root)
        if known is not None:
            self._sessions.forget(known.id, executor)
        return False


def _may_be_retried(execution: Execution | None) -> bool:
    if execution is None:
        return True
    if execution.session_refused or execution.stopped_by is StopReason.CANCELED:
        return False
    if execution.stopped_by in HANDED_BACK:
        return True
    failed = execution.stopped_by is not None or execution.outcome.status == FAILED
    return failed and execution.outcome.fault_class == INFRA


def _open_again(session: Session, executor: Executor) -> Scratch | None:
    """Open the directory of an earlier attempt; return None if the session can't be resumed in it."""
    lost_files = session.had_files and not session.work.is_dir()
    if not session.root or not executor.resumes or lost_files:
        return None
    if not executor.session_files(session.id, session.work):
        return None
    with logged("the directory of a session can't be used"):
        return Scratch(Path(session.root))
    return None
