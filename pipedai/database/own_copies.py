"""Puts copies of some rows in place of tables until a transaction is rolled back, so that it can write without a lock
that others wait for. docs/decisions/rehearsals.md says why.
"""

from collections.abc import Mapping
from typing import Any

from django.db import connection
from psycopg import sql

# What a copy has besides its columns: constraints come without the foreign keys, and triggers don't come at all.
_LIKE = "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING IDENTITY"
_TABLE = """
SELECT n.nspname,
    (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
     WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''),
    (SELECT array_agg(pg_get_indexdef(indexrelid)) FROM pg_index WHERE indrelid = c.oid AND indisvalid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s::regclass
"""


def use_own_copies(tables: Mapping[str, str], params: Mapping[str, Any]) -> None:
    """From now until the transaction is rolled back, statements of this connection that name one of the tables find a
    copy that nobody else sees. It has the rows for which the condition is true, and the table's indexes. Tables are
    copied in the order given. The caller runs statements that are not prepared.
    """
    with connection.cursor() as cursor:
        for table, condition in tables.items():
            cursor.execute(_TABLE, [table])
            schema, columns, indexes = cursor.fetchone()
            real, own = sql.Identifier(schema, table), sql.Identifier("pg_temp", table)
            make = sql.SQL("CREATE TABLE {} (LIKE {} {})").format(own, real, sql.SQL(_LIKE))
            cursor.execute(make.as_string(cursor.cursor))
            copy = sql.SQL(
                "INSERT INTO {own} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {real} "
            ).format(own=own, columns=sql.SQL(columns), real=real)
            cursor.execute(copy.as_string(cursor.cursor) + "WHERE " + condition, params)
            for index in indexes or ():
                head, _, rest = index.partition(" USING ")
                name = head.partition(" ON ")[0]
                cursor.execute(f"{name} ON {own.as_string(cursor.cursor)} USING {rest}")
