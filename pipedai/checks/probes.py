"""The probes of the database and of the site, by which `manage.py check_deploy` finds what is wrong."""

import secrets
import zoneinfo
from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlsplit

import psycopg
from django.conf import settings
from django.core.checks import WARNING, CheckMessage, Error, Info
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http.request import validate_host
from psycopg import sql

from pipedai import checks, timeouts
from pipedai.checks import DATABASE, MIGRATIONS, register_probe
from pipedai.clocks import EDITION, TOLERATED_SKEW_SECONDS, SkewMeter, machine_now
from pipedai.embedded.cluster import EmbeddedPostgresError
from pipedai.embedded.server import of_settings
from pipedai.outgoing import mails
from pipedai.replica import is_on
from pipedai.replica.reading import state_of_replica
from pipedai.server.listen import listen_params
from pipedai.sql import database_now, fetch_row, reason
from pipedai.timeouts import invalid_indexes

OLDEST_MAJOR_VERSION = 15
_HEARD_WITHIN_SECONDS = 3.0

_DURABILITY = """
SELECT current_setting('transaction_read_only') = 'on' AS read_only, current_setting('synchronous_commit') AS commit,
    current_setting('synchronous_standby_names') <> '' AS synchronous,
    EXISTS (SELECT FROM pg_stat_replication) AS standbys
"""

_TEMPORARY = "SELECT has_database_privilege(current_database(), 'TEMPORARY') AS allowed"


def reachable() -> CheckMessage:
    """Checks that the database answers. An embedded database that is stopped is not started for this check."""
    if server := of_settings():
        try:
            server.verify_made()
        except EmbeddedPostgresError as error:
            return Error(str(error), hint="bin/run prints the variables that it runs with.")
        if not server.answers():
            return Error(
                f"The embedded PostgreSQL in {server.layout.data_dir} does not run.",
                hint="Start the service, which starts it, or call `manage.py pg start`.",
            )
        remedy = "See its log, which `manage.py pg status` names."
    else:
        remedy = "Start it, or set DATABASE_URL to where it is and to a role that may connect."
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        return Error(f"The database does not answer: {reason(error)}.", hint=remedy)
    host = connection.get_connection_params().get("host") or "its default socket"
    return Info(f"It answers at {host}.")


def new_enough() -> CheckMessage:
    row = fetch_row("SELECT current_setting('server_version_num')::int AS number", {})
    version = row["number"]
    said = f"PostgreSQL {version // 10_000}.{version % 10_000}"
    if version // 10_000 < OLDEST_MAJOR_VERSION:
        return Error(
            f"{said} is too old.", hint=f"Upgrade it to PostgreSQL {OLDEST_MAJOR_VERSION} or newer."
        )
    return Info(f"{said}.")


def unapplied_migrations() -> list[str]:
    """Returns the names of this release's migrations that the database lacks."""
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in missing]


def migrated() -> CheckMessage:
    """Checks that all migrations of this release are applied, and that no index was left incomplete."""
    if names := unapplied_migrations():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return Error(
            f"Migrations are not applied: {', '.join(names[:3])}{more}.",
            hint="Call `manage.py release`.",
        )
    if half_made := invalid_indexes():
        return Error(
            f"Indexes were left half-made: {', '.join(half_made)}.",
            hint="Unless a release is at work, drop them and call `manage.py release`.",
        )
    return Info("All migrations are applied.")


def timeouts_hold() -> CheckMessage:
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
        return Error(
            f"{said}, and not with {timeouts.WEB.lock} and {timeouts.WEB.statement}.",
            hint="Call `manage.py release`, which sets them for the role, and restart the web processes, whose"
            " sessions keep what they began with, as PgBouncer's do until its RECONNECT. DATABASE_URL must not set"
            " others itself.",
        )
    return Info(f"{said}.")


def clocks_agree(now: Callable[[], datetime] = machine_now) -> CheckMessage:
    database_now()  # This opens the connection, so that the query below is fast.
    meter = SkewMeter(now)
    skew = meter.compare(now(), database_now())
    if abs(skew.seconds) > TOLERATED_SKEW_SECONDS + skew.uncertainty:
        direction = "behind" if skew.seconds > 0 else "ahead of"
        return Error(
            f"This machine's clock is {abs(skew.seconds):.1f} s {direction} the database's.",
            hint="Have both machines keep time by NTP.",
        )
    within = abs(skew.seconds) + skew.uncertainty
    return Info(f"This machine and the database agree within {within:.2f} s.")


def commits_are_kept() -> CheckMessage:
    """Checks that the database takes writes, and that commits outlive a crash or a failover. They do not if
    `synchronous_commit` is off or all standbys are asynchronous (docs/high-availability.md).
    """
    row = fetch_row(_DURABILITY, {})
    if row["read_only"]:
        return Error(
            "This node of the database is read-only: it is a standby, or an operator made it so.",
            hint="Have DATABASE_URL name the primary, or all nodes with target_session_attrs=read-write.",
        )
    if row["commit"] == "off":
        return Error(
            "A crash of the database loses runs: synchronous_commit is off.",
            hint="Set synchronous_commit to on.",
        )
    if row["standbys"] and not row["synchronous"]:
        return Error(
            "A failover loses runs, because no standby is synchronous.",
            hint="Set synchronous_standby_names: see docs/high-availability.md.",
        )
    return Info("It takes writes, and keeps each commit.")


