"""Carries out each command with its parsed options. Everything that goes wrong is raised as an `Exit`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import json
import logging
import os
import platform
import shlex
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipedai_worker import __version__, cli, identity, stand_in
from pipedai_worker import doctor as checks
from pipedai_worker.api import (
    Api,
    ApiError,
    GaveUp,
    NotOurApi,
    TokenRefused,
    Unavailable,
    until_answered,
)
from pipedai_worker.cli import TOKEN_VARIABLE, Exit, path
from pipedai_worker.disk import durable, spool
from pipedai_worker.disk.journal import EVENTS, HELD, KEPT, SENT, AlreadyRunning, Holder, Journal
from pipedai_worker.disk.spool import from_file, shown
from pipedai_worker.executors.base import CommandExecutor, Executor
from pipedai_worker.executors.claude import Account, ClaudeExecutor
from pipedai_worker.identity import AUTH_MODES, CLAUDE_MAX, ConfigError, Paying, WorkerConfig
from pipedai_worker.running.loop import FINISH_SIGNAL, Fatal, Loop, Settings

log = logging.getLogger(__name__)

# With --offline the stand-in needs no MCP server, as a person who tries a worker out may name one that does not exist.
STAND_IN = [*stand_in.COMMAND, "--offline"]
_STARTS = f"pipedai-worker {__version__} starts"


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise Exit(cli.BAD_CONFIG, str(error)) from None
    except NotOurApi as error:
        raise Exit(cli.NOT_OUR_API, f"{error} Check the API's URL.") from None
    except ApiError as error:
        raise Exit(cli.ERROR, str(error)) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Exit(cli.ERROR, f"The worker's files can't be used: {error}.") from None


@_one_sentence()
def register(options: argparse.Namespace) -> None:
    """Carry out `register`: exchange the token, write the configuration, and say what to do next."""
    config = _register(options)
    path = options.config.absolute()
    same = ["--config", str(path)]
    if options.ca_file:
        same += ["--ca-file", str(options.ca_file.absolute())]
    if options.proxy:
        # The proxy's URL is not printed, because it may hold a password.
        same += ["--proxy", "URL"]
    print(
        f"Registered as worker {config.worker_id} at {config.api_url}.",
        f"Its token is in {path}, which only you can read.",
        f"Check this machine:  pipedai-worker doctor {shlex.join(same)}",
        f"Start the worker:    pipedai-worker run {shlex.join(same)}",
        sep="\n",
    )


@_one_sentence()
def run(options: argparse.Namespace) -> None:
    log.info(_STARTS)
    _work(options, WorkerConfig.load(options.config))


@_one_sentence()
def register_and_run(options: argparse.Namespace) -> None:
    """Carry out `manage.py runworker`: register if there is no configuration yet, then work."""
    log.info(_STARTS)
    if not options.config.exists():
        config = _register(options)
        log.info("registered as worker %s; its token is in %s", config.worker_id, options.config)
    _work(options, WorkerConfig.load(options.config))


@_one_sentence()
def doctor(options: argparse.Namespace) -> None:
    """Carry out `doctor`: print one line for each check. Raises Exit if one failed."""
    if options.command is not None:
        of_program = iter([checks.check_program(_program(options.command), "the program")])
    else:
        known = None
        with contextlib.suppress(ConfigError):
            known = WorkerConfig.load(options.config).auth_mode
        paying = None if options.stand_in else Paying(options.auth_mode, known)
        of_program = checks.check_claude(_claude(options), paying)
    of_registration = checks.check_registration(
        options.config, lambda config: _api(options, options.api_url or config.api_url, config)
    )
    failed = 0
    for finding in chain(of_registration, of_program):
        print(finding, flush=True)
        failed += not finding.passed
    if failed:
        raise Exit(cli.ERROR, f"{failed} of the checks failed.")


@_one_sentence()
def logs(options: argparse.Namespace) -> None:
    """Carry out `logs`: print a run's events, by default until it ends, from the file that the worker keeps until it
    has sent them. If there are none, the log says so. Raises Exit if this machine has no file of the run.
    """
    worker_id = WorkerConfig.load(options.config).worker_id
    state = identity.state_directory(options.config) / worker_id

    def is_over() -> bool:
        return not options.follow or not (state / HELD / f"{options.run}.json").exists()

    try:
        paths = [state / EVENTS / f"{options.run}{suffix}" for suffix in (KEPT, SENT)]
        path = next(filter(Path.exists, paths), paths[0])
        told = False
        for event in from_file(path, options.after, is_over):
            told = True
            print(json.dumps(event) if options.json else shown(event), flush=True)
    except FileNotFoundError:
        raise Exit(
            cli.ERROR,
            f"This machine has no events of run {options.run}. `pipedai run logs {options.run}` asks the service for"
            " them, or says why there are none.",
        ) from None
    if not told:
        log.info("The run has no events after number %d on this machine.", options.after)


def _register(options: argparse.Namespace) -> WorkerConfig:
    token = (options.token or os.environ.get(TOKEN_VARIABLE, "")).strip()
    if not token:
        raise Exit(cli.BAD_CONFIG, f"Give the registration token in {TOKEN_VARIABLE} or --token.")
    if not token.isascii() or not token.isprintable():
        raise Exit(cli.BAD_CONFIG, "The registration token is damaged.")
    if not options.api_url:
        raise Exit(cli.BAD_CONFIG, "Give the API's URL in --api-url.")
    mode = options.auth_mode or CLAUDE_MAX
    told = {
        "token": token,
        "hostname": (options.hostname or socket.gethostname())[:NAME_LENGTH],
        "os": f"{platform.system()} {platform.release()}"[:NAME_LENGTH],
        "version": __version__,
        "authMode": mode,
        "maxConcurrency": options.max_concurrency or 1,
        "problems": _problems(options, mode, options.config.parent, None),
        **({"label": options.label[:NAME_LENGTH]} if options.label else {}),
    }
    try:
        with contextlib.closing(_api(options, options.api_url)) as api:
            return exchange_token(api, told, options.config)
    except TokenRefused as refused:
        raise Exit(
            cli.DEAD_TOKEN, f"The registration token was refused ({refused}): mint a new one."
        ) from None


def _work(options: argparse.Namespace, config: WorkerConfig) -> None:
    if identity.readable_by_others(options.config):
        log.warning("%s holds a token and others may read it: chmod 600 it", options.config)
    # As long as the journal names this process, another one may tell it to drain. While the loop does not run, that
    # signal would end the process, so it is blocked. The loop unblocks it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {FINISH_SIGNAL})
    api = _api(options, options.api_url or config.api_url, config)
    state = identity.state_directory(options.config) / config.worker_id
    try:
        journal = journal_after_all_others(state) if options.drain else Journal(state)
    except AlreadyRunning:
        raise Exit(
            cli.ALREADY_RUNNING, f"Another process already works with {options.config}."
        ) from None
    except OSError as error:
        raise Exit(cli.ERROR, f"{state} can't be used: {error.strerror}.") from None
    remember = partial(identity.remember_auth_mode, options.config)
    paying = Paying(options.auth_mode, config.auth_mode, remember)
    # A program that is not claude has no account.
    is_claude = options.command is None and not options.stand_in
    account = Account(lambda: paying.mode, config.environment_id, api.environment_id)
    settings = Settings(
        max_concurrency=options.max_concurrency or config.max_concurrency,
        drain_seconds=options.drain_seconds,
        once=options.once,
        drain=options.drain,
        pass_env=tuple(options.pass_env),
        events=_events(config) if spool.local_events_wanted() else None,
        on_auth_mode=paying.learn,
        account_id=account.word if is_claude else lambda: None,
        problems=lambda ahead: _problems(options, paying.mode, state, ahead),
    )
    share_one_arena()
    try:
        Loop(api, journal, _executor(options, paying), settings).run()
    except Fatal as fatal:
        if fatal.token_is_dead:
            raise Exit(
                cli.DEAD_TOKEN,
                f"The API refuses this worker's token ({fatal}): it was revoked or replaced, or the"
                " worker was deregistered. Register again with a new wrk_ token.",
            ) from None
        raise fatal.cause from None


def _problems(
    options: argparse.Namespace, auth_mode: str, directory: Path, ahead: float | None
) -> list[dict[str, str]]:
    """Return what is wrong with this machine. `register` has no options that name the program, so it checks claude."""
    given = {"command": None, "stand_in": False, "claude": "claude", **vars(options)}
    argv = None if given["command"] else _claude(argparse.Namespace(**given))
    mode = None if argv is None or given["stand_in"] else auth_mode
    return checks.problems(argv, mode, directory, ahead)


def _events(config: WorkerConfig) -> Path:
    try:
        return spool.LOCAL_EVENTS_ROOT.expanduser() / config.worker_id
    except RuntimeError:
        raise Exit(
            cli.BAD_CONFIG, "There is no home directory for live run events: set HOME."
        ) from None


def _executor(options: argparse.Namespace, paying: Paying) -> Executor:
    if options.command is not None:
        return CommandExecutor(_program(options.command))
    argv = _claude(options)
    if shutil.which(argv[0]) is None:
        log.warning("there is no %s on PATH: runs will fail until there is", argv[0])
    if not options.stand_in:
        log.info("claude is paid for by %s (%s)", paying.mode, paying.why)
        for complaint in paying.complaints():
            log.warning("%s", complaint)
    return ClaudeExecutor(
        argv,
        auth_mode=lambda: paying.mode,
        silence_seconds=options.silence_seconds,
        needs_server=not options.stand_in,
        own=identity.own_files(options.config),
    )


def _claude(options: argparse.Namespace) -> list[str]:
    return STAND_IN if options.stand_in else [_absolute(options.claude)]


def _program(command: str) -> list[str]:
    program, *arguments = shlex.split(command)
    return [_absolute(program), *arguments]


def _absolute(program: str) -> str:
    """Return the absolute path of a program. A name without a slash stays, because PATH leads to it. Raises Exit."""
    if "/" not in program:
        return program
    try:
        return str(path(program).absolute())
    except argparse.ArgumentTypeError as error:
        raise Exit(cli.BAD_CONFIG, f"The program can't be found: {error}.") from None


def _api(options: argparse.Namespace, url: str, config: WorkerConfig | None = None) -> Api:
    try:
        api = Api(
            url,
            token=config.worker_token if config else "",
            worker_id=config.worker_id if config else "",
            proxy=options.proxy,
            ca_file=options.ca_file,
        )
    except ValueError as error:
        raise Exit(cli.BAD_CONFIG, str(error)) from None
    except OSError as error:
        raise Exit(cli.BAD_CONFIG, f"--ca-file can't be used: {error}.") from None
    on_loopback = urlsplit(api.url).hostname in {"localhost", "127.0.0.1", "::1"}
    if api.url.startswith("http://") and not on_loopback:
        log.warning("%s is not https: the token travels in plain text", api.url)
    return api


LOOK_SECONDS = 0.2


def journal_after_all_others(directory: Path) -> Journal:
    """Let the process that uses the journal finish its runs, then open it. Raises AlreadyRunning if it is not found."""
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
                os.kill(holder.pid, FINISH_SIGNAL)
            asked = holder
        time.sleep(LOOK_SECONDS)


# The number of the option M_ARENA_MAX of the C function mallopt, from glibc's malloc.h.
M_ARENA_MAX = -8


def share_one_arena() -> None:
    """Make all threads share one arena of glibc, as an arena for each grew by 13 MiB in a day. Call this first."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


