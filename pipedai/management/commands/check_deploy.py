"""`manage.py check_deploy` tells what is wrong with this deployment."""

import json
import textwrap
from typing import Any

from django.core.checks import WARNING, CheckMessage
from django.core.management.base import CommandError, CommandParser

from pipedai.checks import UNKNOWN, look_at_all
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
        " starts nothing. Exits with 1 if there is any problem; a warning is none."
    )
    examples = """examples:
  PIPEDAI_ENV=production manage.py check_deploy      a table for people
  manage.py check_deploy --json                      [{"name", "ok", "warning", "unknown", "says", "remedy"}, …]

`manage.py check --deploy` looks at the settings alone, and needs no database.
"""
    # Django's system checks are not run, because the command's first probe checks the settings and tells more.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="answer in JSON, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        found = []
        for name, each in look_at_all():
            found.append((name, each))
            if not options["json"]:
                self._say(name, each)
        if options["json"]:
            self.stdout.write(json.dumps([_as_json(*each) for each in found], indent=2))
        if problems := sum(each.is_serious() for _, each in found):
            unknown = sum(_is_unknown(each) for _, each in found)
            more = f" {unknown} more can't be looked at until then." if unknown else ""
            raise CommandError(f"{problems} of {len(found)} need attention.{more}")

    def _say(self, name: str, found: CheckMessage) -> None:
        if found.is_serious():
            mark = self.style.ERROR("problem")
        elif found.level == WARNING:
            mark = self.style.WARNING("unknown" if _is_unknown(found) else "warning")
        else:
            mark = self.style.SUCCESS("ok     ")
        self.stdout.write(f"{mark} {name:<{_NAME_WIDTH}} {found.msg}")
        for line in (found.hint or "").splitlines():
            self.stdout.write(_WRAP.fill(line))


def _is_unknown(found: CheckMessage) -> bool:
    return found.id == UNKNOWN


def _as_json(name: str, found: CheckMessage) -> dict[str, Any]:
    return {
        "name": name,
        "ok": not (found.is_serious() or _is_unknown(found)),
        "warning": found.level == WARNING and not _is_unknown(found),
        "unknown": _is_unknown(found),
        "says": found.msg,
        "remedy": found.hint,
    }
