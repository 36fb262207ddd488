"""Runs `pipedai`, the command line, in the test's own process, and returns what a shell would see."""

import contextlib
import io
import os
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from pipedai_cli.main import main


class Ended(NamedTuple):
    """The exit code of a command, and what it wrote."""

    code: int
    out: str
    err: str


def pipedai(*args: str, home: Path, url: str = "", key: str = "", **variables: str) -> Ended:
    """Run a command in the folder `home`, which is also the home directory, with this key, if there is one."""
    given = {"PIPEDAI_URL": url, "PIPEDAI_KEY": key, **variables}
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        **{name: value for name, value in given.items() if value},
    }
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        patch.dict(os.environ, environment, clear=True),
        contextlib.chdir(home),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main(list(args))
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())
