"""A database whose servers may be killed: one server, or a primary with a synchronous standby."""

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipedai.embedded.cluster import APPLICATION, DATABASE, SUPERUSER, Layout, only_one, server_bin
from testing.processes.failure import ProcessFailed
from testing.processes.postgres_node import Node
from testing.processes.stack import HOST, Database, free_port, kept_cluster, workplace

NAMES = ("pipedai_a", "pipedai_b")
_STANDBY_SECONDS = 60.0
_PAUSE_SECONDS = 0.05


class Nodes(Database):
    """A database that servers of our own keep. DATABASE_URL names all of them, so no program starts one."""

    def __init__(
        self, directory: Path, environment: dict[str, str], nodes: list[Node], password: str
    ) -> None:
        url = f"postgres://{APPLICATION}:{password}@{_hosts(nodes)}/{DATABASE}"
        if len(nodes) > 1:
            url += "?target_session_attrs=read-write"
        super().__init__(directory, {**environment, "DATABASE_URL": url})
        self.primary = nodes[0]
        self._nodes = nodes
        self._password = password

    @property
    def standby(self) -> Node:
        """The other one of two servers, whether it runs or not."""
        (other,) = (node for node in self._nodes if node is not self.primary)
        return other

    def start(self) -> None:
        """Create the primary and migrate its database, and then let a standby follow it if there are two servers."""
        kept, role = kept_cluster(), APPLICATION
        self.primary.create(kept.cluster if kept else None)
        self.primary.start(synchronous_standby_names="")
        with self.primary.session() as session:
            if kept is None:
                session.execute(f"CREATE ROLE {role} LOGIN CREATEDB")
                session.execute(f"CREATE DATABASE {DATABASE} OWNER {role}")
            session.execute(f"ALTER ROLE {role} PASSWORD '{self._password}'")
        self.python("manage.py", "release")
        self.primary.stop()
        self.primary.start()
        if len(self._nodes) == 1:
            self.primary.demand_no_standby()
        else:
            self.standby.copy(self.primary)
            self.follow()

    def follow(self) -> None:
        """Start the standby, and return when the primary's commits wait for it. Raises ProcessFailed."""
        self.standby.start()
        self.primary.demand_standby()
        deadline = time.monotonic() + _STANDBY_SECONDS
        while not self.primary.has_synchronous_standby():
            if time.monotonic() > deadline:
                raise ProcessFailed("The standby does not follow the primary.")
            time.sleep(_PAUSE_SECONDS)

    def promote_standby(self) -> None:
        """Make the standby the primary, and return when it takes writes. The former primary must not run."""
        self.primary = self.standby
        self.primary.promote()

    def end(self) -> None:
        """Stop all servers."""
        for node in self._nodes:
            node.stop()

    def session(self, role: str = APPLICATION) -> psycopg.Connection[dict[str, Any]]:
        """Open a connection to the primary that commits each statement by itself, outside of transactions."""
        return psycopg.connect(
            host=HOST,
            port=self.primary.port,
            user=role,
            password=self._password,
            dbname=DATABASE,
            connect_timeout=5,
            options="-c lock_timeout=0 -c statement_timeout=0",
            autocommit=True,
            row_factory=dict_row,
        )


@contextmanager
def nodes(count: int, **settings: str) -> Iterator[Nodes]:
    """Make one server, or a primary and a synchronous standby, with an empty database. Remove them at the end."""
    with workplace(**settings) as (directory, environment), ExitStack() as stack:
        layout = Layout(directory)
        with only_one(layout.start_lock, seconds=1):
            programs = server_bin(layout)
        home = directory / "nodes"
        user = layout.server_user
        home.mkdir(mode=0o700)
        if not user.is_us:
            shutil.chown(home, user.uid, user.gid)
        kept = kept_cluster()
        known = kept.read_passwords() if kept else None
        password = known[SUPERUSER] if known else secrets.token_urlsafe(16)
        made = [Node(name, home, programs, user, free_port(), password) for name in NAMES[:count]]
        on = Nodes(directory, environment, made, password)
        stack.callback(on.end)
        on.start()
        yield on


def _hosts(nodes: list[Node]) -> str:
    return ",".join(f"{HOST}:{node.port}" for node in nodes)
