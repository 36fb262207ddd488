"""Starts other Python processes for the tests, and waits for conditions."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from pipedai.embedded.cluster import User, run
from pipedai.embedded.server import EmbeddedPostgres

PROJECT = Path(__file__).parents[3]
# The directories of this process's packages, for an interpreter outside the virtual environment.
PACKAGES = [entry for entry in sys.path if entry.endswith("site-packages")]

START = """
import sys
from pathlib import Path
from pipedai.embedded.cluster import EmbeddedPostgresError
from pipedai.embedded.server import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
try:
    server.ensure_running()
except EmbeddedPostgresError as error:
    sys.exit(str(error))
print(server.status().pid)
"""


def python(
    code: str, *arguments: object, interpreter: str = sys.executable, **options: Any
) -> subprocess.Popen[str]:
    """Start a Python process that can import the project."""
    return subprocess.Popen(
        [interpreter, "-B", "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), *PACKAGES])},
        cwd="/",
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def interpreter_for(user: User) -> str | None:
    """Return a Python of our version that this user can run, or None if there is none or our code is out of reach."""
    needed = (PROJECT / "pipedai" / "__init__.py", *map(Path, PACKAGES))
    if not all(_may(user, "-r", path) for path in needed):
        return None
    for found in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        if _may(user, "-x", Path(found).resolve()):
            return found
    return None


def _may(user: User, test: str, path: Path) -> bool:
    return run("/bin/sh", "-c", f'test {test} "$1"', "sh", path, user=user).code == 0


def eventually(what: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until `what` returns a true value, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)
    return answer


def ask(server: EmbeddedPostgres, statement: str, role: str = "pipedai") -> Any:
    """Return the first column of a statement's first row, or None if there is no row."""
    with psycopg.connect(**server.connection_params(role=role)) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None
