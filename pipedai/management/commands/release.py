"""`manage.py release` prepares the database for a new release, once, before its processes start."""

from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError

from pipedai.embedded.server import of_settings
from pipedai.logs import log_start
from pipedai.management.operator_command import OperatorCommand
from pipedai.sql import sqlstate
from pipedai.timeouts import (
    OutOfPatience,
    invalid_indexes,
    migrate_alone,
    session_without_timeouts,
    set_timeouts_of_role,
)

_PATIENCE_SECONDS = 600


class Command(OperatorCommand):
    help = (
        "Bring the database's schema up to date, while the release before serves on, and give its role"
        " the time-outs of web requests. Of several at"
        " once one works and the others wait for it, then find nothing to do. A table that is in"
        " use too long is left to its users and tried again, so that nobody queues up behind it."
    )
    examples = """examples:
  manage.py release                   waits up to ten minutes for other releases and for tables in use
  manage.py release --patience 60     waits a minute

Exits with 0 when all migrations are applied, else with 1 and one sentence that says why. It can be
run again at any time.
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--patience",
            type=float,
            default=_PATIENCE_SECONDS,
            metavar="SECONDS",
            help=f"how long to wait in all ({_PATIENCE_SECONDS})",
        )

    def handle(self, *args: Any, patience: float, verbosity: int, **options: Any) -> None:
        if verbosity:
            log_start("release")

        if server := of_settings():
            server.ensure_running()

        def migrate() -> None:
            call_command("migrate", interactive=False, verbosity=verbosity)
            set_timeouts_of_role()

        with session_without_timeouts():
            try:
                migrate_alone(migrate, patience=patience, say=self.stdout.write)
            except OutOfPatience as error:
                raise CommandError(str(error)) from None
            except DatabaseError as error:
                # Unfinished indexes can be listed only if the server sent the error. If the server is away, asking it
                # would fail too.
                if sqlstate(error) and (unfinished := invalid_indexes()):
                    raise CommandError(
                        f"A release was interrupted while it built {' and '.join(unfinished)}: run DROP"
                        " INDEX CONCURRENTLY for each in psql, and release again."
                    ) from error
                raise
