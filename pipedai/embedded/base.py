"""The Django engine `pipedai.embedded`, which uses the embedded PostgreSQL and starts it when a connection needs it.

It makes no database: bin/run, `manage.py release` and `manage.py migrate` do.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from django.db import OperationalError
from django.db.backends.postgresql import client

from pipedai.database import base
from pipedai.embedded.cluster import EmbeddedPostgresError, wheel_bin
from pipedai.embedded.server import EmbeddedPostgres


class DatabaseClient(client.DatabaseClient):
    """Runs `manage.py dbshell` with the psql that came with the server."""

    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Iterable[str]
    ) -> tuple[list[str], dict[str, str]]:
        server = EmbeddedPostgres(settings_dict["DATA_DIR"])
        environment = server.environment(settings_dict["NAME"])
        return [str(wheel_bin() / "psql"), *parameters], environment


class DatabaseWrapper(base.DatabaseWrapper):
    """Connects to the embedded server in DATA_DIR, and starts it if it does not answer."""

    client_class = DatabaseClient

    @cached_property
    def server(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(self.settings_dict["DATA_DIR"])

    def get_connection_params(self) -> dict[str, Any]:
        """Returns psycopg's arguments. They have no password before the first start of the server, which makes it."""
        params: dict[str, Any] = super().get_connection_params()
        try:
            return params | self.server.connection_params(params["dbname"])
        except EmbeddedPostgresError as error:
            raise OperationalError(str(error)) from error

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        try:
            return super().get_new_connection(conn_params)
        except self.Database.OperationalError as error:
            if error.sqlstate:
                raise
        try:
            self.server.ensure_running(make=False)
        except EmbeddedPostgresError as error:
            raise OperationalError(str(error)) from error
        return super().get_new_connection(self.get_connection_params())
