"""`manage.py pg` starts, stops and shows the embedded PostgreSQL server, and writes its database to a file and back."""

import argparse
import os
import secrets
import subprocess
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from pipedai.embedded import passwords
from pipedai.embedded.borrowing import borrow
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
    borrow(server)
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
    borrow(server, make=True)
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


_NOTHING_TO_MANAGE = "DATABASE_URL is set, so there is no embedded PostgreSQL to manage."
# The exit code of `pg_ctl status` for a server that does not run.
_NOT_RUNNING = 3


class Command(BaseCommand):
    help = (
        "Manage the embedded PostgreSQL server, which is in use unless DATABASE_URL is set."
        " It lives in PIPEDAI_DATA_DIR, and whatever needs the database starts it. A command that"
        " has started it stops it at its end, except start, url and psql."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

        def add(action: str, text: str) -> argparse.ArgumentParser:
            return actions.add_parser(action, help=text, description=text)

        add("start", "Start the server unless it runs, having made its database the first time.")
        add("stop", "Stop the server and the sessions that are open; stop the service before.")
        add("status", "Say whether the server runs, and where; exit with 3 if it does not.")
        add("url", "Print a postgres:// URL, password included; start the server if need be.")
        psql = add("psql", "Open PostgreSQL's shell on the database; start the server if need be.")
        psql.add_argument("--superuser", action="store_true", help="as PostgreSQL's superuser")
        psql.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="for psql; after --")
        dump = add("dump", "Write the database to a new file, in pg_dump's custom format.")
        dump.add_argument("file", type=Path, metavar="FILE")
        restore = add("restore", "Read a file of `pg dump` into the database, while it is empty.")
        restore.add_argument("file", type=Path, metavar="FILE")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        database = settings.DATABASES["default"]
        if database["ENGINE"] != "pipedai.embedded":
            self.answer_without_server(action)
            return
        try:
            getattr(self, action)(EmbeddedPostgres(database["DATA_DIR"]), options)
        except EmbeddedPostgresError as error:
            raise CommandError(str(error)) from error

    def answer_without_server(self, action: str) -> None:
        """Answers if DATABASE_URL names a server that is not ours. `url` prints it; start, stop and status say that
        there is nothing to do. Any other action is an error.
        """
        if action == "url":
            self.stdout.write(settings.DATABASE_URL)
        elif action in {"start", "stop", "status"}:
            self.stdout.write(_NOTHING_TO_MANAGE)
        else:
            raise CommandError(_NOTHING_TO_MANAGE)

    def start(self, server: EmbeddedPostgres, options: dict[str, Any]) -> None:
        server.ensure_running()
        self.status(server, options)

    def stop(self, server: EmbeddedPostgres, options: dict[str, Any]) -> None:
        self.stdout.write("PostgreSQL stopped." if server.stop() else "PostgreSQL was not running.")

    def status(self, server: EmbeddedPostgres, options: dict[str, Any]) -> None:
        status, layout = server.status(), server.layout
        if not status.running:
            sentence = f"PostgreSQL is not running in {layout.cluster}."
            raise CommandError(sentence, returncode=_NOT_RUNNING)
        self.stdout.write(
            f"PostgreSQL is running (pid {status.pid}) in {layout.cluster},"
            f" listening in {layout.socket_dir}, logging to {layout.log}."
        )

    def url(self, server: EmbeddedPostgres, options: dict[str, Any]) -> None:
        self._start_for_others(server)
        self.stdout.write(server.url())

    def psql(self, server: EmbeddedPostgres, options: dict[str, Any]) -> None:
        self._start_for_others(server)
        role = passwords.SUPERUSER if options["superuser"] else passwords.APPLICATION
        # psql gets the caller's environment variables, for the terminal, locale and pager, except PG* variables,
        # because these may name another server.
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        command = [str(wheel_bin() / "psql"), *options["arguments"]]
        os.execve(command[0], command, server.environment(role=role) | ours)  # noqa: S606

    def _start_for_others(self, server: EmbeddedPostgres) -> None:
        if server.ensure_running(make=False):
            self.stderr.write("PostgreSQL runs on afterwards: `manage.py pg stop` stops it.")

    def dump(self, server: EmbeddedPostgres, options: dict[str, Any]) -> None:
        dump(server, options["file"])
        self.stdout.write(f"The database is in {options['file']}.")

    def restore(self, server: EmbeddedPostgres, options: dict[str, Any]) -> None:
        restore(server, options["file"])
        self.stdout.write(f"The database is that of {options['file']}; now run release.")
