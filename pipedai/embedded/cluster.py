"""Makes the database cluster: whole, with its roles and its database, or not at all."""

import os
import secrets
import shutil
from pathlib import Path

from pipedai.embedded import passwords, tuning
from pipedai.embedded.errors import EmbeddedPostgresError, explaining
from pipedai.embedded.layout import Layout
from pipedai.embedded.programs import ServerUser, bin_dir, run

DATABASE = "pipedai"


def ensure(layout: Layout, *, start_lock: int) -> None:
    """Have a cluster of our major version with known passwords; the server must not run.

    The programs inherit the start lock, so that nobody meddles while they outlive a killed starter.
    """
    kept = passwords.read(layout.passwords)
    if not layout.cluster.exists():
        kept = kept or passwords.generate()
        passwords.write(layout.passwords, kept)
        _create(layout, kept, start_lock)
    layout.verify_cluster()
    _verify_version(layout)
    if kept is None:
        kept = passwords.generate()
        passwords.write(layout.passwords, kept)
        _execute(layout.cluster, layout.server_user, _password_statements(kept), start_lock)


def _create(layout: Layout, kept: dict[str, str], start_lock: int) -> None:
    user = layout.server_user
    for leftover in layout.data_dir.glob("postgres.new-*"):
        shutil.rmtree(leftover)
    draft = layout.data_dir / f"postgres.new-{secrets.token_hex(4)}"
    with explaining(f"make {draft}"):
        draft.mkdir(mode=0o700)
        if not user.is_us:
            os.chown(draft, user.uid, user.gid)
    try:
        _initdb(draft, user, start_lock)
        _execute(
            draft,
            user,
            [
                f"CREATE ROLE {passwords.APPLICATION} LOGIN CREATEDB",
                *_password_statements(kept),
                f"CREATE DATABASE {DATABASE} OWNER {passwords.APPLICATION}",
            ],
            start_lock,
        )
        with explaining(f"make {layout.cluster}"):
            draft.rename(layout.cluster)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _initdb(cluster: Path, user: ServerUser, start_lock: int) -> None:
    made = run(
        bin_dir() / "initdb",
        f"--pgdata={cluster}",
        f"--username={passwords.SUPERUSER}",
        "--auth=reject",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--no-instructions",
        *(["--no-sync"] if tuning.fast_unsafe() else []),
        *tuning.as_arguments(tuning.DEFAULTS),
        user=user,
        inherit=[start_lock],
    )
    if made.code:
        raise EmbeddedPostgresError(f"Cannot make a database in {cluster.parent}: {made.reason}.")
    # Written as the server's user: root writes nothing into a directory of somebody else's.
    ruled = run(
        "/bin/sh",
        "-c",
        'cat > "$1"',
        "sh",
        cluster / "pg_hba.conf",
        user=user,
        stdin="local all all scram-sha-256\n",
    )
    if ruled.code:
        raise EmbeddedPostgresError(f"Cannot make a database in {cluster.parent}: {ruled.reason}.")


def _password_statements(kept: dict[str, str]) -> list[str]:
    return [f"ALTER ROLE {role} PASSWORD '{password}'" for role, password in kept.items()]


def _execute(cluster: Path, user: ServerUser, statements: list[str], start_lock: int) -> None:
    """Run statements in single-user mode, which needs no password; through stdin, as they hold some."""
    ended = run(
        bin_dir() / "postgres",
        "--single",
        "-D",
        cluster,
        *tuning.as_arguments(
            {
                "exit_on_error": "on",
                "log_min_error_statement": "panic",
                "log_error_verbosity": "terse",
                "password_encryption": "scram-sha-256",
            }
        ),
        "template1",
        user=user,
        stdin="".join(f"{statement}\n" for statement in statements),
        inherit=[start_lock],
    )
    if ended.code:
        raise EmbeddedPostgresError(
            f"Cannot set up the database in {cluster.parent}: {ended.reason}."
        )


def _verify_version(layout: Layout) -> None:
    try:
        made_by = (layout.cluster / "PG_VERSION").read_text().strip()
    except OSError:
        raise EmbeddedPostgresError(
            f"{layout.cluster} is no PostgreSQL cluster: move it away, or set PIPEDAI_DATA_DIR."
        ) from None
    # "postgres (PostgreSQL) 18.6"
    ours = run(bin_dir() / "postgres", "--version", user=layout.server_user).text.split()[2]
    if made_by != ours.split(".")[0]:
        raise EmbeddedPostgresError(
            f"{layout.cluster} was made by PostgreSQL {made_by} and this is {ours}: with the release that made it"
            f" run `manage.py pg dump FILE`, move {layout.cluster} away, then run `manage.py pg restore FILE`."
        )
