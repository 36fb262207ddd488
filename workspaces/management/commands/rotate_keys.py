"""`manage.py rotate_keys`: encrypts all data keys under the newest master key, or gives environments new data keys."""

import sys
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser

from accounts.authenticators import rewrap_authenticators
from pipedai import crypto
from pipedai.api.renderers import counted
from pipedai.management.operator_command import OperatorCommand, Progress
from workspaces.encryption.check import KeyReport, check_keys, counted_values, refuse_broken
from workspaces.encryption.rotation import (
    Plan,
    older_masters,
    plan_data_rotation,
    rotate_data_keys,
    rotate_master_key,
)
from workspaces.models import Environment


class Command(OperatorCommand):
    help = (
        "Rotate keys, while everything runs. --master wraps every data key under the first of"
        " MASTER_KEYS; what is encrypted stays as it is. --data gives environments a new data key,"
        " re-encrypts what lies under the old one, and deletes that. Both may be killed at any point"
        " and called again, which goes on where it was; any number may run at once. At the end"
        " everything is opened once. Every process must know the new master key before --master is"
        " run: docs/security.md says in which order."
    )
    examples = """examples:
  manage.py rotate_keys --master --dry-run                what there is to do
  manage.py rotate_keys --master                          then check_keys says which old key may go
  manage.py rotate_keys --data                            all environments
  manage.py rotate_keys --data --environment 01890000-0000-7000-8000-000000000000

Exits with 0 when all is rotated and everything opens, else with 1 and where it does not.
"""

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "--master", action="store_true", help="wrap the data keys under the newest master key"
        )
        which.add_argument("--data", action="store_true", help="replace the data keys")
        parser.add_argument(
            "--environment", metavar="ID", type=UUID, help="with --data: of this environment alone"
        )
        parser.add_argument(
            "--replace-lost",
            action="store_true",
            help="with --data: replace also a data key that does not open (its master key is lost), so"
            " that secrets can be written again; what lies under it stays unreadable",
        )
        parser.add_argument("--dry-run", action="store_true", help="say what there is to do")

    def handle(self, *args: Any, **options: Any) -> None:
        environment_id: UUID | None = options["environment"]
        if options["master"] and (environment_id or options["replace_lost"]):
            raise CommandError("--environment and --replace-lost go with --data alone.")
        if environment_id and not Environment.objects.filter(id=environment_id).exists():
            raise CommandError("There is no such environment.")
        if options["dry_run"]:
            self._say_plan(environment_id, master=options["master"])
            return
        if options["master"]:
            self._rotate_master()
        else:
            self._rotate_data(environment_id, replace_lost=options["replace_lost"])
        self._verify(environment_id, master=options["master"])

    def _say_plan(self, environment_id: UUID | None, *, master: bool) -> None:
        if not master:
            plan = plan_data_rotation(environment_id)
            self._say_resumed(plan)
            self.stdout.write(
                f"{counted(plan.environments, 'environment')} to go through,"
                f" {counted(plan.values, 'value')} to re-encrypt."
            )
            return
        newest = crypto.masters()[0].id
        for row in older_masters():
            self.stdout.write(
                f"{counted(row['data_keys'], 'data key')} of"
                f" {counted(row['environments'], 'environment')}"
                f" would move from master key {row['master_key_id']} to {newest}."
            )
        if not older_masters():
            self.stdout.write(f"Nothing to do: all data keys lie under master key {newest}.")

    def _rotate_master(self) -> None:
        total = sum(row["data_keys"] for row in older_masters())
        with Progress(sys.stderr, "data keys", total) as progress:
            done = rotate_master_key(on_progress=progress.add, say=progress.say)
        self.stdout.write(
            f"{counted(done.data_keys, 'data key')} of"
            f" {counted(done.environments, 'environment')} moved to master key {crypto.masters()[0].id}."
        )
        moved = 0
        while batch := rewrap_authenticators():
            moved += batch
        if moved:
            self.stdout.write(f"So did {counted(moved, 'authenticator')} of staff.")

    def _rotate_data(self, environment_id: UUID | None, *, replace_lost: bool) -> None:
        plan = plan_data_rotation(environment_id)
        self._say_resumed(plan)
        with Progress(sys.stderr, "values", plan.values) as progress:
            done = rotate_data_keys(
                environment_id=environment_id,
                replace_lost=replace_lost,
                on_progress=progress.add,
                say=progress.say,
            )
        self.stdout.write(
            f"{counted(done.environments, 'environment')}:"
            f" {counted(done.new_keys, 'new data key')},"
            f" {counted(done.values, 'value')} re-encrypted,"
            f" {counted(done.dropped, 'old data key')} deleted."
        )

    def _verify(self, environment_id: UUID | None, *, master: bool) -> None:
        with Progress(sys.stderr, "verified values") as progress:
            report = check_keys(environment_id=environment_id, on_progress=progress.add)
        refuse_broken(report, self.stderr)
        if master:
            self._verify_moved(report)
        self.stdout.write(f"Everything opens: {counted_values(report)}.")

    def _verify_moved(self, report: KeyReport) -> None:
        newest = crypto.masters()[0].id
        if older := report.under_master.total() - report.under_master[newest]:
            raise CommandError(
                f"{counted(older, 'data key')} under an older master key again: a process still has"
                " that as its newest. Restart it with the new MASTER_KEYS, then call this again."
            )
        if older := report.authenticators.total() - report.authenticators[newest]:
            raise CommandError(
                f"{counted(older, 'authenticator')} of staff in use just now and still under an older"
                " master key: call this again."
            )

    def _say_resumed(self, plan: Plan) -> None:
        if plan.resumed:
            self.stdout.write(
                f"Going on with the rotation of {plan.resumed:%Y-%m-%d %H:%M:%S} UTC."
            )
