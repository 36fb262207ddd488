#!/usr/bin/env python
"""Django's command line for the PipedAI service."""

import os
import sys
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line


def main() -> None:
    """Run the command of the command line. A setting that is unfit ends it with one sentence."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pipedai.settings")
    # The worker program is a package of its own that the service only ships (see docs/architecture.md).
    sys.path.append(str(Path(__file__).resolve().parent / "agent"))
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
