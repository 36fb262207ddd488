"""`manage.py migrate` is Django's, and makes a missing embedded database, except with `--check` or `--plan`."""

from typing import Any

from django.core.management.commands import migrate

from pipedai.embedded.server import of_settings


class Command(migrate.Command):
    def execute(self, *args: Any, **options: Any) -> str | None:
        # Django's checks connect to the database before `handle` is called.
        only_looks = options["check_unapplied"] or options["plan"]
        if not only_looks and (server := of_settings()):
            server.ensure_running()
        return super().execute(*args, **options)
