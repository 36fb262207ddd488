"""`manage.py check_keys`: checks that all stored secrets can be decrypted, and which keys that needs."""

import sys
from typing import Any

from django.core.management.base import CommandParser

from pipedai.management.operator_command import OperatorCommand, Progress
from workspaces.encryption.check import check_keys, counted_values, key_lines, refuse_broken


class Command(OperatorCommand):
    help = (
        "Open every encrypted value and every data key with this process's MASTER_KEYS, and say which"
        " keys are in use: a master key that nothing lies under may go from MASTER_KEYS. Changes"
        " nothing and shows no value. Reads in small batches, beside everything that runs."
    )
    examples = """examples:
  manage.py check_keys                after a rotation, or once a day
  manage.py check_keys --data-keys    names every data key, and not only those that are retired

Exits with 0 when everything opens, else with 1; stderr names table, row and field of what does not.
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--data-keys", action="store_true", help="name every data key")

    def handle(self, *args: Any, **options: Any) -> None:
        with Progress(sys.stderr, "values") as progress:
            report = check_keys(on_progress=progress.add)
        for line in key_lines(report, each_data_key=options["data_keys"]):
            self.stdout.write(line)
        self.stdout.write(f"encrypted values: {counted_values(report)}")
        refuse_broken(report, self.stderr)
        self.stdout.write("Everything opens.")
