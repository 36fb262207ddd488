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
    # With Python's default of 700, hundreds of garbage collections would take a seventh of the start's CPU time, and
    # find nothing, because imports make no garbage.
    gc.set_threshold(50_000)
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
