"""`manage.py makemigrations` is Django's, but needs no database."""

from typing import Any

from django.core.management.commands import makemigrations
from django.db import connections


class Command(makemigrations.Command):
    def handle(self, *app_labels: Any, **options: Any) -> None:
        """Writes the migrations that the models need.

        Django would first ask the database in which order its migrations were applied, and so start the embedded one.
        The new migrations do not depend on the answer, and Django does not ask a database of the engine `dummy`.
        """
        for connection in connections.all():
            connection.settings_dict["ENGINE"] = "django.db.backends.dummy"
        super().handle(*app_labels, **options)
