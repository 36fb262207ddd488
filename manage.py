#!/usr/bin/env python
"""Django's command line for the PipedAI service."""

import gc
import os
import sys
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line


def main() -> None:
    """Run the command that the command line names. If a setting is invalid, end with one sentence about it."""
    # The collection of garbage is off until pipedai.apps turns it on, when Django has loaded all apps. Imports make no
    # garbage, and the search for it takes a seventh of a start's CPU time.
    gc.disable()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pipedai.settings")
    # The worker program is a package of its own in agent/. The service can import it only if that directory is on the
    # path.
    sys.path.append(str(Path(__file__).resolve().parent / "agent"))
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
