"""`manage.py pg` starts, stops and shows the embedded PostgreSQL server, and writes its database to a file and back."""

import subprocess
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from pipedai.embedded.cluster import DATABASE, EmbeddedPostgresError, Outcome, explaining, wheel_bin
from pipedai.embedded.server import EmbeddedPostgres, of_settings

_NOTHING_TO_MANAGE = "DATABASE_URL is set, so there is no embedded PostgreSQL to manage."
_ACTIONS = {
    "start": "Start the server unless it runs, having made its database the first time.",
    "stop": "Stop the server and the sessions that are open; stop the service before.",
    "status": "Say whether the server runs, and where; exit with 3 if it does not.",
    "url": "Print a postgres:// URL, password included; start the server if need be.",
    "dump": "Write the database to a new file, in pg_dump's custom format.",
    "restore": "Read a file of `pg dump` into the database, while it is empty.",
}


class Command(BaseCommand):
    help = (
        "Manage the embedded PostgreSQL server, which is in use unless DATABASE_URL is set. It lives"
        " in PIPEDAI_DATA_DIR. Any process that needs the database starts it, and `stop` stops it."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        for action, text in _ACTIONS.items():
            added = actions.add_parser(action, help=text, description=text)
            if action in {"dump", "restore"}:
                added.add_argument("file", type=Path, metavar="FILE")

    def handle(self, *args: Any, action: str, file: Path | None = None, **options: Any) -> None:
        server = of_settings()
        if server is None:
            if file is not None:
                raise CommandError(_NOTHING_TO_MANAGE)
            self.stdout.write(settings.DATABASE_URL if action == "url" else _NOTHING_TO_MANAGE)
            return
        try:
            self.stdout.write(getattr(self, action)(server, *([file] if file else [])))
        except EmbeddedPostgresError as error:
            raise CommandError(str(error)) from error

    def start(self, server: EmbeddedPostgres) -> str:
        server.ensure_running()
        return self.status(server)

    def stop(self, server: EmbeddedPostgres) -> str:
        return "PostgreSQL stopped." if server.stop() else "PostgreSQL was not running."

    def status(self, server: EmbeddedPostgres) -> str:
        status, layout = server.status(), server.layout
        if not status.running:
            raise CommandError(f"PostgreSQL is not running in {layout.cluster}.", returncode=3)
        return (
            f"PostgreSQL is running (pid {status.pid}) in {layout.cluster},"
            f" listening in {layout.socket_dir}, logging to {layout.log}."
        )

    def url(self, server: EmbeddedPostgres) -> str:
        return server.url()

    def dump(self, server: EmbeddedPostgres, file: Path) -> str:
        """Write the database to a new file that only we can read, completely or not at all."""
        if file.exists():
            raise CommandError(f"{file} exists already: choose another name.")
        draft = file.with_name(f"{file.name}.unfinished")
        with explaining(f"write {file}"):
            draft.touch(mode=0o600)
            try:
                _run(server, "pg_dump", "--format=custom", f"--file={draft}")
                draft.rename(file)
            finally:
                draft.unlink(missing_ok=True)
        return f"The database is in {file}."

    def restore(self, server: EmbeddedPostgres, file: Path) -> str:
        """Fill the database, which must be empty, from a file that `dump` wrote, completely or not at all."""
        server.ensure_running()
        whole = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
        _run(server, "pg_restore", f"--dbname={DATABASE}", *whole, str(file))
        return f"The database is that of {file}; now run release."


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
