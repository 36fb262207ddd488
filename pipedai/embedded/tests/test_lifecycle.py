"""A server is made, started, described and stopped, by one process or by many."""

import os
import signal
import subprocess
from pathlib import Path

import environ
import psutil
import psycopg
import pytest

from pipedai.embedded.cluster import wheel_bin
from pipedai.embedded.server import EmbeddedPostgres
from pipedai.embedded.tests.processes import START, ask, python

pytestmark = pytest.mark.long


def test_the_application_owns_its_database_and_is_no_superuser(running_server):
    assert ask(running_server, "SELECT current_user::text") == "pipedai"
    assert ask(running_server, "SELECT current_database()::text") == "pipedai"
    assert ask(
        running_server,
        "SELECT rolcreatedb AND NOT rolsuper FROM pg_roles WHERE rolname = current_user",
    )
    assert ask(
        running_server,
        "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = current_database()",
    ) == "pipedai"  # fmt: skip


def test_the_settings_are_ours(running_server):
    assert ask(running_server, "SHOW max_connections") == "200"
    assert ask(running_server, "SHOW server_encoding") == "UTF8"
    assert ask(running_server, "SHOW timezone") == "UTC"
    assert ask(running_server, "SELECT upper('é') || lower('Ä')") == "Éä"


def test_passwords_are_kept_as_scram_and_demanded(running_server):
    stored = ask(
        running_server,
        "SELECT bool_and(rolpassword LIKE 'SCRAM-SHA-256$%') FROM pg_authid WHERE rolcanlogin",
        role="postgres",
    )
    assert stored is True
    for role in ("pipedai", "postgres"):
        params = running_server.connection_params(role=role)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(**{**params, "password": "guess"})
        del params["password"]
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(**params)


def test_it_listens_on_a_unix_socket_only(running_server):
    main = psutil.Process(running_server.status().pid)
    assert main.net_connections("inet") == []
    assert main.net_connections("unix") != []


def test_only_its_user_may_enter_its_directories(running_server):
    layout = running_server.layout
    for directory in (layout.cluster, layout.socket_dir):
        assert directory.stat().st_mode & 0o077 == 0
    assert layout.passwords.stat().st_mode & 0o077 == 0
    assert layout.passwords.stat().st_uid == os.geteuid()
    assert len(str(layout.socket)) <= 107


def test_the_socket_directory_does_not_depend_on_tmpdir(running_server, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    again = EmbeddedPostgres(running_server.layout.data_dir)
    assert again.layout.socket_dir == running_server.layout.socket_dir


def test_a_data_directory_may_be_long_and_have_spaces_and_quotes(data_dir):
    server = EmbeddedPostgres(data_dir / ("long" * 40) / "it's here, é")
    server.ensure_running()
    assert ask(server, "SELECT 1") == 1
    server.stop()


def test_its_url_is_understood_by_libpq_and_django_environ(running_server):
    url = running_server.url()
    with psycopg.connect(url) as connection:
        assert connection.info.dbname == "pipedai"
    said = subprocess.check_output(
        [wheel_bin() / "psql", url, "-Atc", "SELECT current_user"], text=True
    )
    assert said == "pipedai\n"
    config = environ.Env.db_url_config(url)
    params = running_server.connection_params()
    assert (config["NAME"], config["USER"], config["PASSWORD"], config["OPTIONS"]) == (
        "pipedai",
        "pipedai",
        params["password"],
        {"host": params["host"]},
    )


def test_its_passwords_are_in_no_repr_and_no_command_line(running_server):
    secret = running_server.connection_params()["password"]
    assert secret not in repr(running_server) + repr(vars(running_server))
    for process in psutil.process_iter(["cmdline"]):
        assert secret not in " ".join(process.info["cmdline"] or [])


def test_it_stops_once_and_keeps_the_data(made_server):
    made_server.ensure_running()
    ask(made_server, "CREATE TABLE kept AS SELECT 7 AS number")
    assert made_server.stop() is True
    assert not made_server.status().running
    assert not made_server.layout.socket_dir.exists()
    assert made_server.stop() is False
    made_server.ensure_running()
    assert ask(made_server, "SELECT number FROM kept") == 7


def test_a_server_that_never_was_is_not_stopped_and_not_made(server):
    assert server.stop() is False
    assert server.status().running is False
    assert server.connection_params()["user"] == "pipedai"
    assert not server.layout.data_dir.exists()


def test_six_starters_at_once_make_one_server(server):
    starters = [python(START, server.layout.data_dir) for _ in range(6)]
    pids = {starter.communicate(timeout=60)[0].strip() for starter in starters}
    assert [starter.returncode for starter in starters] == [0] * 6
    assert pids == {str(server.status().pid)}


def test_a_starters_ctrl_c_and_end_leave_the_server_alone(made_server):
    starter = python(START + "sys.stdout.flush(); sys.stdin.read()", made_server.layout.data_dir,
                     start_new_session=True, stdin=subprocess.PIPE)  # fmt: skip
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    os.killpg(starter.pid, signal.SIGINT)
    starter.communicate(timeout=60)
    assert starter.returncode != 0
    assert made_server.status().pid == pid
    assert ask(made_server, "SELECT 1") == 1


def test_the_server_carries_nothing_of_our_environment(made_server, monkeypatch):
    monkeypatch.setenv("MASTER_KEYS", "planted-master-key")
    monkeypatch.setenv("PGPORT", "1234")
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=nonsense")
    made_server.ensure_running()
    environment = Path(f"/proc/{made_server.status().pid}/environ").read_text()
    assert "planted" not in environment
    assert "PGPORT" not in environment


def test_it_holds_no_open_file_of_its_starter(made_server):
    with (server_file := Path("/dev/null")).open() as ours:
        os.set_inheritable(ours.fileno(), True)
        made_server.ensure_running()
    opened = [Path(f"/proc/{made_server.status().pid}/fd/{n}") for n in (0, 1, 2)]
    assert opened[0].readlink() == server_file
    assert opened[1].readlink() == opened[2].readlink() == made_server.layout.log
