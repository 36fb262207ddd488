"""Runs the conformance checks against a worker's command line, each in a lab of its own, with a fake API."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from pipedai_worker import stand_in
from pipedai_worker.cli import ERROR, PATIENCE_SECONDS, Exit
from pipedai_worker.conformance.fake_api import TERMINAL, FakeApi, FakeRun
from pipedai_worker.conformance.serving import Service
from pipedai_worker.disk import spool
from pipedai_worker.identity import WorkerConfig
from pipedai_worker.running.process import signal_group

# The most seconds that a worker may take to exit after SIGTERM.
LEAVE_SECONDS = 30.0
CONFIG_VARIABLE = "PIPEDAI_CONFIG"
LOG_LINES = 15
# When polls fail, a correct worker sends at most MOST_ATTEMPTS of them in QUIET_SECONDS, as it makes pauses.
QUIET_SECONDS = 4.0
MOST_ATTEMPTS = 12


@dataclass(frozen=True)
class Check:
    """One conformance check. Its function `run` raises Failed if the worker under test does something wrong."""

    name: str
    sentence: str
    run: Callable[[Lab], None]


CHECKS: dict[str, Check] = {}


def check(sentence: str) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
    """Return a decorator that adds a function to the checks, under its own name. `sentence` says what it checks."""

    def register(run: Callable[[Lab], None]) -> Callable[[Lab], None]:
        name = run.__name__.replace("_", "-")
        CHECKS[name] = Check(name, sentence, run)
        return run

    return register


class Failed(Exception):  # noqa: N818 - a verdict
    """The worker under test did something wrong, which the message says in one sentence."""


class Skipped(Exception):  # noqa: N818 - a verdict
    """The check is about something that a worker need not do, and that the worker under test does not do."""


def launch(
    argv: Sequence[str], environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start the worker under test in a session of its own. What it writes is appended to `log`."""
    with log.open("ab") as opened:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=opened,
            stderr=opened,
            env=environment,
            start_new_session=True,
        )


