"""Starts the service for programs outside of a test: a durable database of its own, the web server and schedulers."""

import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import psycopg
from psycopg.rows import dict_row

from bin.ending import Afterwards, die_with_parent
from pipedai import env
from pipedai.embedded.cluster import APPLICATION, SUPERUSER, Layout
from pipedai.embedded.server import EmbeddedPostgres
from testing.processes.failure import ProcessFailed
from testing.processes.usage import children_rss, cpu_seconds

HOST = "127.0.0.1"
_START_SECONDS = 60.0
_STOP_SECONDS = 40.0
# The ports that benchmarks use. The test suite uses those below them.
_FIRST_PORT, _PORTS = 20_000, 10_000
_COMPLAINTS = 20
_SAID = 3000  # how many characters of a failed program's output an error shows
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}

# The test suite names a directory here that has a cluster with the present schema, so that no benchmark makes its own.
_KEPT_CLUSTER = "BENCH_CLUSTER"

# Settings that replace those of the environment and of .env. They differ from production in that throttles
# are off, because a benchmark registers hundreds of workers from one address.
_SETTINGS = {
    "PIPEDAI_ENV": "development",
    "DATABASE_URL": "",
    "DATABASE_LISTEN_URL": "",
    "REPLICA_DATABASE_URL": "",
    "DJANGO_SETTINGS_MODULE": "testing.settings",
    "TRUSTED_PROXIES": "",
    "ALLOWED_HOSTS": "",
    "LOG_FORMAT": "json",
    "LOG_LEVEL": "INFO",
}


class Database:
    """An embedded PostgreSQL in a directory of its own, with an empty database that has the present schema."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.environment = environment
        self._server = EmbeddedPostgres(directory)

    def start(self) -> None:
        """Create, start and migrate the database. Raises ProcessFailed if it would not survive a power cut."""
        if not copy_kept_cluster(self.directory):
            self.python("manage.py", "migrate", "--no-input")
        # The server's environment says whether it keeps what it commits.
        with patch.dict(os.environ, self.environment):
            self._server.ensure_running()
        found = {name: self.one(f"SHOW {name}")[name] for name in _DURABLE}
        if found != _DURABLE:
            raise ProcessFailed(f"PostgreSQL does not keep what it commits: {found}.")

    @property
    def pid(self) -> int:
        """The pid of PostgreSQL's main process. Raises ProcessFailed if it does not run."""
        pid = self.running_pid
        if pid is None:
            raise ProcessFailed("PostgreSQL has stopped.")
        return pid

    @property
    def running_pid(self) -> int | None:
        """The pid of PostgreSQL's main process, or None if it does not run."""
        return self._server.status().pid

    @property
    def client_environment(self) -> dict[str, str]:
        """The environment by which PostgreSQL's programs find the database."""
        return self._server.environment()

    def python(self, *arguments: str) -> str:
        """Run Python with these arguments on the database, and return what it printed. Raises ProcessFailed with its
        output if it fails."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=env.BASE_DIR,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        if done.returncode:
            raise ProcessFailed(f"{' '.join(arguments[:3])} failed:\n{done.stdout[-_SAID:]}")
        return done.stdout

    def one(self, statement: str) -> dict[str, Any]:
        """Run a query and return its first row."""
        with self.session() as connection:
            row = connection.execute(statement).fetchone()
        assert row is not None
        return row

    def all(self, statement: str) -> list[dict[str, Any]]:
        """Run a query and return all rows."""
        with self.session() as connection:
            return connection.execute(statement).fetchall()

    def execute(self, statements: str) -> None:
        """Run statements as the application's role."""
        with self.session() as connection:
            connection.execute(statements)

    def make_database(self, name: str, *extensions: str) -> dict[str, Any]:
        """Make another database of the application's role on the same server. Return how to connect to it."""
        with self.session(SUPERUSER) as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER {APPLICATION}")
        params = self._server.connection_params(name, role=SUPERUSER)
        with psycopg.connect(**params, autocommit=True) as connection_to_it:
            for extension in extensions:
                connection_to_it.execute(f"CREATE EXTENSION {extension}")
        return self._server.connection_params(name, role=APPLICATION)

    def explain_plans(self) -> None:
        """Let new sessions ask for the plans of their statements, which then come as notices in JSON."""
        role = APPLICATION
        said = {
            "log_analyze": "on",
            "log_timing": "off",
            "log_format": "json",
            "log_level": "notice",
        }
        with self.session(SUPERUSER) as connection:
            connection.execute(f"ALTER ROLE {role} SET session_preload_libraries = 'auto_explain'")
            for name, value in said.items():
                connection.execute(f"ALTER ROLE {role} SET auto_explain.{name} = '{value}'")
            # Each session chooses when it wants plans; by default it gets none.
            connection.execute(f"GRANT SET ON PARAMETER auto_explain.log_min_duration TO {role}")

    @contextmanager
    def copied(self) -> Iterator[None]:
        """Let the application's role copy databases in the block, in which nothing is analysed unless it says so."""
        role = APPLICATION
        with self.session(SUPERUSER) as connection:
            connection.execute(f"ALTER ROLE {role} CREATEDB")
            connection.execute("ALTER SYSTEM SET autovacuum = off")
            connection.execute("SELECT pg_reload_conf()")
        yield
        with self.session(SUPERUSER) as connection:
            connection.execute(f"ALTER ROLE {role} NOCREATEDB")
            connection.execute("ALTER SYSTEM RESET autovacuum")
            connection.execute("SELECT pg_reload_conf()")

    def settle(self) -> None:
        """Vacuum and checkpoint, so that no measurement pays for the one before it."""
        with self.session(SUPERUSER) as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")

    def session(self, role: str = APPLICATION) -> psycopg.Connection[dict[str, Any]]:
        """Open a connection that commits each statement by itself, outside of transactions."""
        params = self._server.connection_params(role=role)
        # The role's time-outs are meant for web requests, so they are off here.
        options = "-c lock_timeout=0 -c statement_timeout=0"
        return psycopg.connect(**params, options=options, autocommit=True, row_factory=dict_row)


