"""bin/run: starts the whole service on this machine, shows one run, and stops everything at the end."""

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection
from gunicorn.util import parse_address

from bin import demo_tools
from bin.demo import DemoFailed, show, wait_until_ready
from bin.ending import Afterwards, die_with_parent
from bin.services import ServiceLogs, Services, is_alarming, procfile
from pipedai import env
from pipedai.checks import refuse_unfit_settings
from pipedai.embedded.cluster import EmbeddedPostgresError, Layout, if_free
from pipedai.embedded.server import EmbeddedPostgres
from pipedai.server import gunicorn_conf
from pipedai.version import VERSION

# A server that listens on all addresses of the machine (left) can be reached at the local address (right).
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104

_UP = """
PipedAI {version} is up. Ctrl-C stops it and keeps the data.

  Console        {site}/console/
  API            {site}/api/v1
  Documentation  {site}/api/docs
  Staff admin    {site}/admin/
  Logs           {logs}/*.log
  Commands       {manage} help
  Command line   docs/cli.md installs it from {site}
"""
_LOG_INS = """
  Sign in to the console as  {email}  {password}
  Log in as staff as         {staffEmail}  {staffPassword}

Log in, list the runs with the demo's API key, and fire its trigger once more:

  curl -i {url}/auth/login -H 'Content-Type: application/json' \\
    -d '{{"email": "{email}", "password": "{password}"}}'
  curl {url}/environments/{environmentId}/runs \\
    -H 'Authorization: Bearer {apiKey}'
  curl -X POST {url}/triggers/{triggerId}/run \\
    -H 'Authorization: Bearer {apiKey}'
"""
_NO_LOG_INS = """
Staff log in after `{manage} create_staff EMAIL --generate`."""


# `bin/run --help` explains each option.
OPTIONS = ("--no-demo", "--claude", "--verbose")


class CannotStart(Exception):  # noqa: N818
    """bin/run can't start. The exception's message is one sentence that tells the developer why."""


def main() -> int:
    # The script bin/run answers --help itself, because this module runs only once all packages are installed.
    parser = argparse.ArgumentParser("bin/run", add_help=False)
    for option in OPTIONS:
        parser.add_argument(option, action="store_true")
    options = parser.parse_args()
    try:
        return Stack(demo=not options.no_demo, claude=options.claude, verbose=options.verbose).run()
    except (CannotStart, EmbeddedPostgresError, ImproperlyConfigured) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


