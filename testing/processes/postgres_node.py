"""A PostgreSQL server of the embedded binaries that its owner kills, promotes and rebuilds by itself."""

import contextlib
import signal
import subprocess
import time
from pathlib import Path

import psutil
import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from bin.ending import die_with_parent
from pipedai import env
from pipedai.embedded.cluster import (
    DISCREET,
    ENVIRONMENT,
    SUPERUSER,
    Outcome,
    User,
    as_arguments,
    run,
)
from testing.processes.failure import ProcessFailed
from testing.processes.stack import HOST

# It runs with the very configuration that operators are given.
CONFIGURATION = env.BASE_DIR / "deploy" / "ha" / "postgresql.conf"
# The embedded server is reached by a socket only, so its cluster has no such rules.
_ACCESS = f"host all all {HOST}/32 scram-sha-256\nhost replication all {HOST}/32 scram-sha-256\n"
_START_SECONDS = 60.0
_PAUSE_SECONDS = 0.02


class Node:
    """One server with its directory. It answers on a port of this machine, and only with a password.

    `home` must belong to `user`, who runs the server. Every method raises ProcessFailed if a program fails.
    """

    def __init__(
        self, name: str, home: Path, programs: Path, user: User, port: int, password: str
    ) -> None:
        self.name = name
        self.port = port
        self._cluster = home / name
        self._log = home / f"{name}.log"
        self._password_file = home / "pgpass"
        self._programs = programs
        self._user = user
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    def create(self, kept: Path | None = None) -> None:
        """Make an empty cluster, or copy the embedded server's cluster `kept`.

        It gets the configuration of deploy/ha, but without an archive.
        """
        self._write(self._password_file, f"{HOST}:*:*:*:{self._password}\n")
        if kept is None:
            self._initdb()
        else:
            subprocess.run(["cp", "-a", str(kept), str(self._cluster)], check=True)
            self._write(self._cluster / "pg_hba.conf", _ACCESS)
        without_archive = "archive_mode = off\nrestore_command = ''\n"
        configuration = CONFIGURATION.read_text() + without_archive
        self._write(self._cluster / "postgresql.conf", configuration)

    def _initdb(self) -> None:
        first = self._cluster.parent / "password"
        self._write(first, self._password)
        self._run(
            "initdb",
            f"--pgdata={self._cluster}",
            f"--username={SUPERUSER}",
            f"--pwfile={first}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
        )

    def start(self, **settings: str) -> None:
        """Start the server, and wait until it answers. `settings` win over those in files."""
        given = {
            **DISCREET,
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "cluster_name": self.name,
            **settings,
        }
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    str(self._programs / "postgres"),
                    "-D",
                    str(self._cluster),
                    *as_arguments(given),
                ],
                cwd="/",
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                user=None if self._user.is_us else self._user.uid,
                group=None if self._user.is_us else self._user.gid,
                extra_groups=None if self._user.is_us else (),
                preexec_fn=die_with_parent(signal.SIGQUIT),
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ProcessFailed(f"{self.name} does not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(_PAUSE_SECONDS)

    def answers(self) -> bool:
        """Whether the server accepts connections."""
        target = f"host={HOST} port={self.port} user=nobody connect_timeout=2"
        return Ping(PGconn.ping(target.encode())) == Ping.OK

    def kill(self) -> None:
        """Kill all processes of the server at once (kill -9), as if its machine had lost its power."""
        assert self._process is not None
        main = psutil.Process(self._process.pid)
        children = main.children(recursive=True)
        for process in (main, *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs(children)

    def stop(self) -> None:
        """Stop the server, and end its sessions. It does nothing if the server does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_START_SECONDS)

    def promote(self) -> None:
        """Make this standby the primary, and return when it takes writes.

        Its commits wait for no standby until `demand_standby`, as there is none yet. Patroni does the same.
        """
        self.demand_no_standby()
        with self.session() as session:
            session.execute("SELECT pg_promote(true)")

    def demand_no_standby(self) -> None:
        """Let commits wait for no standby, whatever the configuration says."""
        self._configure("ALTER SYSTEM SET synchronous_standby_names = ''")

    def demand_standby(self) -> None:
        """Let commits wait for a standby, as the configuration says."""
        self._configure("ALTER SYSTEM RESET synchronous_standby_names")

    def has_synchronous_standby(self) -> bool:
        """Whether a standby has all WAL, and commits wait for it."""
        with self.session() as session:
            row = session.execute(
                "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"
                " AND state = 'streaming'"
            ).fetchone()
        return row is not None and row[0] > 0

    def copy(self, primary: "Node") -> None:
        """Become a standby of the primary with a new copy of its files (pg_basebackup). The server must not run."""
        self._done("rm", run("/bin/rm", "-rf", self._cluster, user=self._user))
        self._run(
            "pg_basebackup",
            f"--pgdata={self._cluster}",
            f"--dbname={primary._conninfo()}",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--wal-method=stream",
            "--no-sync",
        )

    def rewind(self, primary: "Node") -> None:
        """Become a standby of the primary by undoing what it did not get (pg_rewind). The server must not run."""
        self._run(
            "pg_rewind",
            f"--target-pgdata={self._cluster}",
            f"--source-server={primary._conninfo()} dbname=postgres",
            "--write-recovery-conf",
            "--no-sync",
        )

    def session(self) -> "psycopg.Connection":
        """Open a session of the superuser that commits each statement by itself."""
        return psycopg.connect(
            host=HOST,
            port=self.port,
            user=SUPERUSER,
            password=self._password,
            dbname="postgres",
            connect_timeout=5,
            autocommit=True,
        )

    def _conninfo(self) -> str:
        """Return how another server reaches this one. The password is in a file."""
        return make_conninfo(
            host=HOST,
            port=self.port,
            user=SUPERUSER,
            passfile=str(self._password_file),
        )

    def _configure(self, statement: str) -> None:
        with self.session() as session:
            session.execute(statement)
            session.execute("SELECT pg_reload_conf()")

    def _write(self, file: Path, text: str) -> None:
        """Append as the server's user, because root must not write in others' directories."""
        said = run("/bin/sh", "-c", 'cat >> "$1"', "sh", file, user=self._user, stdin=text)
        self._done(f"writing {file}", said)

    def _run(self, program: str, *options: str) -> None:
        self._done(program, run(self._programs / program, *options, user=self._user))

    def _done(self, what: str, outcome: Outcome) -> None:
        if outcome.code:
            raise ProcessFailed(f"{self.name}: {what} failed: {outcome.reason}.")
