"""The project's own Django app. It checks the settings before any other app starts."""

import sys
from pathlib import Path

from django.apps import AppConfig
from django.conf import settings
from django.core import checks as django_checks

from pipedai import checks, pulse
from pipedai.deployment import DATABASE, MIGRATIONS, Probe, register_probe
from pipedai.loop import Job, register_job
from pipedai.retention import Rounds

_PROGRAMS = {"manage.py", "django-admin"}
_HELP = {"-h", "--help"}
_TELLING = {"help", "version", "--version"} | _HELP


class PipedaiConfig(AppConfig):
    """Registers the production checks, the probes of `check_deploy`, and the job that deletes old rows.

    A production process that fails the checks does not start.
    """

    name = "pipedai"

    def ready(self) -> None:
        """Registers this app's checks, probes and job, and checks the settings.

        Django calls it once in each process, before any work.
        """
        django_checks.register(
            checks.check_production_settings, django_checks.Tags.security, deploy=True
        )
        if not _only_tells(sys.argv):
            checks.refuse_unfit_settings()
        _register_probes()
        register_job(Job("heartbeat", pulse.EVERY_SECONDS, pulse.beat))
        register_job(Job("prune", every_seconds=3600.0, work=Rounds().work))


def _register_probes() -> None:
    # These modules load the database's backends and migrations, which need the settings, so they can't be imported at
    # the top of this file.
    from pipedai.deployment import database, site

    register_probe(Probe("settings", site.settings_are_fit, needs_database=False))
    register_probe(Probe("public URL", site.public_url_is_ours, needs_database=False))
    register_probe(Probe("static files", site.static_files_are_collected, needs_database=False))
    register_probe(Probe("mail", site.mail_server_answers, needs_database=False))
    register_probe(Probe(DATABASE, database.reachable, needs_database=False))
    register_probe(Probe("version", database.new_enough))
    register_probe(Probe(MIGRATIONS, database.migrated))
    register_probe(Probe("time-outs", database.timeouts_hold))
    register_probe(Probe("commits", database.commits_are_kept))
    register_probe(Probe("clocks", database.clocks_agree))
    register_probe(Probe("notifications", database.heard))
    if settings.REPLICA_DATABASE_URL:
        register_probe(Probe("replica", database.replica_follows))


def _only_tells(argv: list[str]) -> bool:
    """Whether a command only shows help or checks the settings. Such a command must start even with unfit settings."""
    program, *arguments = argv
    if Path(program).name not in _PROGRAMS:
        return False
    if not arguments or arguments[0] in _TELLING or _HELP & set(arguments):
        return True
    if arguments[0] == "check_deploy":
        return True
    return arguments[0] == "check" and "--deploy" in arguments
