"""Django's engine connects, and starts the server only when it must."""

import os
import signal
import subprocess
import sys

import pytest
from django.db import OperationalError
from django.db.utils import ConnectionHandler

from pipedai.embedded.cluster import server_pids
from pipedai.embedded.server import EmbeddedPostgres
from pipedai.embedded.tests.processes import PROJECT, eventually

pytestmark = pytest.mark.long


@pytest.fixture
def connect(django_db_blocker):
    """Return a function that makes a Django connection to a data directory's server, which is not open yet."""
    made = []

    def connect(data_dir):
        database = {"ENGINE": "pipedai.embedded", "NAME": "pipedai", "DATA_DIR": data_dir}
        made.append(ConnectionHandler({"default": database})["default"])
        return made[-1]

    with django_db_blocker.unblock():
        yield connect
        for each in made:
            each.close()


@pytest.fixture
def connection(connect, running_server):
    """Return a connection to the server that the tests share."""
    return connect(running_server.layout.data_dir)


def scalar(connection, statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


def test_the_first_statement_starts_the_server(connect, made_server):
    connection = connect(made_server.layout.data_dir)
    assert not connection.server.answers()
    assert scalar(connection, "SELECT current_user::text") == "pipedai"
    assert connection.server.answers()


def test_a_connection_after_a_crash_finds_a_new_server(connect, made_server):
    connection = connect(made_server.layout.data_dir)
    scalar(connection, "SELECT 1")
    server = connection.server
    os.kill(server.status().pid, signal.SIGKILL)
    eventually(lambda: not server_pids(server.layout.cluster))
    with pytest.raises(OperationalError):
        scalar(connection, "SELECT 1")
    connection.close_if_unusable_or_obsolete()
    assert scalar(connection, "SELECT 1") == 1


def test_test_databases_are_made_from_templates_and_dropped(connection):
    scalar(connection, "SELECT 1")
    connection.close()
    creation = connection.creation
    with creation._nodb_cursor() as cursor:
        cursor.execute("CREATE DATABASE test_pipedai")
        cursor.execute("CREATE DATABASE test_pipedai_gw0 TEMPLATE test_pipedai")
        cursor.execute("DROP DATABASE test_pipedai_gw0")
        cursor.execute("DROP DATABASE test_pipedai")


def test_djangos_own_test_database_works(connection):
    creation = connection.creation
    name = creation._create_test_db(verbosity=0, autoclobber=True, keepdb=False)
    connection.close()
    connection.settings_dict["NAME"] = name
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (n int)")
    assert scalar(connection, "SELECT current_database()::text") == "test_pipedai"
    creation._clone_test_db("1", verbosity=0)
    for database in ("test_pipedai_1", "test_pipedai"):
        connection.close()
        creation._destroy_test_db(database, verbosity=0)


def test_the_servers_own_word_is_passed_on(connection):
    connection.settings_dict["NAME"] = "nowhere"
    with pytest.raises(OperationalError, match='database "nowhere" does not exist'):
        connection.ensure_connection()


def test_a_server_that_cannot_be_is_an_operational_error_of_one_sentence(connect, data_dir):
    data_dir.touch()
    with pytest.raises(OperationalError, match=r"^Cannot read \S+: Not a directory\.$"):
        connect(data_dir).ensure_connection()


def test_dbshell_opens_the_wheels_psql_on_the_database(connection, capfd):
    connection.client.runshell(["-Atc", "SELECT current_user, current_database()"])
    assert capfd.readouterr().out == "pipedai|pipedai\n"


def test_check_starts_nothing(data_dir):
    environment = {**os.environ, "PIPEDAI_DATA_DIR": str(data_dir)}
    environment.pop("DATABASE_URL", None)
    subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=PROJECT, env=environment, check=True, capture_output=True,
    )  # fmt: skip
    assert not data_dir.exists()
    assert EmbeddedPostgres(data_dir).stop() is False
