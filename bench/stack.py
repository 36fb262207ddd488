"""Starts what a benchmark runs against: a database that keeps what it commits, and the web server."""

import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from bench.failure import BenchFailed
from bench.http_client import HOST, Connection
from bench.usage import children_rss, cpu_seconds
from bin.ending import Afterwards, die_with_parent
from pipedai import env
from pipedai.embedded import passwords
from pipedai.embedded.layout import Layout
from pipedai.embedded.server import EmbeddedPostgres

_START_SECONDS = 60.0
_STOP_SECONDS = 40.0
# The suite has those before them.
_FIRST_PORT, _PORTS = 20_000, 10_000
_COMPLAINTS = 20
_SAID = 3000  # characters
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}

# What the caller's environment or .env file may say otherwise. Production's settings would throttle
# the registration of hundreds of workers from one address; nothing else on these paths differs.
_SETTINGS = {
    "PIPEDAI_ENV": "development",
    "DATABASE_URL": "",
    "DATABASE_LISTEN_URL": "",
    "PIPEDAI_PG_FAST_UNSAFE": "",
    "THROTTLES_ENABLED": "false",
    "TRUSTED_PROXIES": "",
    "ALLOWED_HOSTS": "",
    "DEBUG": "false",
    "LOG_FORMAT": "json",
    "LOG_LEVEL": "INFO",
}