NAME_LENGTH = 255
# If the API does not answer for so long, its URL may be wrong, and a person has to look.
PATIENCE_SECONDS = 60.0


def exchange_token(api: Api, told: dict[str, Any], path: Path) -> WorkerConfig:
    """Register with the request `told`, and write the configuration. It tries again for a minute, but only while the
    token is certain to be unused. Raises ConfigError if the file can't be written, Exit, and the API's errors.
    """
    _check_writable(path)
    gives_up_at = time.monotonic() + PATIENCE_SECONDS

    def wait(seconds: float) -> bool:
        if time.monotonic() + seconds > gives_up_at:
            return True
        time.sleep(seconds)
        return False

    def attempt() -> dict[str, object]:
        try:
            return api.register(told)
        except Unavailable as error:
            if error.sent and error.retry_after is None:
                raise Exit(
                    cli.ERROR,
                    f"{error}. The token may be used up: if it is refused next, mint a new one.",
                ) from None
            raise

    try:
        answer = until_answered(attempt, wait, again=Unavailable)
    except GaveUp as gave_up:
        sentence = f"{gave_up}. The token was not used: try again later."
        raise Exit(cli.ERROR, sentence) from None
    config = WorkerConfig(
        worker_id=str(answer["workerId"]),
        worker_token=str(answer["workerToken"]),
        api_url=api.url,
        workspace_id=str(answer["workspaceId"]),
        environment_id=str(answer["environmentId"]) if answer.get("environmentId") else None,
        auth_mode=mode if (mode := answer.get("authMode")) in AUTH_MODES else told["authMode"],
    )
    try:
        config.save(path)
    except OSError as error:
        raise ConfigError(
            f"This machine is registered as worker {config.worker_id}, but {path} can't be written:"
            f" {error.strerror}. The token is used up: mint a new one."
        ) from None
    if answer.get("approved") is False:
        log.warning(
            "worker %s waits for approval by an admin: until then it gets no run whose trigger has MCP headers",
            config.worker_id,
        )
    return config


def _check_writable(path: Path) -> None:
    """Check that `path` can be written before the token is sent, because the token can be used only once."""
    try:
        durable.try_writing(durable.private_directory(path.parent))
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}.") from None