@dataclass
class Lab:
    """The surroundings of one check, as a context manager. When it ends, it has ended every process that it started."""

    _command: str
    directory: Path
    _patience: float
    _called_off: threading.Event
    api: FakeApi = field(default_factory=FakeApi)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.service = Service(self.api)
        self._config = self.directory / "worker.json"
        self._log = self.directory / "worker.log"

    def __enter__(self) -> Lab:
        self.service.start()
        config = WorkerConfig(self.api.worker_id, self.api.worker_token, self.service.url, "")
        config.save(self._config)
        for name in ("bin", "tmp"):
            (self.directory / name).mkdir()
        # Sessions are off, because their files would hold the prompt where the worker under test does not look.
        self.install("--offline", "--no-session-persistence")
        return self

    def install(self, *options: str) -> None:
        """Let claude be the stand-in with these options. Without any it keeps sessions, and needs its MCP server."""
        claude = self.directory / "bin" / "claude"
        program = shlex.join([*stand_in.COMMAND, *options])
        claude.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        claude.chmod(0o755)

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()
        self.service.close()
        for pid in (pid for path in self.directory.glob("programs-*") for pid in _numbers(path)):
            if _is_stand_in(pid):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    # --- The process of the worker under test ----------------------------------------------------

    def start(self) -> None:
        argv = [part.replace("{config}", str(self._config)) for part in shlex.split(self._command)]
        environment = {
            **os.environ,
            "HOME": str(self.directory),
            "TMPDIR": str(self.directory / "tmp"),
            "PATH": f"{self.directory / 'bin'}{os.pathsep}{os.environ['PATH']}",
            CONFIG_VARIABLE: str(self._config),
            spool.LOCAL_EVENTS_VARIABLE: "1",
        }
        self._process = launch(argv, environment, self._log)

    def kill(self) -> None:
        signal_group(self._worker.pid, signal.SIGKILL)
        self._worker.wait()

    def terminate(self) -> None:
        """Send the worker SIGTERM. Raises Failed unless it then exits in time, with code 0."""
        self._worker.terminate()
        late = f"It still runs {LEAVE_SECONDS:g} s after SIGTERM."
        self.until(self.ended, late, LEAVE_SECONDS)
        code = self._worker.wait()
        expect(code == 0, f"It ended with code {code} after SIGTERM.")

    def ended(self) -> bool:
        return self._worker.poll() is not None

    def must_live(self) -> None:
        if self.ended():
            raise Failed(f"It ended by itself, with code {self._worker.returncode}.")

    def files_with(self, text: str) -> list[str]:
        found = []
        for path in self.directory.rglob("*"):
            # The worker may remove a file while this loop reads it.
            with contextlib.suppress(OSError):
                if path.is_file() and text.encode() in path.read_bytes():
                    found.append(path.name)
        return found

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def _worker(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise Failed("It was never started.")
        return self._process

    # --- The runs that the worker executes -------------------------------------------------------

    def add(self, *lines: str, **fields: Any) -> FakeRun:
        """Add a queued run. Its prompt has these lines, which the stand-in for claude carries out as commands."""
        run = FakeRun(**{"mcp_url": self.api.mcp_url, **fields})
        noted = (f"note {self._programs(run)}", *lines)
        run.prompt = "\n".join(("Say hello.", *(f"standin: {line}" for line in noted)))
        return self.api.queue(run)

    def start_with(self, *lines: str, **fields: Any) -> FakeRun:
        """Add a queued run as `add` does, and start the worker."""
        run = self.add(*lines, **fields)
        self.start()
        return run

    def start_unless_unable(self, run: FakeRun, feature: str) -> None:
        """Start the worker for a run that needs this feature. Raises Skipped if the worker does not announce it."""
        ordinary = self.add()
        self.start()
        self.until_ended(ordinary)
        if feature not in self.api.announced:
            expect(run.status == "queued", f"It took a run without announcing `{feature}`.")
            raise Skipped(f"It does not announce the feature `{feature}`.")

    def begin(self, *lines: str, **fields: Any) -> FakeRun:
        """Do what `start_with` does, and wait until the worker has launched the run's program."""
        run = self.start_with(*lines, **fields)
        self.until(lambda: self.launched(run), "It did not launch the run's program.")
        return run

    def launched(self, run: FakeRun) -> int:
        return len(_numbers(self._programs(run)))

    def running(self, run: FakeRun) -> bool:
        return any(_is_stand_in(pid) for pid in _numbers(self._programs(run)))

    def _programs(self, run: FakeRun) -> Path:
        return self.directory / f"programs-{run.id}"

    # --- Waiting for the worker ------------------------------------------------------------------

    def pause(self, seconds: float) -> None:
        if self._called_off.wait(seconds):
            raise Failed("The check was called off.")

    def until(self, what: Callable[[], Any], otherwise: str, seconds: float | None = None) -> None:
        """Wait until `what()` is true. Raises Failed with the sentence `otherwise` if it takes too long."""
        deadline = time.monotonic() + (self._patience if seconds is None else seconds)
        while not what():
            if time.monotonic() >= deadline:
                code = None if self._process is None else self._process.poll()
                ended = "" if code is None else f" Its process has ended, with code {code}."
                raise Failed(otherwise + ended)
            self.pause(0.03)

    def until_ended(self, run: FakeRun, times: float = 1.0) -> dict[str, Any]:
        """Wait until the run has ended, and return the reported outcome. `times` multiplies how long this may take."""
        deadline = time.monotonic() + self._patience * times
        while run.status not in TERMINAL:
            self.must_live()
            if time.monotonic() >= deadline:
                raise Failed(f"A run was still {run.status} after {self._patience * times:g} s.")
            self.pause(0.03)
        return run.outcome or {}

    def must_end_once(self, run: FakeRun, times: float = 1.0) -> None:
        """Wait until the run has ended. Raise Failed unless it succeeded, with its program started once."""
        expect_status(self.until_ended(run, times), "succeeded")
        self.expect_launched_once(run)

    def expect_launched_once(self, run: FakeRun) -> None:
        launched = self.launched(run)
        expect(launched == 1, f"It launched the program {launched} times.")


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)


def expect_well_formed(lab: Lab) -> None:
    expect(not lab.api.malformed, "It sent what the API can't take.")


def expect_status(outcome: dict[str, Any], *statuses: str) -> None:
    status = outcome.get("status")
    expect(status in statuses, f"It reported {status!r} and not {' or '.join(statuses)}.")


def expect_handed_back(outcome: dict[str, Any]) -> None:
    expect_status(outcome, "failed")
    expect(outcome.get("faultClass") == "infra", "The run was not handed back as infra.")


