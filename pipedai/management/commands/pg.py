"""`manage.py pg`: starts, stops, shows and moves the embedded PostgreSQL server."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from pipedai.embedded import passwords, transfer
from pipedai.embedded.errors import EmbeddedPostgresError
from pipedai.embedded.programs import bin_dir
from pipedai.embedded.server import EmbeddedPostgres

_NOTHING_TO_MANAGE = "DATABASE_URL is set, so there is no embedded PostgreSQL to manage."
# As `pg_ctl status` and the LSB's init scripts say it.
_NOT_RUNNING = 3


class Command(BaseCommand):
    help = (
        "Manage the embedded PostgreSQL server, which is used when DATABASE_URL is not set."
        " It lives in PIPEDAI_DATA_DIR and is started by whatever first needs the database."
    )
    requires_system_checks = ()
    stealth_options = ("action",)

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

        def add(name: str, text: str) -> argparse.ArgumentParser:
            return actions.add_parser(name, help=text, description=text)

        add("start", "Start the server unless it runs; makes the database the first time.")
        add("stop", "Stop the server, ending the sessions that are open.")
        add(
            "status", "Say whether the server runs and where it is; exit code 3 if it does not run."
        )
        add(
            "url",
            "Print a postgres:// URL, password included, for other programs; starts the server.",
        )
        psql = add("psql", "Open PostgreSQL's shell on the database; starts the server.")
        psql.add_argument("--superuser", action="store_true", help="as PostgreSQL's superuser")
        psql.add_argument("arguments", nargs="*", help="psql's own, after --", metavar="ARGUMENT")
        dump = add("dump", "Write the database to a new file, in pg_dump's custom format.")
        dump.add_argument("file", type=Path, metavar="FILE")
        restore = add(
            "restore", "Read a file made by `pg dump` into the database, which must be empty."
        )
        restore.add_argument("file", type=Path, metavar="FILE")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        run: Callable[[EmbeddedPostgres, dict[str, Any]], None] = getattr(self, action)
        database = settings.DATABASES["default"]
        if database["ENGINE"] != "pipedai.embedded":
            self.without_a_server(action)
            return
        try:
            run(EmbeddedPostgres(database["DATA_DIR"]), options)
        except EmbeddedPostgresError as error:
            raise CommandError(str(error)) from error

    def without_a_server(self, action: str) -> None:
        """Answer when the database is somebody else's to manage; what was not done must not look done."""
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
        status = server.status()
        if not status.running:
            raise CommandError(
                f"PostgreSQL is not running in {status.cluster}.", returncode=_NOT_RUNNING
            )
        self.stdout.write(
            f"PostgreSQL is running (pid {status.pid}) in {status.cluster},"
            f" listening in {status.socket_dir}, logging to {status.log}."
        )

    def url(self, server: EmbeddedPostgres, options: dict[str, Any]) -> None:
        server.ensure_running()
        self.stdout.write(server.url())

    def psql(self, server: EmbeddedPostgres, options: dict[str, Any]) -> None:
        server.ensure_running()
        role = passwords.SUPERUSER if options["superuser"] else passwords.APPLICATION
        environment = {**os.environ, **transfer.client_environment(server, role=role)}
        psql = str(bin_dir() / "psql")
        os.execve(psql, [psql, *options["arguments"]], environment)  # noqa: S606

    def dump(self, server: EmbeddedPostgres, options: dict[str, Any]) -> None:
        transfer.dump(server, options["file"])
        self.stdout.write(f"The database is in {options['file']}.")

    def restore(self, server: EmbeddedPostgres, options: dict[str, Any]) -> None:
        transfer.restore(server, options["file"])
        self.stdout.write(f"The database was restored from {options['file']}.")
