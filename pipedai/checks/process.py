"""The rules for how the processes run: without debugging aids, and without giving up what protects them."""

import os
import sys

from django.conf import settings

from pipedai.embedded import tuning


def debug() -> str | None:
    """No error page shows what the code held."""
    if settings.DEBUG:
        return "DEBUG shows secrets in error pages: unset it or set it to false."
    return None


def throttles() -> str | None:
    """Passwords can't be guessed at leisure."""
    if not settings.THROTTLES_ENABLED:
        return "THROTTLES_ENABLED is off and lets passwords be guessed: unset it or set it to true."
    return None


def durability() -> str | None:
    """What was committed is there after a crash."""
    if tuning.fast_unsafe():
        return "PIPEDAI_PG_FAST_UNSAFE loses data when the machine crashes: unset it."
    return None


def python_debug() -> str | None:
    """The event loop does not log what it calls, values and all."""
    for name in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE"):
        if os.environ.get(name):
            return f"{name} logs values that the program holds: unset it."
    if sys.flags.dev_mode:
        return "Python's -X dev logs values that the program holds: leave it out."
    return None
