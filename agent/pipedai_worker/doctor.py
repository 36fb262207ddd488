"""Checks whether this machine can execute runs, and says for each failure what to do about it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipedai_worker import identity
from pipedai_worker.api import Api, ApiError, TokenRefused, clock_complaint
from pipedai_worker.disk import durable
from pipedai_worker.disk.journal import Journal
from pipedai_worker.disk.spool import harmless
from pipedai_worker.executors.base import allowed
from pipedai_worker.identity import API_KEY, CREDENTIALS, ConfigError, Paying, WorkerConfig

PROGRAM_TIMEOUT_SECONDS = 30
# An older version does not know the options that the worker gives it, and ends at once.
OLDEST_CLAUDE = (2, 1, 197)
# The API takes 5 problems, with messages of so many characters.
LONGEST_PROBLEM = 200
_CLAUDES_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9}) \(Claude Code\)")


@dataclass(frozen=True)
class Finding:
    name: str
    passed: bool
    detail: str
    hint: str = ""

    def __str__(self) -> str:
        # The detail may be a text of another program, or of whoever answers at the API's URL.
        line = f"{'pass' if self.passed else 'FAIL'}  {self.name}: {harmless(self.detail)}"
        return line if self.passed or not self.hint else f"{line}\n      {harmless(self.hint)}"


def check_registration(path: Path, connect: Callable[[WorkerConfig], Api]) -> Iterator[Finding]:
    """Check the configuration file, its mode, the state directory beside it, the API and the token."""
    try:
        config = WorkerConfig.load(path)
    except ConfigError as error:
        yield Finding("valid configuration", False, str(error), "Run pipedai-worker register.")
        return
    yield Finding("valid configuration", True, f"{path}, worker {config.worker_id}")
    open_to_others = identity.readable_by_others(path)
    yield Finding(
        "file permissions",
        not open_to_others,
        "others can read the token" if open_to_others else "only you can read the token",
        f"Run chmod 600 {path}.",
    )
    yield _check_state(path, config)
    yield _at_work(path, config)
    with contextlib.closing(connect(config)) as api:
        yield from _check_api(api, config.worker_id)


def _check_state(path: Path, config: WorkerConfig) -> Finding:
    state = identity.state_directory(path) / config.worker_id
    # If the state directory is missing, its parent is checked. The directory is not created here, because it would then
    # belong to the user who runs `doctor`, who may not be the user that the worker runs as.
    directory = state if state.is_dir() else path.parent
    try:
        durable.try_writing(directory)
    except OSError as error:
        hint = "Runs in hand and outcomes are kept there: make room, or let the worker write there."
        return Finding("state directory", False, f"{directory}: {error.strerror}", hint)
    return Finding("state directory", True, f"{directory} can be written")


def _at_work(path: Path, config: WorkerConfig) -> Finding:
    """Tell whether a process works with this registration. The check passes either way."""
    holder = Journal.holder(identity.state_directory(path) / config.worker_id)
    if holder is None:
        detail = "no process executes runs with this registration"
    elif holder.draining:
        detail = f"process {holder.pid} drains: it finishes its runs, takes no new ones, and ends"
    else:
        detail = f"process {holder.pid} executes runs with this registration"
    return Finding("at work", True, detail)


def _check_api(api: Api, worker_id: str) -> Iterator[Finding]:
    try:
        api.health()
    except ApiError as error:
        hint = (
            "Check the URL, the network, this machine's clock, and whether a --proxy or --ca-file is"
            " needed."
        )
        yield Finding("API reachable", False, str(error), hint)
        return
    yield Finding("API reachable", True, api.url)
    complaint = clock_complaint(api.clock_offset)
    hint = "Set it right, best by NTP: certificates and times depend on it."
    known = "agrees with the API's" if api.clock_offset is not None else "the API tells no time"
    yield Finding("clock", complaint is None, complaint or known, hint)
    try:
        is_own = api.whoami().get("id") == worker_id
    except TokenRefused as error:
        dead, lost = "Register again with a new wrk_ token.", "Let the proxy pass the header on."
        yield Finding("worker token", False, str(error), dead if error.arrived else lost)
        return
    except ApiError as error:
        yield Finding("worker token", False, str(error), "Try again later.")
        return
    detail = "accepted" if is_own else f"it is not the token of worker {worker_id}"
    yield Finding("worker token", is_own, detail, "Register again with a new wrk_ token.")


def check_program(argv: Sequence[str], name: str) -> Finding:
    found = shutil.which(argv[0])
    hint = f"Install {name}, or say where it is; the PATH is {os.environ.get('PATH', 'not set')}."
    return Finding(f"{name} on PATH", found is not None, found or f"no {argv[0]}", hint)


def check_claude(argv: Sequence[str], paying: Paying | None) -> Iterator[Finding]:
    """Check that claude is there, starts and can log in; the stand-in, for which `paying` is None, needs no login."""
    on_path = check_program(argv, "claude")
    yield on_path
    if on_path.passed:
        yield _check_version(argv, CREDENTIALS[paying.mode] if paying else ())
    if paying is None:
        return
    yield Finding("claude is paid for by", True, f"{paying.mode} ({paying.why})")
    yield _check_login(paying.mode)
    for complaint in paying.complaints():
        # `_check_login` has named a missing credential, so only unused ones are named here.
        if "is kept from claude" in complaint:
            yield Finding("credentials not used", True, complaint)


# With less room than this on a disk that runs need, they fail soon.
LEAST_FREE_MIB = 100
# With a clock that is off by more seconds than this, times are told wrongly.
MOST_SECONDS_OFF = 5


def problems(
    argv: Sequence[str] | None, auth_mode: str | None, directory: Path, ahead: float | None
) -> list[dict[str, str]]:
    """Return what will make runs fail on this machine, for the API to show. A message has no number that changes from
    poll to poll, because the API stores each new message. `argv` is claude, or None for another program, `auth_mode`
    None for the stand-in, and `ahead` by how many seconds the API's clock is ahead of ours.
    """
    found = []
    if argv is not None and shutil.which(argv[0]) is None:
        found.append(
            ("no_claude", f"There is no {argv[0]}: install claude, or name it by --claude.")
        )
    elif auth_mode is not None and not (login := _check_login(auth_mode)).passed:
        found.append(("not_signed_in", f"claude is not signed in ({login.detail}). {login.hint}"))
    for path in dict.fromkeys((directory, Path(tempfile.gettempdir()))):
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(path).free // 2**20
            if free < LEAST_FREE_MIB:
                found.append(("disk_full", f"The disk of {path} is almost full: make room."))
    if ahead is not None and abs(ahead) > MOST_SECONDS_OFF:
        direction = "behind" if ahead > 0 else "ahead of"
        said = f"The machine's clock is more than {MOST_SECONDS_OFF} s {direction} the service's"
        found.append(("clock_off", f"{said}: set it right, best by NTP."))
    return [{"code": code, "message": message[:LONGEST_PROBLEM]} for code, message in found[:5]]


def _check_version(argv: Sequence[str], credentials: Sequence[str]) -> Finding:
    hint = "Run it by hand with --version and see what it says."
    try:
        answer = subprocess.run(
            [*argv, "--version"],
            env=allowed(credentials),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROGRAM_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("claude executes", False, str(error), hint)
    said = (answer.stdout or answer.stderr).strip().partition("\n")[0][:200]
    version = _CLAUDES_VERSION.match(said)
    if version and tuple(map(int, version.groups())) < OLDEST_CLAUDE:
        oldest = ".".join(map(str, OLDEST_CLAUDE))
        detail = f"{said} is older than {oldest}, and every run would fail"
        return Finding("claude executes", False, detail, "Update claude.")
    return Finding("claude executes", answer.returncode == 0, said or "it says nothing", hint)


def _check_login(auth_mode: str) -> Finding:
    name = "authentication"
    for variable in CREDENTIALS[auth_mode]:
        if os.environ.get(variable):
            return Finding(name, True, f"{auth_mode}, by {variable}")
    if auth_mode == API_KEY:
        hint = f"Set {CREDENTIALS[auth_mode][0]} for the worker."
        return Finding(name, False, "api_key, but there is no key", hint)
    try:
        directory = Path(os.environ.get("CLAUDE_CONFIG_DIR") or "~/.claude").expanduser()
    except RuntimeError:
        return Finding(name, False, f"{auth_mode}, but no home directory", "Set HOME.")
    # A directory that this account may not enter has no login for it.
    with contextlib.suppress(OSError):
        if (directory / ".credentials.json").is_file():
            return Finding(name, True, f"{auth_mode}, by the login in {directory}")
    if sys.platform == "darwin":
        return Finding(name, True, f"{auth_mode}; the login, if any, is in the key chain")
    hint = f"Run claude and log in, or set {CREDENTIALS[auth_mode][0]} (claude setup-token)."
    return Finding(name, False, f"{auth_mode}, but no login in {directory}", hint)
