"""The configuration of deploy/ha: PostgreSQL fails over below PgBouncer and HAProxy, and WAL is archived."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from bin.ending import die_with_parent
from deploy.tests.doc import commands
from pipedai import env
from pipedai.embedded.cluster import Layout, User
from testing.processes.certificate import self_signed
from testing.processes.postgres_node import Node
from testing.processes.programs import program
from testing.processes.web_process import Server, free_port
from testing.processes.worker_process import until

pytestmark = pytest.mark.long

HA = env.BASE_DIR / "deploy" / "ha"
NAMES = ("pipedai_a", "pipedai_b")
PASSWORD = "not-a-secret"
# docs/high-availability.md promises this once the database answers again.
LONGEST_SECONDS = 5.0


@pytest.fixture
def home() -> Iterator[Path]:
    """Makes a directory of PostgreSQL's user, who could not reach one of pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="pipedai-ha-"))
    user = Layout(folder).server_user
    if not user.is_us:
        os.chown(folder, user.uid, user.gid)
    yield folder
    shutil.rmtree(folder)


def test_writes_go_on_after_a_failover_below_haproxy_and_pgbouncer(home: Path) -> None:
    for name in ("haproxy", "pgbouncer"):
        program(name)
    user = Layout(home).server_user
    programs = program("postgres").parent
    a, b = (Node(name, home, programs, user, free_port(), PASSWORD) for name in NAMES)
    with ExitStack() as stack:
        stack.callback(a.stop)
        stack.callback(b.stop)
        a.create()
        (home / a.name / "pg_hba.conf").write_text(_access_rules())
        a.start(synchronous_standby_names="")
        with a.session() as session:
            session.execute(f"CREATE ROLE pipedai LOGIN PASSWORD '{PASSWORD}'")
            session.execute("CREATE ROLE pipedai_check LOGIN CONNECTION LIMIT 5")
            session.execute("CREATE DATABASE pipedai OWNER pipedai")
        a.stop()
        a.start()
        b.copy(a)
        b.start()
        until(a.has_synchronous_standby)

        primary, pooler = free_port(), free_port()
        said = stack.enter_context(_haproxy(home, primary, (a.port, b.port)))
        stack.enter_context(_pgbouncer(home, pooler, primary))
        until(lambda: f"{b.name} is DOWN" in said.read_text(), seconds=10)
        url = f"postgres://pipedai:{PASSWORD}@127.0.0.1:{pooler}/pipedai"
        until(lambda: _wrote(url, "CREATE TABLE note (n int)"), seconds=10)
        with _connect(url) as kept:
            kept.execute("INSERT INTO note VALUES (1)")
            a.kill()
            until(lambda: f"{a.name} is DOWN" in said.read_text(), seconds=10)
            b.promote()
            promoted = time.monotonic()
            until(lambda: _wrote(url), seconds=LONGEST_SECONDS + 5)
            assert time.monotonic() - promoted < LONGEST_SECONDS
        with b.session() as session:
            assert session.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
        with _connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM note").fetchone() == (2,)


def test_haproxy_sends_requests_to_the_web_process_that_lives(home: Path, server: Server) -> None:
    program("haproxy")
    frontend = free_port()
    with _haproxy(
        home, free_port(), (free_port(), free_port()), frontend=frontend, web=server.url
    ) as said:
        until(lambda: "web_b is DOWN" in said.read_text(), seconds=20)
        health = f"https://localhost:{frontend}/api/v1/health"
        assert httpx.get(health, verify=False).status_code == 200
        assert "web_a is DOWN" not in said.read_text()


def test_the_documented_commands_recover_a_point_in_time(home: Path) -> None:
    backup, recover = commands("## Recovery to a point in time", "high-availability.md")
    user = Layout(home).server_user
    programs = program("postgres").parent
    lost, restored = (Node(name, home, programs, user, free_port(), PASSWORD) for name in NAMES)
    archive, backups = home / "archive", home / "backups"
    for folder in (archive, backups):
        folder.mkdir(mode=0o700)
        if not user.is_us:
            os.chown(folder, user.uid, user.gid)
    script = shutil.copy(HA / "archive", home / "pipedai-archive")
    with ExitStack() as stack:
        stack.callback(lost.stop)
        stack.callback(restored.stop)
        lost.create()
        lost.start(
            synchronous_standby_names="",
            archive_mode="on",
            archive_command=f"ARCHIVE={archive} {script} %p %f",
        )
        variables = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(lost.port),
            "PGUSER": "postgres",
            "PGPASSWORD": PASSWORD,
            "ARCHIVE": str(archive),
            "BACKUPS": str(backups),
            "DATA": str(home / restored.name),
        }
        with lost.session() as session:
            session.execute("CREATE TABLE note (n int)")
            session.execute("INSERT INTO note VALUES (1)")
            _follow(backup, variables, user)
            session.execute("INSERT INTO note VALUES (2)")
            (point,) = session.execute("SELECT clock_timestamp()::text").fetchone() or ("",)
            session.execute("DELETE FROM note")
            (piece,) = session.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone() or (
                "",
            )
            archived = f"SELECT last_archived_wal >= '{piece}' FROM pg_stat_archiver"
            until(lambda: session.execute(archived).fetchone() == (True,))
        lost.kill()
        _follow(recover, {**variables, "POINT": point}, user)
        restored.start()
        with restored.session() as session:
            until(
                lambda: (
                    session.execute("SELECT pg_get_wal_replay_pause_state()").fetchone()
                    == ("paused",)
                )
            )
            assert session.execute("SELECT n FROM note ORDER BY n").fetchall() == [(1,), (2,)]
            session.execute("SELECT pg_wal_replay_resume()")
            until(lambda: session.execute("SELECT pg_is_in_recovery()").fetchone() == (False,))
            session.execute("INSERT INTO note VALUES (3)")


