"""Runs the scripts' modules as processes, and looks for what they leave behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
MARK = "PIPEDAI_TEST_MARK"


@contextlib.contextmanager
def started(*arguments: str, mark: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """`python ARGUMENTS`, killed in the end; it and what it starts carry `mark`.

    It takes SIGINT, which a process in the background may have been told to ignore.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, MARK: mark, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: "subprocess.Popen[str]", words: str) -> str:
    """What it says, up to the line with these words."""
    assert process.stdout is not None
    said: str = ""
    for line in process.stdout:
        said += str(line)
        if words in line:
            return said
    raise AssertionError(f"it never said {words!r}, but: {said}")


def alive(mark: str) -> list[str]:
    """The command lines of the processes that carry `mark`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != "zombie":
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def eventually(condition: Callable[[], bool], *, seconds: float = 30) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
