"""The project's own Django app: nothing but what must be right before any other may start."""

import sys
from pathlib import Path

from django.apps import AppConfig
from django.core import checks as django_checks

from pipedai import checks

_PROGRAMS = {"manage.py", "django-admin"}
_HELP = {"-h", "--help"}
_TELLING = {"help", "version", "--version"} | _HELP


class PipedaiConfig(AppConfig):
    """Registers the production checks; a production process that fails them does not start."""

    name = "pipedai"

    def ready(self) -> None:
        """Called by Django once in each process, before it serves or runs anything."""
        django_checks.register(
            checks.check_production_settings, django_checks.Tags.security, deploy=True
        )
        if not _only_tells(sys.argv):
            checks.refuse_unsafe_production()


def _only_tells(argv: list[str]) -> bool:
    """Whether this is a command that asks for help or for these very checks, whatever is set."""
    program, *arguments = argv
    if Path(program).name not in _PROGRAMS:
        return False
    if not arguments or arguments[0] in _TELLING or _HELP & set(arguments):
        return True
    return arguments[0] == "check" and "--deploy" in arguments
