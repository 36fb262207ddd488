"""`manage.py release` sets the time-outs of the application's role, on a new cluster and on an older one."""

import os
import subprocess
import sys

import psycopg
import pytest

from pipedai.embedded.cluster import APPLICATION, DATABASE, SUPERUSER
from pipedai.embedded.tests.processes import PROJECT

pytestmark = pytest.mark.long


def release(server):
    data_dir = str(server.layout.data_dir)
    subprocess.run(
        [sys.executable, "manage.py", "release", "-v0"],
        cwd=PROJECT,
        env={**os.environ, "PIPEDAI_DATA_DIR": data_dir, "DATABASE_URL": ""},
        check=True,
    )


def shown(server):
    with psycopg.connect(**server.connection_params()) as connection:
        return [
            connection.execute(f"SHOW {name}").fetchone()
            for name in ("lock_timeout", "statement_timeout")
        ]


def test_a_new_cluster_and_an_old_one_get_them(made_server):
    # The suite's kept cluster was a new one, which `manage.py release` prepared.
    made_server.ensure_running()
    assert shown(made_server) == [("2s",), ("10s",)]
    params = made_server.connection_params(role=SUPERUSER)
    with psycopg.connect(**params) as connection:
        connection.execute(f"ALTER ROLE {APPLICATION} IN DATABASE {DATABASE} RESET ALL")
    assert shown(made_server) == [("0",), ("0",)]
    release(made_server)
    assert shown(made_server) == [("2s",), ("10s",)]
