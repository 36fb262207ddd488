"""Carries out each command with its parsed options. Everything that goes wrong is raised as an `Exit`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

from pipedai_worker import __version__, stand_in
from pipedai_worker.api.answers import ApiError, NotOurApi, TokenRefused
from pipedai_worker.api.client import Api
from pipedai_worker.commands import arguments
from pipedai_worker.commands import doctor as checks
from pipedai_worker.commands.arguments import TOKEN_VARIABLE, Exit, path
from pipedai_worker.disk.journal import AlreadyRunning, Holder, Journal
from pipedai_worker.events import local
from pipedai_worker.events.following import events_of, shown, wants_colour
from pipedai_worker.executors.base import Executor
from pipedai_worker.executors.claude import ClaudeExecutor
from pipedai_worker.executors.command import CommandExecutor
from pipedai_worker.identity import config as configuration
from pipedai_worker.identity import registration
from pipedai_worker.identity.account import Account
from pipedai_worker.identity.config import ConfigError, WorkerConfig
from pipedai_worker.identity.paying import CLAUDE_MAX, Paying
from pipedai_worker.logs import get_logger
from pipedai_worker.polling.loop import Fatal, Loop, Settings

log = get_logger(__name__)

# With --offline the stand-in needs no MCP server, as a person who tries a worker out may name one that does not exist.
STAND_IN = [*stand_in.COMMAND, "--offline"]
_STARTS = f"pipedai-worker {__version__} starts"


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise Exit(arguments.BAD_CONFIG, str(error)) from None
    except NotOurApi as error:
        raise Exit(arguments.NOT_OUR_API, f"{error} Check the API's URL.") from None
    except ApiError as error:
        raise Exit(arguments.ERROR, str(error)) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Exit(arguments.ERROR, f"The worker's files can't be used: {error}.") from None


@_one_sentence()
def register(options: argparse.Namespace) -> None:
    """Carry out `register`: exchange the token, write the configuration, and say what to do next."""
    config = _register(options)
    path = options.config.absolute()
    same = ["--config", str(path)]
    if options.ca_file:
        same += ["--ca-file", str(options.ca_file.absolute())]
    if options.proxy:
        # The URL itself may hold a password.
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
    _run(options, WorkerConfig.load(options.config))


@_one_sentence()
def register_and_run(options: argparse.Namespace) -> None:
    """Carry out `manage.py runworker`: register if there is no configuration yet, then work."""
    log.info(_STARTS)
    if not options.config.exists():
        config = _register(options)
        log.info("registered as worker %s; its token is in %s", config.worker_id, options.config)
    _run(options, WorkerConfig.load(options.config))


@_one_sentence()
def doctor(options: argparse.Namespace) -> None:
    """Carry out `doctor`: print one line for each check. Raises Exit if one failed."""
    if options.command is not None:
        of_program = iter([checks.check_program(_program(options.command), "the program")])
    else:
        paying = None if options.stand_in else _known_paying(options)
        of_program = checks.check_claude(_claude(options), paying)
    of_registration = checks.check_registration(
        options.config, lambda config: _api(options, options.api_url or config.api_url, config)
    )
    failed = 0
    for finding in chain(of_registration, of_program):
        print(finding, flush=True)
        failed += not finding.passed
    if failed:
        raise Exit(arguments.ERROR, f"{failed} of the checks failed.")


@_one_sentence()
def logs(options: argparse.Namespace) -> None:
    """Carry out `logs`: print a run's events, by default until it ends."""
    colour = wants_colour(sys.stdout)
    for event in events_of(options):
        print(json.dumps(event) if options.json else shown(event, colour=colour), flush=True)


def _register(options: argparse.Namespace) -> WorkerConfig:
    token = options.token or os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise Exit(
            arguments.BAD_CONFIG, f"Give the registration token in {TOKEN_VARIABLE} or --token."
        )
    if not token.isascii() or not token.isprintable():
        raise Exit(arguments.BAD_CONFIG, "The registration token is damaged.")
    if not options.api_url:
        raise Exit(arguments.BAD_CONFIG, "Give the API's URL in --api-url.")
    wanted = registration.Registration(
        token=token.strip(),
        hostname=options.hostname,
        label=options.label,
        auth_mode=options.auth_mode or CLAUDE_MAX,
        max_concurrency=options.max_concurrency or 1,
    )
    try:
        with contextlib.closing(_api(options, options.api_url)) as api:
            return registration.register(api, wanted, options.config)
    except TokenRefused as refused:
        raise Exit(
            arguments.DEAD_TOKEN, f"The registration token was refused ({refused}): mint a new one."
        ) from None
    except registration.NotRegistered as error:
        raise Exit(arguments.ERROR, str(error)) from None


