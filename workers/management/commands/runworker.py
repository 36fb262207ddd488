"""`manage.py runworker`: runs the reference worker of `agent/`, which talks to the API by HTTP only."""

import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from django.core.management.base import BaseCommand

from pipedai_worker import cli, commands


class Command(BaseCommand):
    """Passes the command's options to the worker program. This command does not use the database."""

    help = (
        "Registers this machine as a worker if --config does not exist yet (with --token, better in"
        " PIPEDAI_REGISTRATION_TOKEN, and --api-url), then polls the API for runs and executes them"
        " until SIGTERM. The same program as agent/'s pipedai-worker."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        cli.add_runworker_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        code = cli.carry_out(commands.register_and_run, Namespace(**options))
        if code:
            sys.exit(code)
