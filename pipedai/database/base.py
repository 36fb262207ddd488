"""The Django engine `pipedai.database`: Django's for PostgreSQL, with faster checks of connections and times. It runs
statements that psycopg has prepared, several in one round trip (docs/decisions/fast-paths.md).
"""

import select
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

from django.db import connections
from django.db.backends.postgresql import base
from psycopg import Connection, adapters, errors
from psycopg._queries import _query2pg_nocache
from psycopg.abc import AdaptContext, Buffer, PQGen
from psycopg.adapt import Loader, PyFormat, Transformer
from psycopg.generators import execute, fetch_many, send
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import RowMaker

Row = dict[str, Any]

_OK = frozenset({ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK})
# The texts of this many statements are kept in PostgreSQL's form. The service has a few hundred statements.
_KEPT_TEXTS = 1024


class _Bound(NamedTuple):
    key: tuple[bytes, tuple[int, ...]]
    name: bytes
    values: Sequence[Buffer | None]
    formats: Sequence[Format] | None


@lru_cache(_KEPT_TEXTS)
def _converted(sql: str) -> tuple[bytes, list[PyFormat], list[str]]:
    query, formats, order, _ = _query2pg_nocache(sql.encode(), "utf-8")
    return query, formats, order or []


class Prepared:
    """The prepared statements of one connection. psycopg's cursor decides which are prepared and forgotten."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._manager = connection._prepared
        self._transformer = Transformer(connection)
        # Makes a dict from a row of a prepared statement, by the statement's name. PostgreSQL never changes the columns
        # of a prepared statement, and psycopg never uses a name twice.
        self._row_makers: dict[bytes, RowMaker[Row]] = {}
        # The statements that wait for the next statement or the COMMIT of the transaction.
        self._later: list[_Bound] = []

    def rows(self, sql: str, params: Mapping[str, Any]) -> list[Row] | None:
        bound = self._bind(sql, params)
        if bound is None:
            return None
        result = self._run(bound)
        transformer = self._transformer
        transformer.set_pgresult(result)
        make_row = self._row_makers.get(bound.name) or self._keep_row_maker(bound.name, result)
        rows = transformer.load_rows(0, result.ntuples, make_row)
        transformer.set_pgresult(None)  # so that the result's memory is freed
        return rows

    def count(self, sql: str, params: Mapping[str, Any]) -> int | None:
        """Returns how many rows were changed or read; None if psycopg must run the statement. Raises psycopg.Error."""
        bound = self._bind(sql, params)
        return None if bound is None else self._run(bound).command_tuples or 0

    def later(self, sql: str, params: Mapping[str, Any]) -> bool:
        """Keeps a statement, to send it with the next one or the COMMIT. Returns False if it must be run now."""
        if self._pgconn.transaction_status != TransactionStatus.INTRANS:
            return False
        bound = self._bind(sql, params)
        if bound is None:
            return False
        self._later.append(bound)
        return True

    def flush(self) -> None:
        if self._later:
            self._send_together(())

    @contextmanager
    def through_rollback(self) -> Iterator[None]:
        """Forgets the waiting statements, and keeps the prepared ones while the block rolls back. psycopg would also
        forget the prepared ones, as the transaction might have made their tables, but our transactions make no tables.
        """
        self._later.clear()
        manager = self._manager
        kept = manager._names, manager._counts, manager.prepare_threshold
        manager._names, manager._counts, manager.prepare_threshold = (
            OrderedDict(),
            OrderedDict(),
            None,
        )
        try:
            yield
        finally:
            manager._names, manager._counts, manager.prepare_threshold = kept

    def commit(self) -> bool:
        """Commits together with the waiting statements, or returns False if none waits. Raises psycopg.Error."""
        if not self._later:
            return False
        self._send_together((b"COMMIT",))
        return True

    def _run(self, bound: _Bound) -> PGresult:
        connection, pgconn = self._connection, self._pgconn
        if self._later:
            return self._send_together((bound,))
        if not connection.autocommit and pgconn.transaction_status == TransactionStatus.IDLE:
            return self._send_together((connection._get_tx_start_command(), bound))
        result: PGresult
        if threading.get_ident() != threading.main_thread().ident:
            # This call waits in C, and gives up Python's global lock once, whereas `wait` does so three times.
            values: Any = bound.values  # psycopg's annotation forgets None, which is NULL
            result = pgconn.exec_prepared(bound.name, values, bound.formats)
        else:
            # Python raises Ctrl-C in the main thread, which therefore uses `wait`, because Ctrl-C can interrupt it.
            with connection.lock:
                pgconn.send_query_prepared(bound.name, bound.values, bound.formats)
                result = connection.wait(execute(pgconn))[0]
        if result.status not in _OK:
            self._fail(bound, result)
        return result

    def _send_together(self, last: Sequence[_Bound | bytes]) -> PGresult:
        """Runs the waiting statements and `last` in one round trip, and returns the last result. Raises psycopg.Error
        for the first statement that fails; PostgreSQL skips the statements after it.
        """
        statements = [*self._later, *last]
        self._later.clear()
        connection = self._connection
        with connection.lock:
            results = connection.wait(self._pipeline(statements))
        for statement, result in zip(statements, results, strict=True):
            if result.status not in _OK:
                self._fail(statement, result)
        return results[-1]

    def _pipeline(self, statements: Sequence[_Bound | bytes]) -> PQGen[list[PGresult]]:
        pgconn = self._pgconn
        pgconn.enter_pipeline_mode()
        try:
            for statement in statements:
                if isinstance(statement, bytes):
                    pgconn.send_query_params(statement, None)
                else:
                    pgconn.send_query_prepared(statement.name, statement.values, statement.formats)
            pgconn.pipeline_sync()
            yield from send(pgconn)
            results: list[PGresult] = []
            for _ in statements:
                results += yield from fetch_many(pgconn)
            yield from fetch_many(pgconn)  # the end of the pipeline
        finally:
            # A broken connection is left as it is: its next use raises an error.
            if pgconn.status == ConnStatus.OK:
                pgconn.exit_pipeline_mode()
        return results

    def _fail(self, statement: _Bound | bytes, result: PGresult) -> NoReturn:
        if isinstance(statement, _Bound):
            # psycopg, too, forgets a statement that failed, because the plan may not fit the tables any more.
            self._manager._names.pop(statement.key, None)
        if result.error_field(DiagnosticField.SQLSTATE) is None:
            # The connection is broken, so the error comes from libpq and has no SQLSTATE that would choose its class.
            raise errors.OperationalError(result.error_message.decode(errors="replace").strip())
        raise errors.error_from_result(result)

    def _bind(self, sql: str, params: Mapping[str, Any]) -> _Bound | None:
        manager = self._manager
        if manager.prepare_threshold is None:
            return None
        query, formats, names = _converted(sql)
        transformer = self._transformer
        values = transformer.dump_sequence([params[name] for name in names], formats)
        key = (query, transformer.types or ())
        name = manager._names.get(key)
        if name is None:
            return None
        manager._names.move_to_end(key)
        return _Bound(key, name, values, transformer.formats)

    def _keep_row_maker(self, name: bytes, result: PGresult) -> RowMaker[Row]:
        columns = [(result.fname(n) or b"").decode() for n in range(result.nfields)]

        def make_row(values: Sequence[Any]) -> Row:
            return dict(zip(columns, values, strict=True))

        if len(self._row_makers) >= _KEPT_TEXTS:
            self._row_makers.clear()
        self._row_makers[name] = make_row
        return make_row


# psycopg's loader of times in C, which is ten times as fast as Django's. See docs/decisions/fast-paths.md.
_OWN_LOADER: Any = adapters.get_loader(base.TIMESTAMPTZ_OID, Format.TEXT)

# Django finds a thread's connection in an object of asgiref, which asks each time whether an event loop runs in the
# thread. No event loop uses Django's connections, so Python's own object does. This module is loaded before the first
# connection is made. See docs/decisions/fast-paths.md.
connections._connections = threading.local()  # type: ignore[attr-defined]


class TimeLoader(Loader):
    """Reads a timestamptz with psycopg's loader in C, ten times as fast as Django's. Both return UTC, as Django sets
    each session to it; Django reads `timezone` to learn that.
    """

    timezone = UTC

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._load = _OWN_LOADER(oid, context).load

    def load(self, data: Buffer) -> Any:
        return self._load(data)


class DatabaseWrapper(base.DatabaseWrapper):
    """Tests a kept connection by a query only if its socket has something to read."""

    # The prepared statements of the present connection.
    prepared: Prepared

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection[Any]:
        connection: Connection[Any] = super().get_new_connection(conn_params)
        if self.timezone == UTC:
            connection.adapters.register_loader("timestamptz", TimeLoader)
        self.prepared = Prepared(connection)
        return connection

    def create_cursor(self, name: str | None = None) -> Any:
        with self.wrap_database_errors:
            self.prepared.flush()
        return super().create_cursor(name)

    def _commit(self) -> None:
        if self.connection is not None:
            with self.wrap_database_errors:
                if self.prepared.commit():
                    return
        super()._commit()  # type: ignore[misc]

    def _set_autocommit(self, autocommit: bool) -> None:
        # psycopg's setter does the same more slowly, by a generator under a lock. See docs/decisions/fast-paths.md.
        connection: Any = self.connection
        if connection.pgconn.transaction_status == TransactionStatus.IDLE:
            connection._autocommit = autocommit
        else:
            super()._set_autocommit(autocommit)  # type: ignore[misc]

    def _rollback(self) -> None:
        if self.connection is not None:
            with self.prepared.through_rollback():
                super()._rollback()  # type: ignore[misc]

    def _savepoint_rollback(self, sid: str) -> None:
        with self.prepared.through_rollback():
            super()._savepoint_rollback(sid)  # type: ignore[misc]

    def is_usable(self) -> bool:
        """Whether the connection lives. The end of a session or server sends something on the socket, so no query is
        needed while nothing can be read, which saves 3 % of a request's CPU time. `env.DATABASE_PATIENCE` is for a dead
        network.
        """
        if self.connection is None or self.connection.closed:
            return False
        socket = select.poll()
        socket.register(self.connection.fileno(), select.POLLIN)
        return not socket.poll(0) or bool(super().is_usable())
