"""The project's own Django app. It checks the settings before any other app starts."""

import sys
from pathlib import Path

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules

from pipedai import checks

_PROGRAMS = {"manage.py", "django-admin"}
_HELP = {"-h", "--help"}
_TELLING = {"help", "version", "--version", "check_deploy"} | _HELP


class PipedaiConfig(AppConfig):
    """Lets all apps register what they add to the service. A process with unfit settings does not start."""

    name = "pipedai"

    def ready(self) -> None:
        """Checks the settings, and imports the module `ready` of each app, in the order of INSTALLED_APPS."""
        if not _only_tells(sys.argv):
            checks.refuse_unfit_settings()
        autodiscover_modules("ready")


def _only_tells(argv: list[str]) -> bool:
    """Whether a command only shows help or checks the settings. Such a command must start even with unfit settings."""
    program, *arguments = argv
    if Path(program).name not in _PROGRAMS:
        return False
    if not arguments or arguments[0] in _TELLING or _HELP & set(arguments):
        return True
    return arguments[0] == "check" and "--deploy" in arguments