def _follow(block: str, variables: dict[str, str], user: User) -> None:
    """Runs a document's commands as PostgreSQL's user."""
    subprocess.run(
        ["bash", "-euc", block],
        env=variables,
        cwd="/",
        user=None if user.is_us else user.uid,
        group=None if user.is_us else user.gid,
        extra_groups=None if user.is_us else (),
        check=True,
    )


def test_the_archive_keeps_what_it_has_and_takes_the_same_piece_twice(tmp_path: Path) -> None:
    archive, piece = tmp_path / "archive", tmp_path / "piece"
    archive.mkdir()
    piece.write_bytes(b"wal")
    assert _archive(piece, archive) == 0
    assert _archive(piece, archive) == 0
    piece.write_bytes(b"other")
    assert _archive(piece, archive) != 0
    assert [file.read_bytes() for file in archive.iterdir()] == [b"wal"]
    shutil.rmtree(archive)
    assert _archive(piece, archive) != 0


def _archive(piece: Path, archive: Path) -> int:
    done = subprocess.run(
        [str(HA / "archive"), str(piece), "000000010000000000000001"],
        env={**os.environ, "ARCHIVE": str(archive)},
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode


def _access_rules() -> str:
    """Returns deploy/ha/pg_hba.conf for this machine, and a line for the superuser who makes the roles."""
    rules = (HA / "pg_hba.conf").read_text().replace("10.0.0.0/24", "127.0.0.1/32")
    mine = "".join(
        f"host {what} postgres 127.0.0.1/32 scram-sha-256\n" for what in ("all", "replication")
    )
    return rules + mine


@contextmanager
def _haproxy(
    home: Path, port: int, nodes: tuple[int, int], *, frontend: int | None = None, web: str = ""
) -> Iterator[Path]:
    """Runs HAProxy with deploy/ha/haproxy.cfg, on this machine's ports, after its check of the file. Yields its log.

    `web` is the URL of the web process web_a; nobody listens at the ports of the others.
    """
    pem = self_signed(home)
    text = (HA / "haproxy.cfg").read_text()
    text = text.replace("/etc/pipedai/tls/haproxy.pem", str(pem))
    text = text.replace("bind :443", f"bind 127.0.0.1:{frontend or free_port()}")
    text = text.replace("127.0.0.1:5000", f"127.0.0.1:{port}")
    text = text.replace("10.0.0.21:5432", f"127.0.0.1:{nodes[0]}")
    text = text.replace("10.0.0.22:5432", f"127.0.0.1:{nodes[1]}")
    if web:
        text = text.replace("10.0.0.11:8000", urlsplit(web).netloc)
    text = re.sub(r"10\.0\.0\.\d+:\d+", f"127.0.0.1:{free_port()}", text)
    file = home / "haproxy.cfg"
    file.write_text(text)
    command = [str(program("haproxy")), "-f", str(file)]
    subprocess.run([*command, "-c"], check=True, capture_output=True)
    log = home / "haproxy.log"
    with _running(command, log):
        yield log


@contextmanager
def _pgbouncer(home: Path, port: int, primary: int) -> Iterator[None]:
    """Runs PgBouncer with deploy/ha/pgbouncer.ini, as PostgreSQL's user, because it refuses to run as root."""
    users = home / "userlist.txt"
    users.write_text(f'"pipedai" "{PASSWORD}"\n')
    text = (HA / "pgbouncer.ini").read_text()
    for ours, theirs in (
        ("/etc/pgbouncer/userlist.txt", str(users)),
        ("/var/log/postgresql/", f"{home}/"),
        ("/var/run/postgresql/", f"{home}/"),
        ("6432", str(port)),
        ("port=5000", f"port={primary}"),
    ):
        assert ours in text
        text = text.replace(ours, theirs)
    file = home / "pgbouncer.ini"
    file.write_text(text)
    user = Layout(home).server_user
    command = [str(program("pgbouncer")), str(file)]
    with _running(command, home / "pgbouncer.out", uid=None if user.is_us else user.uid):
        yield


@contextmanager
def _running(command: list[str], log: Path, uid: int | None = None) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            user=uid,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()
        sys.stdout.write(log.read_text())  # pytest shows it if the test failed


def _connect(url: str) -> psycopg.Connection:
    """Opens a connection with the service's own settings."""
    config = env.database_config(url)
    return psycopg.connect(
        host=config["HOST"],
        port=config["PORT"],
        user=config["USER"],
        password=config["PASSWORD"],
        dbname=config["NAME"],
        autocommit=True,
        **config["OPTIONS"],
    )


def _wrote(url: str, statement: str = "INSERT INTO note VALUES (2)") -> bool:
    """Tells whether a statement on a new connection was carried out."""
    try:
        with _connect(url) as connection:
            connection.execute(statement)
    except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
        return False
    return True
