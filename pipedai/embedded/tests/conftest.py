"""Makes data directories for real servers. Each server is stopped and its directory removed at the test's end."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bin.suite import copy_cluster, new_data_dir
from pipedai.embedded.cluster import FASTER, EmbeddedPostgresError, Layout
from pipedai.embedded.server import EmbeddedPostgres


@contextlib.contextmanager
def fresh_data_dir() -> Iterator[Path]:
    # We don't use pytest's tmp_path, because the user of a server that root starts can't reach it.
    parent = new_data_dir()
    data_dir = parent / "data"
    try:
        yield data_dir
    finally:
        with contextlib.suppress(EmbeddedPostgresError):
            EmbeddedPostgres(data_dir).stop()
        shutil.rmtree(parent)
        shutil.rmtree(Layout(data_dir).socket_dir, ignore_errors=True)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with fresh_data_dir() as path:
        yield path


@pytest.fixture
def server(data_dir: Path) -> EmbeddedPostgres:
    """Return a server that has never been started. Its first start makes a cluster, which costs 0.5 s of CPU."""
    return EmbeddedPostgres(data_dir, faster=FASTER)


@pytest.fixture
def made_server(kept_cluster: Path, server: EmbeddedPostgres) -> EmbeddedPostgres:
    """Return a server that has a cluster already, as after it was stopped."""
    copy_cluster(kept_cluster, server.layout.data_dir)
    return server


@pytest.fixture(scope="module")
def running_server(kept_cluster: Path) -> Iterator[EmbeddedPostgres]:
    """Run one server for all tests of a module, which must neither stop it nor change its data."""
    with fresh_data_dir() as path:
        copy_cluster(kept_cluster, path)
        server = EmbeddedPostgres(path, faster=FASTER)
        server.ensure_running()
        yield server
