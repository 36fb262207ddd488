"""Writes the application's database from an embedded server to a file, and reads such a file into a server."""

import os
import secrets
import subprocess
from pathlib import Path

import psycopg

from pipedai.embedded.cluster import DATABASE
from pipedai.embedded.installation import wheel_bin
from pipedai.embedded.programs import EmbeddedPostgresError, Outcome, explaining
from pipedai.embedded.server import EmbeddedPostgres

_COUNT_TABLES = """
    SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""


def dump(server: EmbeddedPostgres, file: Path) -> None:
    """Write the database to a new file that only we can read, in pg_dump's custom format."""
    if file.exists():
        raise EmbeddedPostgresError(f"{file} exists already: choose another name.")
    draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    with explaining(f"write {file}"):
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            _run(server, "pg_dump", "--format=custom", f"--file={draft}")
            draft.rename(file)
        finally:
            draft.unlink(missing_ok=True)


def restore(server: EmbeddedPostgres, file: Path) -> None:
    """Fill the database from a file that `dump` wrote, completely or not at all. The database must have no tables."""
    with explaining(f"read {file}"), file.open("rb"):
        pass
    server.ensure_running()
    with psycopg.connect(**server.connection_params()) as connection:
        [tables] = connection.execute(_COUNT_TABLES).fetchone() or (0,)
    if tables:
        raise EmbeddedPostgresError(
            f"The database holds {tables} tables, and only an empty one can be restored into:"
            f" run `manage.py pg stop`, move {server.layout.cluster} away, and try again."
        )
    _run(
        server,
        "pg_restore",
        f"--dbname={DATABASE}",
        "--no-owner",
        "--no-privileges",
        "--exit-on-error",
        "--single-transaction",
        str(file),
    )


def _run(server: EmbeddedPostgres, program: str, *options: str) -> None:
    ended = subprocess.run(  # noqa: S603
        [str(wheel_bin() / program), *options],
        env=server.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        reason = Outcome(ended.returncode, ended.stdout).reason
        raise EmbeddedPostgresError(f"{program} failed: {reason}.")
