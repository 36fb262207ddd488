"""Runs the scripts' modules as processes, and finds processes that they leave behind."""

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
    """Runs `python ARGUMENTS`, and kills it at the end. It and all its children have `mark` in their environment.

    It handles SIGINT, even if the test process was started in the background with SIGINT ignored.
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
    """Returns the process's output up to the line with these words."""
    assert process.stdout is not None
    said: str = ""
    for line in process.stdout:
        said += str(line)
        if words in line:
            return said
    raise AssertionError(f"it never said {words!r}, but: {said}")


def alive(mark: str) -> list[str]:
    """Returns the command lines of the processes with `mark` in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != "zombie":
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def eventually(condition: Callable[[], bool], *, seconds: float = 30) -> bool:
    """Waits until the condition is true, and returns whether it became true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
