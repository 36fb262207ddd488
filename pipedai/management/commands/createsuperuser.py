"""`manage.py createsuperuser` says which command makes staff here."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "There are no superusers here: `manage.py create_staff EMAIL` makes a staff user."
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        # The answer is the same with all options of Django's own command.
        super().run_from_argv(argv[:2])

    def handle(self, *args: Any, **options: Any) -> None:
        raise CommandError(self.help)
