"""The rules for how processes run: without debugging aids, and with all protections on.

Each function returns None if the settings keep its rule, else a sentence on the problem.
"""

import os
import sys

from django.conf import settings

from pipedai.embedded import tuning


def debug() -> str | None:
    """DEBUG must be off, because its error pages show the values of variables."""
    if settings.DEBUG:
        return "DEBUG shows secrets in error pages: unset it or set it to false."
    return None


def throttles() -> str | None:
    """Throttles must be on, so that nobody can guess passwords without limit."""
    if not settings.THROTTLES_ENABLED:
        return "THROTTLES_ENABLED is off and lets passwords be guessed: unset it or set it to true."
    return None


def durability() -> str | None:
    """PostgreSQL must keep committed data after a crash."""
    if tuning.fast_unsafe():
        return "PIPEDAI_PG_FAST_UNSAFE loses data when the machine crashes: unset it."
    return None


def python_debug() -> str | None:
    """Python's asyncio debug mode must be off, because it logs calls together with their values."""
    for name in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE"):
        if os.environ.get(name):
            return f"{name} logs values that the program holds: unset it."
    if sys.flags.dev_mode:
        return "Python's -X dev logs values that the program holds: leave it out."
    return None
