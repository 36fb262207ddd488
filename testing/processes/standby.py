"""Runs a standby that follows an embedded server by streaming replication, for tests of the read replica."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from bin.suite import new_data_dir
from pipedai.embedded.cluster import FASTER, SUPERUSER, Layout, run, server_bin
from pipedai.embedded.server import EmbeddedPostgres


@contextmanager
def standby_of(primary: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """Copies the running primary with pg_basebackup, and starts the copy as its standby. Removes it at the end."""
    _let_standbys_in(primary)
    directory = new_data_dir()
    layout = Layout(directory)
    layout.prepare_data_dir()
    shutil.copy2(primary.layout.passwords, layout.passwords)
    layout.cluster.mkdir(mode=0o700)
    user = layout.server_user
    if not user.is_us:
        shutil.chown(layout.cluster, user.uid, user.gid)
    params = primary.connection_params(role=SUPERUSER)
    del params["dbname"]
    copied = run(
        server_bin(primary.layout) / "pg_basebackup",
        f"--pgdata={layout.cluster}",
        f"--dbname={make_conninfo(**params)}",
        "--write-recovery-conf",
        "--checkpoint=fast",
        "--wal-method=stream",
        "--no-sync",
        user=user,
    )
    assert copied.code == 0, copied.text
    standby = EmbeddedPostgres(directory, faster=FASTER)
    standby.ensure_running()
    yield standby
    standby.stop()
    shutil.rmtree(directory)


def as_superuser(server: EmbeddedPostgres, statement: str) -> list[tuple[Any, ...]]:
    """Runs a statement as the server's superuser, by itself, and returns its rows."""
    params = server.connection_params(role=SUPERUSER)
    with psycopg.connect(**params, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def _let_standbys_in(primary: EmbeddedPostgres) -> None:
    """Adds the rule for standbys to the server's access rules, which lack it because embedded servers have none."""
    rules = primary.layout.cluster / "pg_hba.conf"
    given = "local replication all scram-sha-256\n"
    user = primary.layout.server_user
    written = run("/bin/sh", "-c", 'cat >> "$1"', "sh", rules, user=user, stdin=given)
    assert written.code == 0, written.text
    as_superuser(primary, "SELECT pg_reload_conf()")
