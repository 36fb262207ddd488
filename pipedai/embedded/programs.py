"""Runs other programs as the user they belong to, cut off from our terminal and environment."""

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipedai.embedded.errors import EmbeddedPostgresError, explaining

# Our own environment holds keys, and a server that outlives us must not carry them along.
# UTC and C: neither its log nor its sort order may depend on who happened to start it.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

_WORST_FIRST = (
    re.compile(r"(?:PANIC|FATAL): +(.+)"),
    re.compile(r"ERROR: +(.+)"),
    re.compile(r"^\w+: error: (.+)", re.MULTILINE),
)


@dataclass(frozen=True)
class User:
    """A user of the operating system, with or without an account of that number."""

    uid: int
    gid: int

    @property
    def is_us(self) -> bool:
        """Whether this process runs as that user already."""
        return self.uid == os.geteuid()

    def __str__(self) -> str:
        return f"uid {self.uid}"


@dataclass(frozen=True)
class Outcome:
    """How a program ended: its exit code, and what it wrote (output and errors)."""

    code: int
    text: str

    @property
    def complaint(self) -> str | None:
        """The line that says best what went wrong, without its full stop; None if none does."""
        if "No space left on device" in self.text or "Check free disk space" in self.text:
            return "the disk is full"
        for pattern in _WORST_FIRST:
            if found := pattern.search(self.text):
                return found[1].strip().rstrip(".")
        return None

    @property
    def reason(self) -> str:
        """The complaint, else the last line, else the exit code."""
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
    """Run a program to its end as `user`, in a session of its own: no Ctrl-C of ours reaches it.

    `inherit` are open files that the program, and whatever it leaves running, keep open.
    `timeout` is in seconds.
    """
    name = Path(command[0]).name
    # A server left running would hold a pipe open, and we would wait for its end: hence a file.
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
