"""The Django engine `pipedai.embedded`: PostgreSQL's own, started when the first connection needs it."""

from functools import cached_property
from typing import Any

from django.db.backends.postgresql import base

from pipedai.embedded.errors import EmbeddedPostgresError
from pipedai.embedded.server import EmbeddedPostgres


class DatabaseWrapper(base.DatabaseWrapper):
    """Connects; only when that fails without the server's word, has the server started and tries again."""

    @cached_property
    def server(self) -> EmbeddedPostgres:
        """The server behind this connection."""
        return EmbeddedPostgres(self.settings_dict["DATA_DIR"])

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        try:
            return params | self.server.connection_params(params["dbname"])
        except EmbeddedPostgresError as error:
            raise self.Database.OperationalError(str(error)) from error

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        try:
            return super().get_new_connection(conn_params)
        except self.Database.OperationalError as error:
            if error.sqlstate:
                raise
        try:
            self.server.ensure_running()
        except EmbeddedPostgresError as error:
            raise self.Database.OperationalError(str(error)) from error
        return super().get_new_connection(self.get_connection_params())
