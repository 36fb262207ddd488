"""`manage.py check_deploy` tells what is wrong with this deployment."""

import json
import textwrap
from typing import Any

from django.core.management.base import CommandError, CommandParser

from pipedai.deployment import Finding, Probe, look_at_all
from pipedai.management.operator_command import OperatorCommand

_NAME_WIDTH = 14
_INDENT = " " * (len("problem ") + _NAME_WIDTH + 1)
_WRAP = textwrap.TextWrapper(
    100,
    initial_indent=f"{_INDENT}→ ",
    subsequent_indent=f"{_INDENT}  ",
    break_long_words=False,
    break_on_hyphens=False,
)


class Command(OperatorCommand):
    help = (
        "Look at a deployment from where this command runs, and say what it lacks and what to do"
        " about it: settings, database, schema, clocks, keys, schedulers. It changes nothing and"
        " starts nothing. Exits with 1 if there is anything to do."
    )
    examples = """examples:
  PIPEDAI_ENV=production manage.py check_deploy      a table for people
  manage.py check_deploy --json                      [{"name", "ok", "unknown", "says", "remedy"}, …]

`manage.py check --deploy` looks at the settings alone, and needs no database.
"""
    # Django's system checks are not run, because the command's first probe checks the settings and tells more.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="answer in JSON, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        found = []
        for probe, finding in look_at_all():
            found.append((probe, finding))
            if not options["json"]:
                self._say(probe, finding)
        if options["json"]:
            self.stdout.write(json.dumps([_as_json(*each) for each in found], indent=2))
        if problems := sum(bool(finding.remedy) for _, finding in found):
            unknown = sum(finding.unknown for _, finding in found)
            more = f" {unknown} more can't be looked at until then." if unknown else ""
            raise CommandError(f"{problems} of {len(found)} need attention.{more}")

    def _say(self, probe: Probe, finding: Finding) -> None:
        if finding.unknown:
            mark = self.style.WARNING("unknown")
        else:
            mark = self.style.SUCCESS("ok     ") if finding.ok else self.style.ERROR("problem")
        self.stdout.write(f"{mark} {probe.name:<{_NAME_WIDTH}} {finding.says}")
        for line in finding.remedy.splitlines():
            self.stdout.write(_WRAP.fill(line))


def _as_json(probe: Probe, finding: Finding) -> dict[str, Any]:
    return {
        "name": probe.name,
        "ok": finding.ok,
        "unknown": finding.unknown,
        "says": finding.says,
        "remedy": finding.remedy or None,
    }
