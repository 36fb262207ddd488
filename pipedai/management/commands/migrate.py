"""`manage.py migrate` is Django's, and makes the embedded database if there is none yet, unless it only looks."""

from typing import Any

from django.core.management.commands import migrate

from pipedai.embedded.borrowing import make_database


class Command(migrate.Command):
    def execute(self, *args: Any, **options: Any) -> str | None:
        # Django's checks connect to the database before `handle` is called.
        if not (options["check_unapplied"] or options["plan"]):
            make_database()
        return super().execute(*args, **options)
