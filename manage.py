#!/usr/bin/env python
"""Django's command line for the PipedAI service."""

import gc
import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import ManagementUtility
from django.db import OperationalError

from pipedai.embedded.cluster import EmbeddedPostgresError

# Django's commands that `manage.py help` does not list, because there is a better one here (bin/test, spectacular,
# create_staff, create_user, `pg dump`) or nothing for them to do. They can be called all the same.
_UNLISTED = (
    "changepassword", "compilemessages", "createcachetable", "createsuperuser", "diffsettings", "dumpdata",
    "findstatic", "flush", "generateschema", "inspectdb", "loaddata", "makemessages", "optimizemigration",
    "remove_stale_contenttypes", "runserver", "sendtestemail", "sqlflush", "sqlsequencereset", "squashmigrations",
    "startapp", "startproject", "test", "testserver",
)  # fmt: skip


class Manage(ManagementUtility):
    """Django's command line, whose help lists the commands that make sense here."""

    def main_help_text(self, commands_only: bool = False) -> str:
        sections = super().main_help_text(commands_only).split("\n\n")
        listed = [
            "\n".join(line for line in section.split("\n") if line.strip() not in _UNLISTED)
            for section in sections
        ]
        # A section of which only the app's name is left is left out.
        return "\n\n".join(text for text in listed if commands_only or "\n" in text or "'" in text)


def main() -> None:
    """Run the command that the command line names. If a setting is invalid, or the embedded database can't be used, end
    with one sentence about it.
    """
    # With Python's default of 700, hundreds of garbage collections would take a seventh of the start's CPU time, and
    # find nothing, because imports make no garbage.
    gc.set_threshold(50_000)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pipedai.settings")
    try:
        Manage(sys.argv).execute()
    except (ImproperlyConfigured, EmbeddedPostgresError) as error:
        sys.exit(str(error))
    except OperationalError as error:
        if isinstance(error.__cause__, EmbeddedPostgresError):
            sys.exit(str(error))
        raise


if __name__ == "__main__":
    main()