def _run(options: argparse.Namespace, config: WorkerConfig) -> None:
    if configuration.readable_by_others(options.config):
        log.warning("%s holds a token and others may read it: chmod 600 it", options.config)
    api = _api(options, options.api_url or config.api_url, config)
    state = configuration.state_directory(options.config) / config.worker_id
    try:
        journal = journal_after_all_others(state) if options.drain else Journal(state)
    except AlreadyRunning:
        raise Exit(
            arguments.ALREADY_RUNNING, f"Another process already works with {options.config}."
        ) from None
    except OSError as error:
        raise Exit(arguments.ERROR, f"{state} can't be used: {error.strerror}.") from None
    paying = Paying(
        options.auth_mode, config.auth_mode, partial(_remember_auth_mode, options.config)
    )
    settings = Settings(
        max_concurrency=options.max_concurrency or config.max_concurrency,
        drain_seconds=options.drain_seconds,
        once=options.once,
        drain=options.drain,
        pass_env=tuple(options.pass_env),
        events=_events(config) if local.wanted() else None,
        on_auth_mode=paying.learn,
        account_id=_account_id(options, config, paying, api),
    )
    share_one_arena()
    try:
        Loop(api, journal, _executor(options, paying), settings).run()
    except Fatal as fatal:
        if fatal.token_is_dead:
            raise Exit(
                arguments.DEAD_TOKEN,
                f"The API refuses this worker's token ({fatal}): it was revoked or replaced, or the"
                " worker was deregistered. Register again with a new wrk_ token.",
            ) from None
        raise fatal.cause from None


def _account_id(
    options: argparse.Namespace, config: WorkerConfig, paying: Paying, api: Api
) -> Callable[[], str | None]:
    """Return a function that returns the word for claude's account. A program that is not claude has none."""
    if options.command is not None or options.stand_in:
        return lambda: None
    return Account(lambda: paying.mode, config.environment_id, api.environment_id).word


def _events(config: WorkerConfig) -> Path:
    try:
        return local.directory(config.worker_id)
    except RuntimeError:
        raise Exit(
            arguments.BAD_CONFIG, "There is no home directory for live run events: set HOME."
        ) from None


def _remember_auth_mode(path: Path, auth_mode: str) -> None:
    try:
        configuration.remember_auth_mode(path, auth_mode)
    except (OSError, ValueError) as error:
        log.warning("%s can't be written (%s): authMode is not kept", path, type(error).__name__)


def _known_paying(options: argparse.Namespace) -> Paying:
    try:
        known = WorkerConfig.load(options.config).auth_mode
    except ConfigError:
        known = None
    return Paying(options.auth_mode, known)


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
        offline=options.stand_in,
        own=configuration.own_files(options.config),
    )


def _claude(options: argparse.Namespace) -> list[str]:
    return STAND_IN if options.stand_in else [_absolute(options.claude)]


def _program(command: str) -> list[str]:
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise Exit(arguments.BAD_CONFIG, f"--command can't be read: {error}.") from None
    if not argv:
        raise Exit(arguments.BAD_CONFIG, "--command names no program.")
    return [_absolute(argv[0]), *argv[1:]]


def _absolute(program: str) -> str:
    """Return the absolute path of a program. A name without a slash stays, because PATH leads to it. Raises Exit."""
    if "/" not in program:
        return program
    try:
        return str(path(program).absolute())
    except argparse.ArgumentTypeError as error:
        raise Exit(arguments.BAD_CONFIG, f"The program can't be found: {error}.") from None


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
        raise Exit(arguments.BAD_CONFIG, str(error)) from None
    except OSError as error:
        raise Exit(arguments.BAD_CONFIG, f"--ca-file can't be used: {error}.") from None
    on_loopback = urlsplit(api.url).hostname in {"localhost", "127.0.0.1", "::1"}
    if api.url.startswith("http://") and not on_loopback:
        log.warning("%s is not https: the token travels in plain text", api.url)
    return api


LOOK_SECONDS = 0.2


def journal_after_all_others(directory: Path) -> Journal:
    """Open the journal after the process that has it has ended. Raises AlreadyRunning if it can't be found."""
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


# The number of the option M_ARENA_MAX of the C function mallopt, from glibc's malloc.h.
M_ARENA_MAX = -8


def share_one_arena() -> None:
    """Make all threads take memory from one arena of glibc; call it first. Own ones grew by 13 MiB in a day."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
