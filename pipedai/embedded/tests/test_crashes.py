"""After any process was killed, and whatever files it left behind, the next caller gets a working server."""

import fcntl
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from pipedai.embedded import server as server_module
from pipedai.embedded.cluster import EmbeddedPostgresError, server_pids
from pipedai.embedded.server import EmbeddedPostgres
from pipedai.embedded.tests.conftest import fresh_data_dir
from pipedai.embedded.tests.processes import START, ask, eventually, python

pytestmark = pytest.mark.long


def kill_server(server):
    """Kill the server's main process. Its children notice this and end by themselves."""
    os.kill(server.status().pid, signal.SIGKILL)


@pytest.fixture
def bystander():
    """Start another program. The file of a dead server may hold its pid."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        assert process.poll() is None, "the bystander was hurt"
        process.kill()


def test_a_killed_server_comes_back_with_what_was_committed(made_server):
    made_server = EmbeddedPostgres(made_server.layout.data_dir)
    made_server.ensure_running()
    ask(made_server, "CREATE TABLE kept AS SELECT 7 AS number")
    before = made_server.status().pid
    kill_server(made_server)
    made_server.ensure_running()
    assert made_server.status().pid != before
    assert ask(made_server, "SELECT number FROM kept") == 7


def test_a_pid_that_another_program_has_by_now_is_left_alone(made_server, bystander):
    made_server.ensure_running()
    written = made_server.layout.pid_file.read_text()
    kill_server(made_server)
    lines = written.splitlines(keepends=True)
    made_server.layout.pid_file.write_text("".join([f"{bystander.pid}\n", *lines[1:]]))
    assert made_server.stop() in {True, False}
    assert bystander.poll() is None
    made_server.ensure_running()
    assert made_server.status().pid not in {bystander.pid, None}


def test_a_pid_that_another_postgres_has_by_now_is_left_alone(made_server, running_server):
    made_server.ensure_running()
    made_server.stop()
    other = running_server.status().pid
    made_server.layout.pid_file.write_text(f"{other}\n{made_server.layout.cluster}\n")
    assert made_server.stop() is False
    made_server.ensure_running()
    assert made_server.status().pid != other
    assert running_server.status().pid == other


def test_a_partial_pid_file_does_not_stop_the_next_start(made_server):
    for left in ("", "12", "garbage\n", "-1\n", "99999999999999999999\n"):
        made_server.layout.pid_file.write_text(left)
        assert not made_server.status().running
        made_server.ensure_running()
        assert ask(made_server, "SELECT 1") == 1
        made_server.stop()


def test_a_socket_and_its_lock_from_before_a_reboot_do_not_stop_the_next_start(
    made_server, bystander
):
    made_server.ensure_running()
    kill_server(made_server)
    Path(f"{made_server.layout.socket}.lock").write_text(f"{bystander.pid}\n")
    made_server.ensure_running()
    assert ask(made_server, "SELECT 1") == 1


MAKING = {
    "before the cluster": lambda layout: layout.start_lock.exists(),
    "in initdb": lambda layout: list(layout.data_dir.glob("postgres.new/base/1")),
    "after initdb": lambda layout: list(layout.data_dir.glob("postgres.new/pg_hba.conf")),
    "when the cluster is there": lambda layout: layout.cluster.exists(),
}
STARTING = {
    "when the server begins": lambda layout: layout.pid_file.exists(),
    "when the socket is there": lambda layout: layout.socket.exists(),
}


@pytest.mark.parametrize("stage", MAKING)
def test_a_starter_killed_at_any_stage_leaves_nothing_half_made(server, stage):
    kill_starter_and_start(server, MAKING[stage])


@pytest.mark.parametrize("stage", STARTING)
def test_nor_does_one_that_has_a_cluster(made_server, stage):
    kill_starter_and_start(made_server, STARTING[stage])


def kill_starter_and_start(server, is_at_stage):
    layout = server.layout
    starter = python(START, layout.data_dir)
    try:
        eventually(lambda: is_at_stage(layout))
    finally:
        starter.kill()
        starter.communicate(timeout=60)
    server.ensure_running()
    assert ask(server, "SELECT current_user::text") == "pipedai"
    assert not list(layout.data_dir.glob("*.new*"))


def test_a_server_in_another_container_is_not_joined_by_a_second(made_server, monkeypatch):
    """We can't see the other server's processes, but we see its lock in the shared directory."""
    made_server.ensure_running()
    made_server.stop()
    monkeypatch.setattr(server_module, "_SECONDS", 0.2)
    with made_server.layout.run_lock.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made_server.layout.pid_file.write_text(f"{os.getpid()}\n{made_server.layout.cluster}\n")
        for action in (made_server.ensure_running, made_server.stop):
            with pytest.raises(EmbeddedPostgresError, match="in another container"):
                action()
    monkeypatch.undo()
    made_server.ensure_running()
    assert ask(made_server, "SELECT 1") == 1


def test_a_server_whose_cluster_was_removed_counts_until_it_is_gone(data_dir):
    """The old server notices within a minute, and then removes its socket. A new server must wait for that."""
    program, cluster = data_dir / "postgres", data_dir / "cluster"
    cluster.mkdir(parents=True)
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with subprocess.Popen([program, "600"], cwd=cluster) as stand_in:
        eventually(lambda: server_pids(cluster) == {stand_in.pid})
        cluster.rmdir()
        assert server_pids(cluster) == {stand_in.pid}
        cluster.mkdir()
        assert server_pids(cluster) == {stand_in.pid}
        stand_in.kill()
        stand_in.wait()
        assert server_pids(cluster) == set()


def test_two_data_directories_are_two_servers(made_server, running_server):
    made_server.ensure_running()
    with fresh_data_dir() as third:
        assert not EmbeddedPostgres(third).status().running
    assert made_server.status().pid != running_server.status().pid
    assert made_server.layout.socket_dir != running_server.layout.socket_dir
