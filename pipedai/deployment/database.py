"""Checks that the database is reachable and new enough, and that its schema, time-outs, clock and NOTIFY are right."""

import secrets
from collections.abc import Callable
from datetime import datetime

import psycopg
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from psycopg import sql

from pipedai import timeouts
from pipedai.clocks import TOLERATED_SKEW_SECONDS, SkewMeter, machine_now
from pipedai.deployment import Finding
from pipedai.embedded.server import EmbeddedPostgres
from pipedai.migrating import invalid_indexes
from pipedai.replica.reading import state_of_replica
from pipedai.replica.routing import is_on
from pipedai.server.listen_connection import listen_params
from pipedai.sql import database_now, fetch_one, reason

OLDEST_MAJOR_VERSION = 15
_HEARD_WITHIN_SECONDS = 3.0

_DURABILITY = """
SELECT current_setting('transaction_read_only') = 'on' AS read_only, current_setting('synchronous_commit') AS commit,
    current_setting('synchronous_standby_names') <> '' AS synchronous,
    EXISTS (SELECT FROM pg_stat_replication) AS standbys
"""


def reachable() -> Finding:
    """Checks that the database answers. An embedded database that is stopped is not started for this check."""
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


def clocks_agree(now: Callable[[], datetime] = machine_now) -> Finding:
    """Checks that this machine's clock and the database's agree, allowing for the time of one query."""
    database_now()  # This opens the connection, so that the query below is fast.
    meter = SkewMeter(now)
    skew = meter.compare(now(), database_now())
    if abs(skew.seconds) > TOLERATED_SKEW_SECONDS + skew.uncertainty:
        direction = "behind" if skew.seconds > 0 else "ahead of"
        return Finding(
            f"This machine's clock is {abs(skew.seconds):.1f} s {direction} the database's.",
            "Have both machines keep time by NTP.",
        )
    within = abs(skew.seconds) + skew.uncertainty
    return Finding(f"This machine and the database agree within {within:.2f} s.")


def commits_are_kept() -> Finding:
    """Checks that the database takes writes, and that a commit it has answered outlives a crash.

    With `synchronous_commit = off` the last commits are lost when the server crashes, and with asynchronous standbys
    they are lost at a failover (docs/high-availability.md).
    """
    row = fetch_one(_DURABILITY, {})
    assert row is not None
    if row["read_only"]:
        return Finding(
            "This node of the database is read-only: it is a standby, or an operator made it so.",
            "Have DATABASE_URL name the primary, or all nodes with target_session_attrs=read-write.",
        )
    if row["commit"] == "off":
        return Finding(
            "A crash of the database loses runs: synchronous_commit is off.",
            "Set synchronous_commit to on.",
        )
    if row["standbys"] and not row["synchronous"]:
        return Finding(
            "A failover loses runs, because no standby is synchronous.",
            "Set synchronous_standby_names: see docs/high-availability.md.",
        )
    return Finding("It takes writes, and keeps each commit.")


def replica_follows() -> Finding:
    """Checks that the read replica, if there is one, answers, is a standby of this database and is not far behind."""
    if not is_on():
        return Finding("There is none: lists are read from the primary.")
    state = state_of_replica(database_now())
    if state == "ok":
        return Finding("Lists and statistics are read from it.")
    return Finding(
        f"Lists and statistics are read from the primary, because the replica is {state}.",
        "Let REPLICA_DATABASE_URL name a standby that follows: the log line replica.passed_over says what is wrong.",
    )


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