class Stack:
    """The processes that one call of bin/run starts: database, web process, scheduler and the demo's worker."""

    def __init__(self, *, demo: bool, claude: bool, verbose: bool) -> None:
        if settings.PRODUCTION and demo:
            raise CannotStart("Production has no demo: use --no-demo, or unset PIPEDAI_ENV.")
        if demo and claude and shutil.which("claude") is None:
            raise CannotStart("There is no claude on the PATH: install it, or leave out --claude.")
        refuse_unfit_settings()
        self._demo = demo
        self._claude = claude
        self._verbose = verbose
        self._log_dir = settings.DATA_DIR / "log"
        self._url = _free_address()
        self._tools_port = _free_port(settings.PORT + 1) if demo else 0
        self._processes = procfile(settings.BASE_DIR / "Procfile")
        self._environment = {
            **os.environ,
            "PIPEDAI_ENV": settings.PIPEDAI_ENV,
            "PORT": str(settings.PORT),
            "PIPEDAI_DATA_DIR": str(settings.DATA_DIR),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONUNBUFFERED": "1",
        }

    def run(self) -> int:
        """Start all processes, show a run of the demo, and wait for a signal or a process's end."""
        os.chdir(settings.BASE_DIR)
        Layout(settings.DATA_DIR).prepare_data_dir()
        with if_free(settings.DATA_DIR / "run.lock") as alone:
            if alone is None:
                raise CannotStart(
                    f"Another bin/run is at work in {settings.DATA_DIR}:"
                    " set PIPEDAI_DATA_DIR and PORT to have one beside it."
                )
            stop_database = self._start_database()
            try:
                _say("Migrating the database…")
                self._finish(self._processes["release"])
                if self._demo:
                    _say("Seeding the demo…")
                    url = demo_tools.url_at(self._tools_port)
                    self._finish(f"exec python manage.py seed_demo --mcp-url {url}")
                return self._serve()
            finally:
                if stop_database is not None:
                    _say("Stopping PostgreSQL…")
                    stop_database.now()

    def _start_database(self) -> Afterwards | None:
        """Return the command that stops the embedded database, or None if it ran before. May raise CannotStart."""
        if settings.DATABASES["default"]["ENGINE"] != "pipedai.embedded":
            try:
                connection.ensure_connection()
            except OperationalError as error:
                raise CannotStart(f"DATABASE_URL names no database that answers: {error}") from None
            connection.close()
            return None
        server = EmbeddedPostgres(settings.DATA_DIR)
        if server.status().running:
            return None
        _say(f"Starting PostgreSQL in {settings.DATA_DIR}…")
        stop = Afterwards("exec python manage.py pg stop", self._environment)
        server.ensure_running()
        return stop

    def _finish(self, command: str) -> None:
        """Run a command and print its warnings. Raises CannotStart with the whole output if it fails."""
        done = subprocess.run(
            ["sh", "-c", command],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        if done.returncode:
            raise CannotStart(f"{done.stdout}This failed: {command}")
        for line in done.stdout.splitlines():
            if self._verbose or is_alarming(line):
                _say(line)

    def _serve(self) -> int:
        _say(
            f"Starting the web process{', the scheduler and a worker' if self._demo else ' and the scheduler'}…"
        )
        services = Services(
            self._environment, logs=ServiceLogs(self._log_dir), quiet=not self._verbose
        )
        services.add("web", self._processes["web"])
        services.add("scheduler", self._processes["scheduler"])
        made = settings.DATA_DIR / "demo.json"
        seeded = json.loads(made.read_text()) if self._demo else None
        if seeded is not None:
            services.add("tools", f"exec python -m bin.demo_tools {self._tools_port}")
            services.add("worker", self._worker())
        guide = threading.Thread(target=self._guide, args=[services.say, seeded], daemon=True)
        return services.run(when_started=guide.start)

    def _worker(self) -> str:
        command = ["python", "manage.py", "runworker", "--api-url", self._url]
        command += ["--config", str(settings.DATA_DIR / "demo-worker.json")]
        if not self._claude:
            command.append("--stand-in")
        return f"exec {shlex.join(command)}"

    def _guide(self, say: Callable[[str], None], seeded: dict[str, str] | None) -> None:
        """Wait until the service answers, show a run of the demo, and print what a newcomer can try next."""
        try:
            wait_until_ready(self._url)
            if seeded is not None:
                wait_until_ready(demo_tools.url_at(self._tools_port), path="")
                show(self._url, seeded, say)
        except DemoFailed as failure:
            say(str(failure))
            return
        site = settings.PUBLIC_URL
        said = _UP.format(version=VERSION, site=site, logs=self._log_dir, manage=_manage())
        if seeded is None:
            said += _NO_LOG_INS.format(manage=_manage())
        else:
            said += _LOG_INS.format(url=f"{site}/api/v1", **seeded)
        # All lines are printed by one call, so that no warning of a service comes between them.
        say(said)


def _manage() -> str:
    """Return how to call manage.py for this service. DATABASE_URL is left out, because it contains a password."""
    ours = {
        "PIPEDAI_ENV": (settings.PIPEDAI_ENV, "development"),
        "PIPEDAI_DATA_DIR": (str(settings.DATA_DIR), str(env.default_data_dir())),
        "PORT": (str(settings.PORT), "8000"),
    }
    variables = [
        f"{name}={shlex.quote(value)}"
        for name, (value, default) in ours.items()
        if value != default
    ]
    return " ".join([*variables, ".venv/bin/python manage.py"])


def _free_address() -> str:
    """Return the URL of the web process on this machine. Raises CannotStart if it can't listen there."""
    urls = []
    for bind in gunicorn_conf.bind:
        address = parse_address(bind)  # type: ignore[no-untyped-call]
        if isinstance(address, tuple):
            if problem := gunicorn_conf.bind_problem(address):
                raise CannotStart(problem)
            host, port = address
            urls.append(f"http://{_ANY_ADDRESS.get(host, host)}:{port}")
    return urls[0] if urls else settings.PUBLIC_URL


def _free_port(preferred: int) -> int:
    for port in (preferred, 0):
        try:
            with socket.create_server(("127.0.0.1", port)) as found:
                number: int = found.getsockname()[1]
                return number
        except (OSError, OverflowError):
            continue
    raise CannotStart("No port of the loopback interface is free.")


def _say(text: str) -> None:
    print(text, flush=True)
