"""Moves the application's database out of an embedded server and into another, through one file."""

import os
import secrets
import subprocess
from pathlib import Path

import psycopg

from pipedai.embedded.errors import EmbeddedPostgresError, explaining
from pipedai.embedded.programs import ENVIRONMENT, Outcome, bin_dir
from pipedai.embedded.server import EmbeddedPostgres


def client_environment(server: EmbeddedPostgres, **where: str) -> dict[str, str]:
    """The environment in which libpq's programs find the server; `where` as for connection_params."""
    params = server.connection_params(**where)
    return {
        **ENVIRONMENT,
        "PGHOST": params["host"],
        "PGPORT": params["port"],
        "PGUSER": params["user"],
        "PGPASSWORD": params["password"],
        "PGDATABASE": params["dbname"],
        "PGREQUIREAUTH": params["require_auth"],
    }


def dump(server: EmbeddedPostgres, file: Path) -> None:
    """Write the database to `file` (pg_dump's custom format, readable by its owner alone)."""
    if file.exists():
        raise EmbeddedPostgresError(f"{file} exists already: choose another name.")
    server.ensure_running()
    draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    try:
        with explaining(f"write {file}"):
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _run(server, "pg_dump", "--format=custom", f"--file={draft}")
        with explaining(f"write {file}"):
            draft.rename(file)
    finally:
        draft.unlink(missing_ok=True)


def restore(server: EmbeddedPostgres, file: Path) -> None:
    """Read `file` into the database, which must hold no tables; all of it or nothing."""
    with explaining(f"read {file}"), file.open("rb"):
        pass
    server.ensure_running()
    with psycopg.connect(**server.connection_params()) as connection:
        [tables] = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchone() or [0]
    if tables:
        raise EmbeddedPostgresError(
            f"The database holds {tables} tables already, and a dump is restored into an empty one only:"
            f" run `manage.py pg stop`, move {server.layout.cluster} away, and try again."
        )
    _run(
        server,
        "pg_restore",
        "--dbname=",
        "--no-owner",
        "--no-privileges",
        "--exit-on-error",
        "--single-transaction",
        str(file),
    )


def _run(server: EmbeddedPostgres, program: str, *options: str) -> None:
    ended = subprocess.run(  # noqa: S603
        [str(bin_dir() / program), *options],
        env=client_environment(server),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        reason = Outcome(ended.returncode, ended.stdout).reason
        raise EmbeddedPostgresError(f"{program} failed: {reason}.")
