"""Runs the scripted model of the real claude's tests, as a person does who tries claude without paying."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bin import claude
from bin.ending import die_with_parent
from pipedai.env import BASE_DIR
from testing.processes.programs import lacking

_AGENT = BASE_DIR / "agent"


def real_claude() -> Path:
    """Return the path of the real CLI. If it is not installed, the test is skipped, and in CI it fails."""
    found = claude.cli()
    if found is None:
        lacking("The real claude is not installed here: run bin/setup --claude.")
    return found


@contextmanager
def scripted_model() -> Iterator[str]:
    """Serve the model for the time of the block, and return its URL, which is for `ANTHROPIC_BASE_URL`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.real.serve"],
        cwd=_AGENT,
        env={**os.environ, "PYTHONPATH": f"{BASE_DIR}{os.pathsep}{_AGENT}"},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(signal.SIGTERM),
    )
    with process:
        try:
            assert process.stdout is not None
            told = (re.search(r"ANTHROPIC_BASE_URL=(\S+)", line) for line in process.stdout)
            yield next(found[1] for found in told if found)
        finally:
            process.send_signal(signal.SIGTERM)
