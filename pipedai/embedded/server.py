"""Starts, stops and describes a private PostgreSQL server; usable without Django."""

import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from psycopg.pq import PGconn, Ping

from pipedai.embedded import cluster, locks, passwords, tuning
from pipedai.embedded.errors import EmbeddedPostgresError
from pipedai.embedded.layout import Layout
from pipedai.embedded.programs import Outcome, bin_dir, run

_LOCK_SECONDS = 180.0
_START_SECONDS = 90.0
_STOP_SECONDS = 60.0
_LOG_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True)
class Status:
    """What is known about a server: whether it answers, its main process, and where it is."""

    running: bool
    pid: int | None
    cluster: Path
    socket_dir: Path
    log: Path


class EmbeddedPostgres:
    """The server of one data directory. Every method may be called by any number of processes at once.

    Raises EmbeddedPostgresError, with one sentence, when the server cannot be used.
    """

    def __init__(self, data_dir: Path) -> None:
        self.layout = Layout(Path(data_dir).expanduser().resolve())

    def __repr__(self) -> str:
        return f"EmbeddedPostgres({str(self.layout.data_dir)!r})"

    def ensure_running(self) -> None:
        """Return once the server answers, having made and started it where necessary."""
        if self.answers():
            return
        self.layout.prepare_data_dir()
        with locks.starting(self.layout.start_lock, seconds=_LOCK_SECONDS) as start_lock:
            if not self.answers():
                self.layout.verify_reachable()
                self._start(start_lock)

    def stop(self) -> bool:
        """Stop the server, ending its sessions; False if none ran."""
        if not self.layout.data_dir.is_dir():
            return False
        self.layout.prepare_data_dir()
        with locks.starting(self.layout.start_lock, seconds=_LOCK_SECONDS):
            if not self._is_alive():
                return False
            self._pg_ctl_stop()
            return True

    def answers(self) -> bool:
        """Whether the server takes connections; asks it, without a password."""
        layout = self.layout
        if not layout.socket_dir.is_dir() or not (layout.cluster / "postmaster.pid").exists():
            return False
        layout.verify_socket_dir()
        target = f"host={layout.socket_dir} port=5432 user=nobody dbname=postgres connect_timeout=5"
        return Ping(PGconn.ping(target.encode())) == Ping.OK

    def status(self) -> Status:
        """Whether the server runs, and where it is."""
        layout = self.layout
        running = self.answers()
        return Status(
            running, self._pid() if running else None, layout.cluster, layout.socket_dir, layout.log
        )

    def connection_params(
        self, database: str = cluster.DATABASE, *, role: str = passwords.APPLICATION
    ) -> dict[str, str]:
        """Keyword arguments for psycopg; starts nothing. Before the first start there is no password yet."""
        if self.layout.socket_dir.exists():
            self.layout.verify_socket_dir()
        params = {
            "host": str(self.layout.socket_dir),
            "port": "5432",
            "user": role,
            "dbname": database,
            # Whatever answers, it is not told the password in clear.
            "require_auth": "scram-sha-256",
        }
        kept = passwords.read(self.layout.passwords)
        return {**params, "password": kept[role]} if kept else params

    def url(self, database: str = cluster.DATABASE, *, role: str = passwords.APPLICATION) -> str:
        """A `postgres://` URL with the password; the server must have been started once."""
        params = self.connection_params(database, role=role)
        host = quote(params["host"], safe="/")
        return (
            f"postgres://{role}:{params['password']}@:5432/{quote(database, safe='')}?host={host}"
        )

    def _start(self, start_lock: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with locks.to_hand_on(self.layout.run_lock) as run_lock:
                if run_lock is not None and not locks.server_processes(self.layout.cluster):
                    self._clear_leftovers()
                    cluster.ensure(self.layout, start_lock=start_lock)
                    self.layout.prepare_socket_dir()
                    self._pg_ctl_start(run_lock)
                    return
            if self.answers():
                return
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"The server did not answer: see {self.layout.log}.")
            time.sleep(0.1)

    def _is_alive(self) -> bool:
        with locks.to_hand_on(self.layout.run_lock) as run_lock:
            return run_lock is None or bool(locks.server_processes(self.layout.cluster))

    def _clear_leftovers(self) -> None:
        """Remove what a dead server left; a pid in it may be anybody's by now, and would stop the next start."""
        socket = self.layout.socket
        for leftover in (
            self.layout.cluster / "postmaster.pid",
            socket,
            socket.with_name(f"{socket.name}.lock"),
        ):
            leftover.unlink(missing_ok=True)

    def _pg_ctl_start(self, run_lock: int) -> None:
        log = self.layout.log
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))
        before = log.stat().st_size if log.exists() else 0
        options = shlex.join(tuning.as_arguments(tuning.server_settings(self.layout)))
        started = self._pg_ctl(
            "start",
            "-w",
            "-t",
            f"{_START_SECONDS:.0f}",
            "-l",
            str(log),
            "-o",
            options,
            inherit=[run_lock],
        )
        if started.code:
            said = log.read_bytes()[before:].decode(errors="replace") if log.exists() else ""
            reason = Outcome(started.code, said or started.text).reason
            raise EmbeddedPostgresError(
                f"PostgreSQL did not start in {self.layout.cluster}: {reason}."
            )

    def _pg_ctl_stop(self) -> None:
        stopped = self._pg_ctl("stop", "-w", "-t", f"{_STOP_SECONDS:.0f}", "-m", "fast")
        if stopped.code and self._is_alive():
            raise EmbeddedPostgresError(f"The server did not stop: {stopped.reason}.")

    def _pg_ctl(self, action: str, *options: str, inherit: list[int] | None = None) -> Outcome:
        return run(
            bin_dir() / "pg_ctl",
            action,
            "-D",
            self.layout.cluster,
            *options,
            user=self.layout.server_user,
            inherit=inherit or [],
            timeout=_START_SECONDS + 30,
        )

    def _pid(self) -> int | None:
        try:
            return int((self.layout.cluster / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None
