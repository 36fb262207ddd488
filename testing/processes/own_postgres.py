"""Runs a database server for some tests alone, which may stop it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipedai.embedded.server import EmbeddedPostgres
from pipedai.env import BASE_DIR


@contextmanager
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """Starts an embedded server in a directory of its own. At the end it stops the server and removes the directory."""
    # We don't use pytest's own directory, because the server's user could not reach it.
    folder = Path(tempfile.mkdtemp(prefix="pipedai-"))
    folder.chmod(0o755)
    postgres = EmbeddedPostgres(folder)
    postgres.ensure_running()
    yield postgres
    postgres.stop()
    shutil.rmtree(folder)


def migrate(postgres: EmbeddedPostgres) -> None:
    """Makes the schema in the server's database."""
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v0"],
        cwd=BASE_DIR,
        env={**os.environ, "DATABASE_URL": postgres.url()},
        check=True,
    )