class Web:
    """The API on `port`, started as in the Procfile."""

    def __init__(self, database: Database, port: int, processes: int) -> None:
        self.port = port
        self.processes = processes
        self._database = database
        self._log = database.directory / f"web-{port}.log"
        self._process = self._start()

    def wait_until_ready(self) -> None:
        """Wait until each of its processes serves. Raises ProcessFailed."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(httpx.HTTPError):
                health = f"http://{HOST}:{self.port}/api/v1/health"
                # By default a client reads the system's certificates, which costs 10 ms of CPU time.
                httpx.get(health, trust_env=False, verify=False, timeout=30).raise_for_status()
                if len(children_rss(self.pid)) == self.processes:
                    return
            time.sleep(0.05)
        raise ProcessFailed("The web server did not start.")

    def complaints(self) -> list[str]:
        """Return the last lines of its log that report a problem."""
        lines = self._log.read_text(errors="replace").splitlines()
        return [line for line in lines if '"level": "info"' not in line][-_COMPLAINTS:]

    @property
    def pid(self) -> int:
        """The pid of gunicorn's main process."""
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """The CPU seconds that all its processes have used so far."""
        return cpu_seconds(self.pid)

    @property
    def rss(self) -> int:
        """The resident memory of its web processes, in bytes."""
        return sum(children_rss(self.pid))

    def stop(self) -> None:
        """Stop it as an operator would, with SIGTERM, and kill it if it does not end."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill all its processes (kill -9)."""
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def start_again(self) -> None:
        """Start it on the same port, after `kill`."""
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "pipedai.server"],
                cwd=env.BASE_DIR,
                env={
                    **self._database.environment,
                    "PORT": str(self.port),
                    "WEB_BIND": f"{HOST}:{self.port}",
                    "PUBLIC_URL": f"http://{HOST}:{self.port}",
                    "WEB_CONCURRENCY": str(self.processes),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is not for it
                preexec_fn=die_with_parent(signal.SIGTERM),
            )


@contextmanager
def database(**settings: str) -> Iterator[Database]:
    """Make a new database in a directory of its own below PIPEDAI_DATA_DIR, and remove it at the end.

    It is removed even if this process is killed. `settings` are further variables of its environment.
    """
    with workplace(**settings) as (directory, environment):
        made = Database(directory, environment)
        made.start()
        yield made


@contextmanager
def workplace(**settings: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """Make a directory below PIPEDAI_DATA_DIR, and the environment of programs that have it as their data directory.

    At the end all programs that use the directory are ended, its database server is stopped, and the directory is
    removed, even if this process is killed.
    """
    data_dir = env.data_dir()
    Layout(data_dir).prepare_data_dir()
    directory = data_dir / f"bench-{secrets.token_hex(4)}"
    Layout(directory).prepare_data_dir()
    environment = {**os.environ, **_SETTINGS, **settings, "PIPEDAI_DATA_DIR": str(directory)}
    remove = shlex.join([sys.executable, "-m", "bin.ending"])
    afterwards = Afterwards(f"cd {shlex.quote(str(env.BASE_DIR))} && exec {remove}", environment)
    try:
        yield directory, environment
    finally:
        afterwards.now()


def kept_cluster() -> Layout | None:
    """Return where the test suite keeps a stopped cluster with the present schema, or None outside of the suite."""
    kept = os.environ.get(_KEPT_CLUSTER)
    return Layout(Path(kept)) if kept else None


def copy_kept_cluster(directory: Path) -> bool:
    """Copy the test suite's cluster, which has the present schema, into a data directory that has none yet.

    Return False outside of the suite, where there is none to copy.
    """
    kept = kept_cluster()
    if kept is None:
        return False
    # shutil would not keep the owners of the files.
    command = ["cp", "-a", str(kept.cluster), str(kept.passwords), str(directory)]
    subprocess.run(command, check=True)
    return True


@contextmanager
def web(on: Database, *, processes: int) -> Iterator[Web]:
    """Run a web server on that database, with this number of processes."""
    served = Web(on, free_port(), processes)
    try:
        served.wait_until_ready()
        yield served
    except ProcessFailed as failure:
        # The error shows the log's last lines, since the log will be removed.
        raise ProcessFailed("\n".join([str(failure), *served.complaints()])) from None
    finally:
        served.stop()


@contextmanager
def scheduler_processes(on: Database, count: int) -> Iterator[list[int]]:
    """Run `count` schedulers on that database, and stop them at the end. When it yields their pids, all are at work."""
    with (on.directory / "schedulers.log").open("wb") as output:
        processes = [
            subprocess.Popen(
                [sys.executable, "manage.py", "runscheduler"],
                cwd=env.BASE_DIR,
                env=on.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so a Ctrl-C does not reach it
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
            for _ in range(count)
        ]
    try:
        deadline = time.monotonic() + _START_SECONDS
        with on.session() as session:
            beating = "SELECT FROM scheduler_heartbeat"
            while session.execute(beating).rowcount < count:
                if time.monotonic() > deadline:
                    raise ProcessFailed("The schedulers do not start.")
                time.sleep(0.05)
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def free_port() -> int:
    """Return a free port of HOST, below the range from which systems assign ports to clients."""
    while True:
        port = _FIRST_PORT + secrets.randbelow(_PORTS)
        with suppress(OSError), socket.socket() as listener:
            listener.bind((HOST, port))
            return port
