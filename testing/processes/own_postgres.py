"""Runs a database server for some tests alone, which may stop it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bin.suite import copy_cluster, new_data_dir
from pipedai.embedded.cluster import FASTER
from pipedai.embedded.server import EmbeddedPostgres


@contextmanager
def own_postgres(kept: Path) -> Iterator[EmbeddedPostgres]:
    """Starts an embedded server on a copy of a kept cluster. At the end it stops the server and removes the copy."""
    with _directory() as directory:
        copy_cluster(kept, directory)
        postgres = EmbeddedPostgres(directory, faster=FASTER)
        postgres.ensure_running()
        yield postgres
        postgres.stop()


@contextmanager
def _directory() -> Iterator[Path]:
    # This is no directory of pytest, because the server's user could not reach it.
    directory = new_data_dir()
    yield directory
    shutil.rmtree(directory)
