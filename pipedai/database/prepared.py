"""Runs statements that psycopg has prepared, several in one round trip. See docs/decisions/fast-paths.md."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

from psycopg import Connection, errors
from psycopg._queries import _query2pg_nocache
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import PyFormat, Transformer
from psycopg.generators import execute, fetch_many, send
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import RowMaker

Row = dict[str, Any]

_OK = frozenset({ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK})
# The number of statements whose text is kept in PostgreSQL's form. The service has some hundred.
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
        """Returns how many rows were changed or read, or None if psycopg's cursor must run it. Raises psycopg.Error."""
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
        """Forgets the waiting statements, and keeps the prepared ones while the block rolls back. psycopg would forget
        these too, in case the transaction had made their tables, but ours makes none.
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
            # This call waits in C and lets other threads run once, where `wait` does so three times.
            values: Any = bound.values  # psycopg's annotation forgets None, which is NULL
            result = pgconn.exec_prepared(bound.name, values, bound.formats)
        else:
            # The main thread uses `wait`, which lets Ctrl-C through: Python raises it there.
            with connection.lock:
                pgconn.send_query_prepared(bound.name, bound.values, bound.formats)
                result = connection.wait(execute(pgconn))[0]
        if result.status not in _OK:
            self._fail(bound, result)
        return result

    def _send_together(self, last: Sequence[_Bound | bytes]) -> PGresult:
        """Runs the waiting statements and `last` in one round trip, and returns the last result. Raises psycopg.Error
        for the first that fails; PostgreSQL skips those after it.
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
            # A broken connection is left as it is. Whoever uses it next learns that it is broken.
            if pgconn.status == ConnStatus.OK:
                pgconn.exit_pipeline_mode()
        return results

    def _fail(self, statement: _Bound | bytes, result: PGresult) -> NoReturn:
        if isinstance(statement, _Bound):
            # psycopg, too, forgets a statement that failed, because the plan may not fit the tables any more.
            self._manager._names.pop(statement.key, None)
        if result.error_field(DiagnosticField.SQLSTATE) is None:
            # The error is libpq's own: the connection is broken. psycopg's class for it says nothing.
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