def files_can_be_planned() -> CheckMessage:
    """Checks that the role may make temporary tables, on which plans of files work (docs/decisions/rehearsals.md)."""
    if fetch_row(_TEMPORARY, {})["allowed"]:
        return Info("Plans of files may make temporary tables.")
    return Error(
        "Plans of files fail: the database's role may not make temporary tables.",
        hint="GRANT TEMPORARY ON DATABASE … TO the role of DATABASE_URL.",
    )


def replica_follows() -> CheckMessage:
    """Checks that the read replica, if there is one, answers, is a standby of this database and is not far behind."""
    if not is_on():
        return Info("There is none: lists are read from the primary.")
    state = state_of_replica(database_now())
    if state == "ok":
        return Info("Lists and statistics are read from it.")
    return Error(
        f"Lists and statistics are read from the primary, because the replica is {state}.",
        hint="Let REPLICA_DATABASE_URL name a standby that follows: the log line replica.passed_over says what is"
        " wrong.",
    )


def heard() -> CheckMessage:
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
        return Error(
            f"There is no connection to LISTEN on: {reason(error)}.",
            hint="Set DATABASE_LISTEN_URL to the database itself, with a role that may connect.",
        )
    if not heard:
        return Error(
            "Notifications do not arrive, so that waiting polls look only every few seconds.",
            hint="Set DATABASE_LISTEN_URL to the same database, without PgBouncer between.",
        )
    return Info("Notifications arrive.")


def settings_are_fit() -> CheckMessage:
    problems = [each.msg for each in checks.problems()]
    if not settings.PRODUCTION:
        problems.insert(0, "PIPEDAI_ENV is development: set it to production.")
    if problems:
        return Error(
            f"{len(problems)} of them {'is' if len(problems) == 1 else 'are'} unfit for production.",
            hint="\n".join(problems),
        )
    return Info("They are fit for production.")


def public_url_is_ours() -> CheckMessage:
    """Checks that ALLOWED_HOSTS accepts the host of PUBLIC_URL, so that our own links work."""
    url = settings.PUBLIC_URL
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    if not validate_host(f"[{host}]" if ":" in host else host, settings.ALLOWED_HOSTS):
        return Error(
            f"PUBLIC_URL is {url}, whose host is refused.",
            hint="Set PUBLIC_URL to where clients reach the service, and ALLOWED_HOSTS to include its host.",
        )
    return Info(f"PUBLIC_URL is {url}.")


def static_files_are_collected() -> CheckMessage:
    if not (settings.STATIC_ROOT / "staticfiles.json").is_file():
        return Error(
            f"They are not collected in {settings.STATIC_ROOT}: pages load slowly.",
            hint="Call `manage.py collectstatic --no-input` where the service is built.",
        )
    return Info(f"They are in {settings.STATIC_ROOT}.")


def mail_server_answers() -> CheckMessage:
    """Checks that the service can log in to the mail server, if the settings name one. It sends nothing."""
    if not settings.EMAIL_URL:
        return CheckMessage(
            WARNING,
            "No mail is sent: EMAIL_URL is not set.",
            hint="Without mail nobody confirms an address or gets a forgotten password reset, invitations are links to"
            " hand over, and incidents are told by webhook and Slack alone. Set EMAIL_URL and EMAIL_FROM.",
        )
    if trouble := mails.check_server():
        return Error(
            f"The mail server that EMAIL_URL names can't be used: {trouble}.",
            hint="Correct EMAIL_URL, or see the mail server's log. Mails wait for it, up to five days.",
        )
    return Info("The mail server lets us in.")


def who_may_register() -> CheckMessage:
    """Says who may register. It warns if anybody may, because not every operator intends this."""
    if settings.REGISTRATION == "invited":
        return Info("Only who is invited may register.")
    if settings.REGISTRATION == "closed":
        return Info("Nobody may register: `manage.py create_user` makes accounts.")
    return CheckMessage(
        WARNING,
        "Anybody who reaches the service may register: REGISTRATION is open.",
        hint="Set REGISTRATION to invited or closed, unless strangers shall use this service.",
    )


def time_zones_are_pinned() -> CheckMessage:
    said = f"Edition {EDITION} of the time zone database"
    if zoneinfo.TZPATH:
        return Error(
            f"Python reads {zoneinfo.TZPATH[0]} rather than {said.lower()}.",
            hint="Nothing in the process may call zoneinfo.reset_tzpath() with a path.",
        )
    return Info(f"{said} decides, as in every process of this version.")


def register_probes() -> None:
    register_probe("settings", settings_are_fit, needs_database=False)
    register_probe("public URL", public_url_is_ours, needs_database=False)
    register_probe("time zones", time_zones_are_pinned, needs_database=False)
    register_probe("static files", static_files_are_collected, needs_database=False)
    register_probe("mail", mail_server_answers, needs_database=False)
    register_probe("registration", who_may_register, needs_database=False)
    register_probe(DATABASE, reachable, needs_database=False)
    register_probe("version", new_enough)
    register_probe(MIGRATIONS, migrated)
    register_probe("time-outs", timeouts_hold)
    register_probe("commits", commits_are_kept)
    register_probe("plans", files_can_be_planned)
    register_probe("clocks", clocks_agree)
    register_probe("notifications", heard)
    if settings.REPLICA_DATABASE_URL:
        register_probe("replica", replica_follows)