class Database:
    """An embedded PostgreSQL of the benchmark's own, with an empty database, migrated by a checkout's code.

    What runs on the database is that checkout's code, too.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str], checkout: Path) -> None:
        self.directory = directory
        self.environment = environment
        self.checkout = checkout
        self._server = EmbeddedPostgres(directory)

    def start(self) -> None:
        """Make, start and migrate it. Raises BenchFailed if it would not survive a power cut."""
        self.python("manage.py", "pg", "start")
        self.python("manage.py", "migrate", "--no-input")
        found = {name: self.one(f"SHOW {name}")[name] for name in _DURABLE}
        if found != _DURABLE:
            raise BenchFailed(f"PostgreSQL does not keep what it commits: {found}.")

    @property
    def interpreter(self) -> str:
        """Another checkout's own Python, if it has one; else the one that runs the benchmark."""
        own = self.checkout / ".venv" / "bin" / "python"
        return str(own) if self.checkout != env.BASE_DIR and own.exists() else sys.executable

    @property
    def pid(self) -> int:
        """PostgreSQL's main process. Raises BenchFailed if it is gone."""
        pid = self.running_pid
        if pid is None:
            raise BenchFailed("PostgreSQL has stopped.")
        return pid

    @property
    def running_pid(self) -> int | None:
        """The same, or None if it is gone."""
        return self._server.status().pid

    @property
    def client_environment(self) -> dict[str, str]:
        """What PostgreSQL's programs find the database by."""
        return self._server.environment()

    def python(self, *arguments: str) -> str:
        """What a Python program printed, which found the database by its environment. Raises BenchFailed with it
        unless the program succeeded."""
        done = subprocess.run(
            [self.interpreter, *arguments],
            cwd=self.checkout,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        if done.returncode:
            raise BenchFailed(f"{' '.join(arguments[:3])} failed:\n{done.stdout[-_SAID:]}")
        return done.stdout

    def one(self, statement: str) -> dict[str, Any]:
        """The first row of a query."""
        with self.session() as connection:
            row = connection.execute(statement).fetchone()
        assert row is not None
        return row

    def all(self, statement: str) -> list[dict[str, Any]]:
        """All rows of a query."""
        with self.session() as connection:
            return connection.execute(statement).fetchall()

    def execute(self, statements: str) -> None:
        """Run statements, as the application."""
        with self.session() as connection:
            connection.execute(statements)

    def make_database(self, name: str, *extensions: str) -> dict[str, Any]:
        """Another database of the application's on the same server; how to connect to it."""
        with self.session(passwords.SUPERUSER) as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER {passwords.APPLICATION}")
        params = self._server.connection_params(name, role=passwords.SUPERUSER)
        with psycopg.connect(**params, autocommit=True) as connection_to_it:
            for extension in extensions:
                connection_to_it.execute(f"CREATE EXTENSION {extension}")
        return self._server.connection_params(name, role=passwords.APPLICATION)

    def explain_plans(self) -> None:
        """Let sessions that begin from now on ask for the plans of their statements, as notices in JSON."""
        role = passwords.APPLICATION
        said = {
            "log_analyze": "on",
            "log_timing": "off",
            "log_format": "json",
            "log_level": "notice",
        }
        with self.session(passwords.SUPERUSER) as connection:
            connection.execute(f"ALTER ROLE {role} SET session_preload_libraries = 'auto_explain'")
            for name, value in said.items():
                connection.execute(f"ALTER ROLE {role} SET auto_explain.{name} = '{value}'")
            # When to say it is the session's own to choose; by default it is never.
            connection.execute(f"GRANT SET ON PARAMETER auto_explain.log_min_duration TO {role}")

    def settle(self) -> None:
        """Do the upkeep that is due, so that no measurement pays for the one before it."""
        with self.session(passwords.SUPERUSER) as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")

    def session(self, role: str = passwords.APPLICATION) -> psycopg.Connection[dict[str, Any]]:
        """A connection that commits each statement by itself unless told otherwise."""
        params = self._server.connection_params(role=role)
        # The role's time-outs are for web requests.
        options = "-c lock_timeout=0 -c statement_timeout=0"
        return psycopg.connect(**params, options=options, autocommit=True, row_factory=dict_row)


@dataclass(frozen=True, slots=True)
class Program:
    """A web server: the arguments of Python that start it, and what its environment holds besides."""

    arguments: Sequence[str] = ("-m", "pipedai.server")
    environment: Mapping[str, str] = field(default_factory=dict)


# The API, as the Procfile has it.
PRODUCT = Program()


class Web:
    """gunicorn, serving a program on `port`."""

    def __init__(
        self, database: Database, port: int, processes: int, program: Program = PRODUCT
    ) -> None:
        self.port = port
        self.processes = processes
        self._log = database.directory / f"web-{port}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [database.interpreter, *program.arguments],
                cwd=database.checkout,
                env={
                    **database.environment,
                    **program.environment,
                    "PORT": str(port),
                    "WEB_BIND": f"{HOST}:{port}",
                    "PUBLIC_URL": f"http://{HOST}:{port}",
                    "WEB_CONCURRENCY": str(processes),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is not for it
                preexec_fn=die_with_parent(signal.SIGTERM),
            )

    def wait_until_ready(self) -> None:
        """Return once every process of it serves. Raises BenchFailed."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with Connection(self.port, timeout=5) as connection:
                    connection.call("GET", "/health")
                if len(children_rss(self.pid)) == self.processes:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise BenchFailed("The web server did not start.")

    def complaints(self) -> list[str]:
        """The last lines that it logged about something other than that all is well."""
        lines = self._log.read_text(errors="replace").splitlines()
        return [line for line in lines if '"level": "info"' not in line][-_COMPLAINTS:]

    def has_ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    @property
    def pid(self) -> int:
        """gunicorn's main process."""
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """What all its processes have used so far."""
        return cpu_seconds(self.pid)

    @property
    def rss(self) -> int:
        """The resident memory of its web processes, in bytes."""
        return sum(children_rss(self.pid))

    def stop(self) -> None:
        """End it as an operator would; kill it if that does not help."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def database(checkout: Path = env.BASE_DIR, /, **settings: str) -> Iterator[Database]:
    """A new database in a directory of its own below PIPEDAI_DATA_DIR, gone without trace at the end.

    It goes even if this process is killed. `settings` are further variables of its environment; `checkout` is whose
    code migrates it and runs on it.
    """
    data_dir = env.data_dir()
    Layout(data_dir).prepare_data_dir()
    directory = data_dir / f"bench-{secrets.token_hex(4)}"
    Layout(directory).prepare_data_dir()
    environment = {**os.environ, **_SETTINGS, **settings, "PIPEDAI_DATA_DIR": str(directory)}
    stop = shlex.join([sys.executable, str(env.BASE_DIR / "manage.py"), "pg", "stop"])
    afterwards = Afterwards(f"{stop} && rm -rf {shlex.quote(str(directory))}", environment)
    try:
        made = Database(directory, environment, checkout)
        made.start()
        yield made
    finally:
        afterwards.now()


@contextmanager
def web(on: Database, *, processes: int, program: Program = PRODUCT) -> Iterator[Web]:
    """A web server on that database, with so many processes."""
    served = Web(on, free_port(), processes, program)
    try:
        served.wait_until_ready()
        yield served
    except BenchFailed as failure:
        # Its log is about to go.
        raise BenchFailed("\n".join([str(failure), *served.complaints()])) from None
    finally:
        served.stop()


def free_port() -> int:
    """A port of HOST that nobody listens on, below those that systems give to whoever asks for any."""
    while True:
        port = _FIRST_PORT + secrets.randbelow(_PORTS)
        with suppress(OSError), socket.socket() as listener:
            listener.bind((HOST, port))
            return port
