"""The real authorization server that the tests of this directory share, because it takes long to start."""

from collections.abc import Iterator

import pytest

from testing.processes.grant_server import GrantServer, grant_server


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrantServer]:
    with grant_server(tmp_path_factory.mktemp("grants")) as running:
        yield running


@pytest.fixture
def authority(_running: GrantServer) -> GrantServer:
    """A real authorization server whose refresh tokens rotate, without the tokens and requests of earlier tests."""
    _running.control(rotates=True, holds=False, revoke="all")
    _running.log.write_text("")
    return _running
