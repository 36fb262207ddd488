#!/usr/bin/env python
"""Django's command line for the PipedAI service."""

import os
import sys
from pathlib import Path

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pipedai.settings")
    # The worker program is a package of its own that the service only ships (see docs/architecture.md).
    sys.path.append(str(Path(__file__).resolve().parent / "agent"))
    execute_from_command_line(sys.argv)