def expect_few_polls(lab: Lab, did: str) -> None:
    """Watch the worker for QUIET_SECONDS. Raise Failed if it polls too often, without pauses, or if it exits."""
    before, began = lab.api.asked(), time.monotonic()
    lab.pause(QUIET_SECONDS)
    polls, took = lab.api.asked() - before, time.monotonic() - began
    expect(
        polls <= MOST_ATTEMPTS * took / QUIET_SECONDS, f"It {did} {polls} times in {took:.1f} s."
    )
    lab.must_live()


def _numbers(path: Path) -> Sequence[int]:
    try:
        return [int(line) for line in path.read_text().split()]
    except OSError:
        return []


def _is_stand_in(pid: int) -> bool:
    """Tell whether the process with this id is the stand-in for claude, and not a later process with the same id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    shown = subprocess.run(
        ["ps", "-o", "stat=,args=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return stand_in.COMMAND[-1] in shown and not shown.startswith("Z")


@dataclass(frozen=True)
class Verdict:
    """A check's result: `failure` says what went wrong, `skipped` why it does not apply; `log` ends the output."""

    check: Check
    failure: str | None
    log: str = ""
    skipped: str | None = None

    @property
    def mark(self) -> str:
        if self.skipped is not None:
            return "skip"
        return "pass" if self.failure is None else "FAIL"

    def __str__(self) -> str:
        said = self.skipped or self.failure or self.check.sentence
        lines = [f"{self.mark}  {self.check.name}: {said}"]
        if self.failure is not None:
            lines.append(f"      Wanted: {self.check.sentence}.")
            lines += [f"      | {line}" for line in self.log.splitlines()]
        return "\n".join(lines)


def checks() -> dict[str, Check]:
    """Return all checks by their names. Importing their modules registers them."""
    for module in ("life", "looks", "optional", "trouble"):
        import_module(f"{__package__}.{module}")
    return dict(sorted(CHECKS.items(), key=lambda item: item[1].run.__module__))


def judge(
    command: str,
    names: Sequence[str] = (),
    *,
    jobs: int = 1,
    patience: float = PATIENCE_SECONDS,
) -> Generator[Verdict, None, None]:
    """Run the checks, at most `jobs` at once, and yield each result. `command` starts the worker under test, as in a
    shell; `{config}` in it stands for its configuration file. `patience` is how many seconds a correct worker may take
    for what it does at once. Raises KeyError for an unknown name.
    """
    known = checks()
    chosen = [known[name] for name in names] if names else list(known.values())
    called_off = threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [
            pool.submit(_judge_one, command, check, patience, called_off) for check in chosen
        ]
        try:
            for future in as_completed(waiting):
                yield future.result()
        finally:
            called_off.set()
            for future in waiting:
                future.cancel()


def _judge_one(command: str, check: Check, patience: float, called_off: threading.Event) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="pipedai-conformance-") as directory:
        lab = Lab(command, Path(directory), patience, called_off)
        try:
            with lab:
                check.run(lab)
        except Failed as failed:
            sentences = [str(failed), *lab.api.malformed[:1]]
            log = lab.log().splitlines()[-LOG_LINES:]
            return Verdict(check, " The API refused a request: ".join(sentences), "\n".join(log))
        except Skipped as skipped:
            return Verdict(check, None, skipped=str(skipped))
        except OSError as error:
            return Verdict(check, f"The check itself could not be carried out: {error}.")
        return Verdict(check, None)


def conformance(options: argparse.Namespace) -> None:
    """Run the checks and print a line for each. Raises Exit if a check fails."""
    if options.list:
        for check in checks().values():
            print(f"{check.name}: {check.sentence}")
        return
    seen: Counter[str] = Counter()
    verdicts = judge(options.against, options.check, jobs=options.jobs, patience=options.patience)
    with _interrupted_by_sigterm(), contextlib.closing(verdicts):
        for verdict in verdicts:
            print(_as_json(verdict) if options.json else verdict, flush=True)
            seen[verdict.mark] += 1
    failed, passed = seen["FAIL"], seen["pass"]
    if failed:
        raise Exit(ERROR, f"{failed} of {passed + failed} checks failed.")
    if not options.json:
        left_out = f" {seen['skip']} were skipped." if seen["skip"] else ""
        print(f"All {passed} checks passed.{left_out}")


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt, so that the workers under test are ended before this command exits."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _as_json(verdict: Verdict) -> str:
    return json.dumps(
        {
            "check": verdict.check.name,
            "sentence": verdict.check.sentence,
            "passed": verdict.mark == "pass",
            "skipped": verdict.skipped,
            "failure": verdict.failure,
            "log": verdict.log,
        }
    )
