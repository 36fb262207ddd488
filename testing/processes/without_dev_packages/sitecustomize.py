"""Hides from our own programs what is installed for the tests alone. Python runs this when a test's child starts.

Libraries of the service import these packages if they find any: Django REST framework does with requests and Pygments,
structlog with rich, httpx with click, Sentry with mcp, Starlette and Flask. In production they find
none, and start in three quarters of the time. Only tracing brings requests along (requirements-otel.txt), so a process
that traces finds it.
"""

import os
import sys

_HIDDEN = ["rich", "jinja2", "click", "pygments", "mcp", "starlette", "flask"]
if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
    _HIDDEN.append("requests")
# How the words begin or end that name our programs. Modules of bench but the first one use what the tests use.
_BEGINNINGS = ("manage.py", "pipedai", "bin.")
_ENDS = (
    "warm_workers.py",
    "broken_worker.py",
    "plain_worker.py",
    "pipedai-worker",
    "gunicorn",
    "bench",
    "warm_start",
)

_words = list(getattr(sys, "orig_argv", ()))[1:]
while _words and _words[0] == "-W":
    del _words[:2]

if any(word.startswith(_BEGINNINGS) or word.endswith(_ENDS) for word in _words[:4]):
    sys.modules.update(dict.fromkeys(_HIDDEN))  # type: ignore[arg-type]  # None stands for a package that is not there
