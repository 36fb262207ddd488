"""Runs a database server for some tests alone, which may stop it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bin.suite import new_data_dir
from pipedai.embedded.cluster import FASTER, Layout, only_one
from pipedai.embedded.server import EmbeddedPostgres
from pipedai.env import BASE_DIR


def kept_cluster(shared: Path) -> Path:
    """Returns a directory with a stopped server's cluster, which `manage.py release` has prepared, for `copy_cluster`.

    The first process of the suite that asks makes it in the directory `shared`, which all of them must share.
    """
    kept = shared / "kept-cluster"
    with only_one(shared / "kept-cluster.lock", seconds=180):
        if not kept.exists():
            with _directory() as directory:
                postgres = EmbeddedPostgres(directory, faster=FASTER)
                postgres.ensure_running()
                _release(postgres)
                postgres.stop()
                # The server's user can't reach the directories of pytest, so the cluster was made elsewhere.
                draft = shared / "kept-cluster.new"
                copy_cluster(directory, draft)
            draft.rename(kept)
    return kept


def copy_cluster(kept: Path, data_dir: Path) -> None:
    """Copies a kept cluster into a data directory, whose first server then need not make one."""
    Layout(data_dir).prepare_data_dir()
    layout = Layout(kept)
    # shutil would not keep the owners of the files.
    command = ["cp", "-a", str(layout.cluster), str(layout.passwords), str(data_dir)]
    subprocess.run(command, check=True)  # noqa: S603 - our own command


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


def _release(postgres: EmbeddedPostgres) -> None:
    subprocess.run(
        [sys.executable, "manage.py", "release", "-v0"],
        cwd=BASE_DIR,
        env={**os.environ, "DATABASE_URL": postgres.url()},
        check=True,
    )
