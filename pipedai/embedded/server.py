import contextlib
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.pq import PGconn, Ping

from pipedai.embedded import locks, passwords, tuning
from pipedai.embedded.cluster import DATABASE, ClusterMaker
from pipedai.embedded.installation import server_bin
from pipedai.embedded.layout import Layout
from pipedai.embedded.programs import ENVIRONMENT, EmbeddedPostgresError, Outcome, explaining, run

_LOCK_SECONDS = 180.0
_START_SECONDS = 90.0
_STOP_SECONDS = 60.0
# If a lock is held so long and no process of the server is seen, it runs where we can't see it, as in a container.
_UNSEEN_SECONDS = 5.0
_LOG_BYTES = 10 * 1024 * 1024
_OTHER_CLIENTS = """
    SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True)
class Status:
    """The state of a server: whether it answers, and its main process."""

    running: bool
    pid: int | None


class NotMade(EmbeddedPostgresError):  # noqa: N818
    """The data directory has no cluster, so there is nothing that could be started."""


class EmbeddedPostgres:
    """The server of one data directory, for any number of processes. Every method raises EmbeddedPostgresError."""

    def __init__(self, data_dir: Path, *, faster: Mapping[str, str] = {}) -> None:
        """`faster` is for tests alone: `tuning.FASTER`, with which a crash of the machine loses data."""
        self.layout = Layout(Path(data_dir).expanduser().resolve())
        self._faster = faster

    def __repr__(self) -> str:
        return f"EmbeddedPostgres({str(self.layout.data_dir)!r})"

    def ensure_running(self, *, make: bool = True) -> bool:
        """Start the server if necessary, and return when it answers. Return whether this call has started it.

        If there is no cluster, make one; with `make=False` that is an error, because whoever forgot to name the data
        directory would otherwise get an empty database beside their own.
        """
        started = False
        if not self.answers():
            if not make:
                self.verify_made()
            self.layout.prepare_data_dir()
            with locks.only_one(self.layout.start_lock, seconds=_LOCK_SECONDS) as start_lock:
                started = self._start(start_lock)
        if passwords.read(self.layout.passwords) is None:
            raise EmbeddedPostgresError(
                f"{self.layout.passwords} is gone: {passwords.HOW_TO_RENEW}."
            )
        return started

    def stop(self) -> bool:
        try:
            self.verify_made()
        except NotMade:
            return False
        self.layout.prepare_data_dir()
        with locks.only_one(self.layout.start_lock, seconds=_LOCK_SECONDS):
            patience = _Patience(self.layout)
            lived = False
            while self._is_alive():
                lived = True
                if self._main_pid() is None:
                    patience.wait()
                else:
                    self._pg_ctl_stop()
            with contextlib.suppress(OSError):
                self.layout.socket_dir.rmdir()
            return lived

    def answers(self) -> bool:
        layout = self.layout
        with explaining(f"look into {layout.data_dir}"):
            if not (layout.socket_dir.is_dir() and layout.pid_file.exists()):
                return False
        layout.verify_socket_dir()
        target = f"host={layout.socket_dir} port=5432 user=nobody connect_timeout=5"
        return Ping(PGconn.ping(target.encode())) == Ping.OK

    def verify_made(self) -> None:
        """Raise NotMade if there is no cluster."""
        with explaining(f"look into {self.layout.data_dir}"):
            if not self.layout.cluster.exists():
                raise NotMade(
                    f"There is no database in {self.layout.data_dir}: set PIPEDAI_DATA_DIR or DATABASE_URL to what your"
                    " service has, or call bin/run, which makes one."
                )

    def has_clients(self) -> bool:
        """Whether any session of a client is open at the server, which must run."""
        with psycopg.connect(**self.connection_params(role=passwords.SUPERUSER)) as connection:
            return connection.execute(_OTHER_CLIENTS).fetchone() is not None

    def status(self) -> Status:
        running = self.answers()
        return Status(running, self._main_pid() if running else None)

    def connection_params(
        self, database: str = DATABASE, *, role: str = passwords.APPLICATION
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
        kept = passwords.read(self.layout.passwords)
        return params if kept is None else {**params, "password": kept[role]}

    def url(self, database: str = DATABASE, *, role: str = passwords.APPLICATION) -> str:
        """Start the server of an existing cluster if necessary, and return its `postgres://` URL with the password."""
        self.ensure_running(make=False)
        params = self.connection_params(database, role=role)
        address = f"{role}:{params['password']}@:{params['port']}"
        return f"postgres://{address}/{quote(database, safe='')}?host={params['host']}"

    def environment(
        self, database: str = DATABASE, *, role: str = passwords.APPLICATION
    ) -> dict[str, str]:
        """Start the server of an existing cluster if need be, and return the environment for psql and pg_dump."""
        self.ensure_running(make=False)
        params = self.connection_params(database, role=role)
        return {
            **ENVIRONMENT,
            "PGHOST": params["host"],
            "PGPORT": params["port"],
            "PGUSER": params["user"],
            "PGDATABASE": params["dbname"],
            "PGPASSWORD": params["password"],
            "PGREQUIREAUTH": params["require_auth"],
        }

    def _start(self, start_lock: int) -> bool:
        """Wait until the server answers, and start it if nobody else does. Return whether this call has started it."""
        patience = _Patience(self.layout)
        while not self.answers():
            with locks.if_free(self.layout.run_lock) as run_lock:
                if run_lock is not None and not locks.server_pids(self.layout.cluster):
                    self._start_anew(start_lock, run_lock)
                    return True
            if self._lost_its_socket():
                self._pg_ctl_stop()
            else:
                patience.wait()
        return False

    def _start_anew(self, start_lock: int, run_lock: int) -> None:
        layout = self.layout
        layout.verify_reachable()
        ClusterMaker(layout, server_bin(layout), start_lock, self._faster).ensure()
        layout.prepare_socket_dir()
        with explaining(f"clear up in {layout.cluster}"):
            # A server that was killed leaves these files behind, and they would keep a new server from starting. The
            # process number in the old pid file may by now belong to another program.
            for leftover in (layout.pid_file, layout.socket, Path(f"{layout.socket}.lock")):
                leftover.unlink(missing_ok=True)
            if layout.log.exists() and layout.log.stat().st_size > _LOG_BYTES:
                layout.log.replace(f"{layout.log}.1")
            written = layout.log.stat().st_size if layout.log.exists() else 0
        started = self._pg_ctl(
            "start",
            f"--timeout={_START_SECONDS:.0f}",
            f"--log={layout.log}",
            f"--options={shlex.join(tuning.server_arguments(layout.socket_dir, self._faster))}",
            inherit=[run_lock],
        )
        if started.code == 0:
            return
        if self._main_pid() is not None:
            raise EmbeddedPostgresError(
                f"PostgreSQL is still recovering in {layout.cluster}: try again in a minute."
            )
        with explaining(f"read {layout.log}"):
            said = layout.log.read_bytes()[written:] if layout.log.exists() else b""
        reason = Outcome(started.code, said.decode(errors="replace")).complaint
        raise EmbeddedPostgresError(
            f"PostgreSQL does not start in {layout.cluster}: {reason or f'see {layout.log}'}."
        )

    def _pg_ctl_stop(self) -> None:
        stopped = self._pg_ctl("stop", f"--timeout={_STOP_SECONDS:.0f}", "--mode=fast")
        if stopped.code and self._main_pid() is not None:
            raise EmbeddedPostgresError(f"PostgreSQL does not stop: {stopped.reason}.")

    def _pg_ctl(self, action: str, *options: str, inherit: Sequence[int] = ()) -> Outcome:
        return run(
            server_bin(self.layout) / "pg_ctl",
            action,
            f"--pgdata={self.layout.cluster}",
            "--wait",
            *options,
            user=self.layout.server_user,
            inherit=inherit,
            timeout=_START_SECONDS + 30,
        )

    def _is_alive(self) -> bool:
        with locks.if_free(self.layout.run_lock) as run_lock:
            return run_lock is None or bool(locks.server_pids(self.layout.cluster))

    def _main_pid(self) -> int | None:
        written = self._pid_file_lines()[0]
        alive = locks.server_pids(self.layout.cluster)
        return next((pid for pid in alive if str(pid) == written), None)

    def _lost_its_socket(self) -> bool:
        """Whether the server is ready but its socket is missing, because some program cleaned up temporary files."""
        if self._main_pid() is None or self.layout.socket.exists():
            return False
        return self._pid_file_lines()[-1] == "ready"

    def _pid_file_lines(self) -> list[str]:
        try:
            text = self.layout.pid_file.read_text(errors="replace")
        except OSError:
            text = ""
        return [line.strip() for line in text.strip().split("\n")]


class _Patience:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._began = self._seen = time.monotonic()

    def wait(self) -> None:
        """Sleep briefly. Raise an error after too long, or if no process of the server has been seen."""
        now = time.monotonic()
        if locks.server_pids(self._layout.cluster):
            self._seen = now
        if now - self._seen > _UNSEEN_SECONDS:
            raise EmbeddedPostgresError(
                "A server in another container or on another machine works in"
                f" {self._layout.cluster}: only one can, so set DATABASE_URL to a PostgreSQL"
                " that all can reach."
            )
        if now - self._began > _START_SECONDS:
            raise EmbeddedPostgresError(
                f"PostgreSQL in {self._layout.cluster} does not answer: see {self._layout.log}."
            )
        time.sleep(0.05)
