"""Checks that the database is reachable and new enough, and that its schema, time-outs, clock and NOTIFY are right."""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from psycopg import sql

from pipedai import timeouts
from pipedai.deployment import Finding
from pipedai.embedded.server import EmbeddedPostgres
from pipedai.migrating import invalid_indexes
from pipedai.server.listen_connection import listen_params
from pipedai.sql import database_now, fetch_one, reason

OLDEST_MAJOR_VERSION = 15
# The largest accepted difference between this machine's clock and the database's. JWTs and the timestamps of webhooks
# use the machine's clock, and everything else uses the database's.
TOLERATED_SKEW_SECONDS = 5.0
_HEARD_WITHIN_SECONDS = 3.0


def reachable() -> Finding:
    """Checks that the database answers. An embedded database that is stopped is not started for it."""
    database = settings.DATABASES["default"]
    if database["ENGINE"] == "pipedai.embedded":
        if not EmbeddedPostgres(database["DATA_DIR"]).status().running:
            return Finding(
                f"The embedded PostgreSQL in {database['DATA_DIR']} does not run.",
                "Start the service, which starts it, or call `manage.py pg start`.",
            )
        remedy = "See its log, which `manage.py pg status` names."
    else:
        remedy = "Start it, or set DATABASE_URL to where it is and to a role that may connect."
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        return Finding(f"The database does not answer: {reason(error)}.", remedy)
    host = connection.get_connection_params().get("host") or "its default socket"
    return Finding(f"It answers at {host}.")


def new_enough() -> Finding:
    """Checks that the database's version of PostgreSQL is one that we support."""
    row = fetch_one("SELECT current_setting('server_version_num')::int AS number", {})
    assert row is not None
    version = row["number"]
    said = f"PostgreSQL {version // 10_000}.{version % 10_000}"
    if version // 10_000 < OLDEST_MAJOR_VERSION:
        return Finding(
            f"{said} is too old.", f"Upgrade it to PostgreSQL {OLDEST_MAJOR_VERSION} or newer."
        )
    return Finding(f"{said}.")


def migrated() -> Finding:
    """Checks that all migrations of this release are applied, and that no index was left incomplete."""
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        names = [f"{migration.app_label}.{migration.name}" for migration, _ in missing]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return Finding(
            f"Migrations are not applied: {', '.join(names[:3])}{more}.",
            "Call `manage.py release`.",
        )
    if half_made := invalid_indexes():
        return Finding(
            f"Indexes were left half-made: {', '.join(half_made)}.",
            "Unless a release is at work, drop them and call `manage.py release`.",
        )
    return Finding("All migrations are applied.")


def timeouts_hold() -> Finding:
    """Checks that a new session begins with the time-outs of web requests."""
    session = connection.copy()
    try:
        found = timeouts.session_timeouts(session)
    finally:
        session.close()
    said = (
        f"Sessions begin with lock_timeout = {found.lock} and statement_timeout = {found.statement}"
    )
    if found != timeouts.WEB:
        return Finding(
            f"{said}, and not with {timeouts.WEB.lock} and {timeouts.WEB.statement}.",
            "Call `manage.py release`, which sets them for the role, and restart the web processes, whose sessions keep"
            " what they began with, as PgBouncer's do until its RECONNECT. DATABASE_URL must not set others itself.",
        )
    return Finding(f"{said}.")


def _machine_now() -> datetime:
    return datetime.now(UTC)


def clocks_agree(now: Callable[[], datetime] = _machine_now) -> Finding:
    """Checks that this machine's clock and the database's agree, allowing for the time of one query."""
    # The first call opens the connection, so that the second one, which is measured, is fast.
    database_now()
    asked = now()
    theirs = database_now()
    answered = now()
    way = (answered - asked).total_seconds() / 2
    skew = (theirs - asked).total_seconds() - way
    if abs(skew) > TOLERATED_SKEW_SECONDS + way:
        return Finding(
            f"This machine's clock is {abs(skew):.1f} s {'behind' if skew > 0 else 'ahead of'} the database's.",
            "Have both machines keep time by NTP.",
        )
    return Finding(f"This machine and the database agree within {abs(skew) + way:.2f} s.")


def heard() -> Finding:
    """Checks that a notification sent on Django's connection arrives at the connection that runs LISTEN."""
    channel = f"pipedai_check_{secrets.token_hex(8)}"
    try:
        with psycopg.connect(**listen_params(), autocommit=True) as ear:
            ear.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_notify(%s, '')", [channel])
            heard = any(
                notification.channel == channel
                for notification in ear.notifies(timeout=_HEARD_WITHIN_SECONDS, stop_after=1)
            )
    except psycopg.Error as error:
        return Finding(
            f"There is no connection to LISTEN on: {reason(error)}.",
            "Set DATABASE_LISTEN_URL to the database itself, with a role that may connect.",
        )
    if not heard:
        return Finding(
            "Notifications do not arrive, so that waiting polls look only every few seconds.",
            "Set DATABASE_LISTEN_URL to the same database, without PgBouncer between.",
        )
    return Finding("Notifications arrive.")
