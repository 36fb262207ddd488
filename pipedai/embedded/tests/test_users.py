"""A server that root starts runs as another user, and any other server as the user who starts it."""

import contextlib
import os
import pwd
import shutil
from pathlib import Path

import psutil
import pytest

from pipedai.embedded import cluster
from pipedai.embedded.cluster import User
from pipedai.embedded.server import EmbeddedPostgres
from pipedai.embedded.tests.processes import START, ask, interpreter_for, python

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has a choice of users"),
]

SOMEBODY = User(12345, 12345)


def user_of(server: EmbeddedPostgres) -> int:
    return psutil.Process(server.status().pid).uids().effective


@pytest.fixture
def no_postgres_account(monkeypatch):
    """Hides the `postgres` account, as on a machine where PostgreSQL was never installed."""
    known = pwd.getpwnam

    def getpwnam(name):
        if name == "postgres":
            raise KeyError(name)
        return known(name)

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)


def test_roots_server_runs_as_postgres_where_there_is_such_an_account(server):
    try:
        account = pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("no postgres account here")
    server.ensure_running()
    assert user_of(server) == account.pw_uid


@pytest.mark.usefixtures("no_postgres_account")
def test_without_one_it_runs_as_bin_which_no_other_process_uses(server):
    server.ensure_running()
    uid = pwd.getpwnam("bin").pw_uid
    assert user_of(server) == uid
    cluster = server.layout.cluster
    assert {path.lstat().st_uid for path in (cluster, *cluster.rglob("*"))} == {uid}
    assert ask(server, "SELECT 1") == 1
    assert server.stop() is True


def test_a_postgres_account_that_comes_later_does_not_take_over(made_server):
    uid = pwd.getpwnam("bin").pw_uid
    cluster = made_server.layout.cluster
    for path in (cluster, *cluster.rglob("*")):
        os.chown(path, uid, uid)
    made_server.ensure_running()
    assert user_of(made_server) == uid


def test_programs_in_a_closed_home_are_copied_to_where_the_server_can_run_them(server, monkeypatch):
    home = server.layout.data_dir.parent / "home"
    package = cluster.wheel_bin().parent.parent
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(name), home / name)
    home.chmod(0o700)
    monkeypatch.setattr(cluster, "wheel_bin", lambda: home / package.name / "pginstall" / "bin")
    server.ensure_running()
    ran = Path(psutil.Process(server.status().pid).exe())
    assert ran.is_relative_to(server.layout.data_dir)
    assert ran.stat().st_uid == 0
    assert ran.stat().st_mode & 0o022 == 0
    server.stop()
    server.ensure_running()
    assert len(list(server.layout.data_dir.glob("postgres-[0-9]*"))) == 1


@pytest.fixture
def interpreter():
    found = interpreter_for(SOMEBODY)
    if found is None:
        pytest.skip("no Python here that an unprivileged user can run")
    return found


def test_an_unprivileged_user_starts_uses_and_stops_a_server(data_dir, interpreter):
    data_dir.mkdir(mode=0o700)
    # initdb needs a user with an account.
    account = pwd.getpwnam("nobody")
    os.chown(data_dir, account.pw_uid, account.pw_gid)
    whole_life = START + (
        "import psycopg\n"
        "assert psycopg.connect(server.url()).execute('SELECT 7').fetchone() == (7,)\n"
        "assert server.layout.socket_dir.parent == Path('/tmp')\n"
        "assert server.layout.cluster.stat().st_uid != 0\n"
        "assert server.stop() and not server.stop()\n"
    )
    process = python(
        whole_life, data_dir / "mine", interpreter=interpreter,
        user=account.pw_uid, group=account.pw_gid, extra_groups=(),
    )  # fmt: skip
    said, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "")
    assert said.strip().isdigit()


def test_an_unprivileged_user_is_told_where_it_may_not_write(data_dir, interpreter):
    data_dir.mkdir(mode=0o755)
    for path, sentence in (
        (data_dir / "new", f"Cannot make {data_dir / 'new'}: Permission denied."),
        (data_dir, f"{data_dir} belongs to uid 0 and must belong to uid 12345"),
    ):
        process = python(START, path, interpreter=interpreter,
                         user=SOMEBODY.uid, group=SOMEBODY.gid, extra_groups=())  # fmt: skip
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == 1
        assert complaints.startswith(sentence)


def test_a_user_without_an_account_is_told_so(data_dir, interpreter):
    with contextlib.suppress(KeyError):
        pwd.getpwuid(SOMEBODY.uid)
        pytest.skip("somebody has this number")
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, SOMEBODY.uid, SOMEBODY.gid)
    process = python(START, data_dir, interpreter=interpreter,
                     user=SOMEBODY.uid, group=SOMEBODY.gid, extra_groups=())  # fmt: skip
    _, complaints = process.communicate(timeout=60)
    assert "could not look up effective user ID 12345" in complaints
