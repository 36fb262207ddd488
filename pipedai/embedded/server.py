"""Starts, finds and stops the server of one data directory, for any number of processes."""

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from django.conf import settings
from psycopg.pq import PGconn, Ping

from pipedai.embedded import cluster
from pipedai.embedded.cluster import (
    APPLICATION,
    DATABASE,
    ENVIRONMENT,
    EmbeddedPostgresError,
    Layout,
    Outcome,
    explaining,
    if_free,
    only_one,
    run,
    server_pids,
)

# How long a server may take to start or to stop, and how long a process waits for another that starts or stops it.
_SECONDS = 90.0


class Status(NamedTuple):
    """The state of a server: whether it answers, and its main process."""

    running: bool
    pid: int | None


class EmbeddedPostgres:
    """The server of one data directory. Every method raises EmbeddedPostgresError."""

    def __init__(self, data_dir: Path, *, faster: Mapping[str, str] = {}) -> None:
        """Only tests may pass `faster=cluster.FASTER`: with these settings a crash of the machine loses data."""
        self.layout = Layout(Path(data_dir).expanduser().resolve())
        self._faster = faster

    def ensure_running(self, *, make: bool = True) -> None:
        """Start the server if necessary, and return when it answers. It then runs until somebody stops it.

        If there is no cluster, make one; with `make=False` that is an error, because a caller who forgot to name the
        data directory would otherwise get an empty database beside their own.
        """
        if not self.answers():
            if not make:
                self.verify_made()
            self.layout.prepare_data_dir()
            with only_one(self.layout.start_lock, seconds=2 * _SECONDS) as start_lock:
                self._start(start_lock)
        if self.layout.read_passwords() is None:
            raise EmbeddedPostgresError(
                f"{self.layout.passwords} is gone: restore it, or run `manage.py pg stop` and move"
                f" {self.layout.cluster} away."
            )

    def stop(self) -> bool:
        """Stop the server and its sessions. Return whether there was one."""
        if not self._is_made():
            return False
        self.layout.prepare_data_dir()
        lived = False
        with only_one(self.layout.start_lock, seconds=2 * _SECONDS):
            deadline = time.monotonic() + _SECONDS
            while self._is_alive():
                lived = True
                if (pid := self._main_pid()) is not None:
                    with contextlib.suppress(ProcessLookupError):
                        # PostgreSQL's fast shutdown. It ignores the signal if it is shutting down already.
                        os.kill(pid, signal.SIGINT)
                self._wait("stop", deadline)
            with contextlib.suppress(OSError):
                self.layout.socket_dir.rmdir()
        return lived

    def answers(self) -> bool:
        layout = self.layout
        with explaining(f"look into {layout.data_dir}"):
            # If the cluster's directory was removed, its server still answers for a minute before it ends.
            if not (layout.socket_dir.is_dir() and layout.pid_file.exists()):
                return False
        layout.verify_socket_dir()
        target = f"host={layout.socket_dir} port=5432 user=nobody connect_timeout=5"
        return Ping(PGconn.ping(target.encode())) == Ping.OK

    def verify_made(self) -> None:
        """Raise an error if there is no cluster, so that no process waits for a cluster that nobody will make."""
        if not self._is_made():
            raise EmbeddedPostgresError(
                f"There is no database in {self.layout.data_dir}: set PIPEDAI_DATA_DIR or DATABASE_URL to what your"
                " service has, or call bin/run, which makes one."
            )

    def status(self) -> Status:
        running = self.answers()
        return Status(running, self._main_pid() if running else None)

    def connection_params(
        self, database: str = DATABASE, *, role: str = APPLICATION
    ) -> dict[str, Any]:
        """Return arguments for psycopg.connect(). The server's first start makes the password that they contain."""
        if self.layout.socket_dir.exists():
            self.layout.verify_socket_dir()
        params = {
            "host": str(self.layout.socket_dir),
            "port": "5432",
            "user": role,
            "dbname": database,
            # With this setting libpq never sends the password in plain text, whichever program answers on the socket.
            "require_auth": "scram-sha-256",
        }
        kept = self.layout.read_passwords()
        return params if kept is None else {**params, "password": kept[role]}

    def url(self, database: str = DATABASE) -> str:
        """Start the server of an existing cluster if necessary, and return its `postgres://` URL with the password."""
        self.ensure_running(make=False)
        params = self.connection_params(database)
        address = f"{params['user']}:{params['password']}@:{params['port']}"
        return f"postgres://{address}/{quote(database, safe='')}?host={params['host']}"

    def environment(self, database: str = DATABASE) -> dict[str, str]:
        """Start the server of an existing cluster if need be, and return the environment for psql and pg_dump."""
        self.ensure_running(make=False)
        params = self.connection_params(database)
        variables = {"dbname": "PGDATABASE", "require_auth": "PGREQUIREAUTH"}
        return ENVIRONMENT | {
            variables.get(name, f"PG{name.upper()}"): value for name, value in params.items()
        }

    def _start(self, start_lock: int) -> None:
        """Wait until the server answers, and start it if no process of it lives."""
        deadline = time.monotonic() + _SECONDS
        log_begins: int | None = None
        while not self.answers():
            with if_free(self.layout.run_lock) as run_lock:
                if run_lock is not None and not server_pids(self.layout.cluster):
                    if log_begins is not None:
                        said = self.layout.log.read_bytes()[log_begins:].decode(errors="replace")
                        raise EmbeddedPostgresError(
                            f"PostgreSQL does not start in {self.layout.cluster}: {Outcome(1, said).reason}."
                        )
                    log_begins = self._launch(start_lock, run_lock)
            self._wait("answer", deadline)

    def _launch(self, start_lock: int, run_lock: int) -> int:
        """Start the server's main process, which inherits the lock. Return the size that its log had before."""
        layout = self.layout
        programs = cluster.server_bin(layout)
        if not layout.cluster.exists():
            cluster.make(layout, programs, start_lock, self._faster)
        layout.verify_cluster()
        layout.prepare_socket_dir()
        with explaining(f"clear up in {layout.cluster}"):
            # A server that was killed leaves these files behind, and they would keep a new server from starting. The
            # process number in the old pid file may by now belong to another program.
            for leftover in (layout.pid_file, layout.socket, Path(f"{layout.socket}.lock")):
                leftover.unlink(missing_ok=True)
            log_begins = layout.log.stat().st_size if layout.log.exists() else 0
        socket_dir = {"unix_socket_directories": str(layout.socket_dir)}
        # The shell opens the log as the server's user, since root must not write into that user's directory.
        run(
            "/bin/sh",
            "-c",
            'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 &',
            "sh",
            layout.log,
            programs / "postgres",
            f"-D{layout.cluster}",
            *cluster.as_arguments({**cluster.PINNED, **socket_dir, **self._faster}),
            user=layout.server_user,
            inherit=[run_lock],
        )
        return log_begins

    def _is_made(self) -> bool:
        with explaining(f"look into {self.layout.data_dir}"):
            return self.layout.cluster.exists()

    def _is_alive(self) -> bool:
        with if_free(self.layout.run_lock) as run_lock:
            return run_lock is None or bool(server_pids(self.layout.cluster))

    def _main_pid(self) -> int | None:
        """Return the pid in the server's pid file, if it is a process of this server."""
        try:
            written = self.layout.pid_file.read_text(errors="replace").split("\n")[0].strip()
        except OSError:
            return None
        return next((p for p in server_pids(self.layout.cluster) if str(p) == written), None)

    def _wait(self, what: str, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"PostgreSQL in {self.layout.cluster} does not {what}: see {self.layout.log}. If it runs in another"
                " container, set DATABASE_URL to a PostgreSQL that all can reach."
            )
        time.sleep(0.02)


def of_settings() -> EmbeddedPostgres | None:
    """Return the embedded server, or None if DATABASE_URL names another."""
    data_dir = settings.DATABASES["default"].get("DATA_DIR")
    return EmbeddedPostgres(data_dir) if data_dir else None
