"""Runs other programs as a given user, without access to our terminal and our environment variables."""

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipedai.embedded.errors import EmbeddedPostgresError, explaining

# The only environment variables that programs get. Ours contain keys, which a server that runs longer than we do must
# not keep. The time zone and locale are fixed, so that the server's log and sort order don't depend on the user who
# started it.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

_WORST_FIRST = (
    re.compile(r"(?:PANIC|FATAL): +(.+)"),
    re.compile(r"ERROR: +(.+)"),
    re.compile(r"^\w+: error: (.+)", re.MULTILINE),
)


@dataclass(frozen=True)
class User:
    """A user of the operating system, by number. The number need not have an account."""

    uid: int
    gid: int

    @property
    def is_us(self) -> bool:
        """Whether this process runs as that user."""
        return self.uid == os.geteuid()

    def __str__(self) -> str:
        return f"uid {self.uid}"


@dataclass(frozen=True)
class Outcome:
    """How a program ended: its exit code, and the text that it wrote to its output and error output."""

    code: int
    text: str

    @property
    def complaint(self) -> str | None:
        """The line of the program's output that best explains its failure, without its full stop, or None."""
        if "No space left on device" in self.text or "Check free disk space" in self.text:
            return "the disk is full"
        for pattern in _WORST_FIRST:
            if found := pattern.search(self.text):
                return found[1].strip().rstrip(".")
        return None

    @property
    def reason(self) -> str:
        """Why the program failed: the line that explains it, else the output's last line, else the exit code."""
        if self.complaint is not None:
            return self.complaint
        lines = self.text.strip().splitlines()
        return lines[-1].strip().rstrip(".") if lines else f"it ended with code {self.code}"


def run(
    *command: str | Path,
    user: User,
    stdin: str = "",
    inherit: Sequence[int] = (),
    timeout: float = 120,
) -> Outcome:
    """Run a program to its end as `user`, in a session of its own, so that a Ctrl-C in our terminal does not reach it.

    `inherit` are open files that the program, and all processes that it leaves running, keep open. `timeout` is in
    seconds.
    """
    name = Path(command[0]).name
    # The program's output goes to a file and not to a pipe. A server that the program starts would keep a pipe open,
    # and we would wait until that server ends.
    with (
        explaining(f"run {name} as {user}"),
        tempfile.TemporaryFile("w+", errors="replace") as said,
    ):
        try:
            ended = subprocess.run(  # noqa: S603
                [str(word) for word in command],
                input=stdin,
                text=True,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=ENVIRONMENT,
                umask=0o077,
                pass_fds=inherit,
                start_new_session=True,
                timeout=timeout,
                check=False,
                user=None if user.is_us else user.uid,
                group=None if user.is_us else user.gid,
                extra_groups=None if user.is_us else (),
            )
        except subprocess.TimeoutExpired:
            raise EmbeddedPostgresError(f"{name} took more than {timeout:.0f} seconds.") from None
        said.seek(0)
        return Outcome(ended.returncode, said.read())
