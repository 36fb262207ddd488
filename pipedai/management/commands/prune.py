"""`manage.py prune` deletes rows that are older than their retention. People call it by hand, or cron does."""

import sys
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from pipedai.management.operator_command import OperatorCommand, Progress
from pipedai.retention import InUse, Retention, prune, retentions

# The largest number of days that `--days` accepts. The retention settings have the same bound.
_MOST_DAYS = 36_500


class Command(OperatorCommand):
    help = (
        "Remove rows that are older than their retention, oldest first, in small batches, while the service"
        " runs. Killed at any point and started again it goes on from where it was; several at once do not"
        " hinder each other. Unfinished runs stay, as do runs with a webhook still to be delivered, and runs"
        " with a retry that has to stay. Each batch that removes runs, ticks or deliveries leaves one audit"
        " row (runs.pruned). The schedulers do the same by themselves, with the retentions that the settings"
        " name; the audit log is left alone, but for --audit."
    )
    examples = """examples:
  manage.py prune                          what the settings say, for all kinds
  manage.py prune --dry-run                how much that would be
  manage.py prune runs --days 365          runs that ended more than a year ago, whatever the settings say
  manage.py prune --audit --days 400       months of the audit log that were over 400 days ago; asks before

Settings (days; 0 is for ever): RUN_RETENTION_DAYS, DELIVERY_RETENTION_DAYS. RUN_EVENTS_DAYS, 2 or more.
INBOUND_EVENTS_DAYS, 1 or more.
Exits with 0 when it has come to the end, else with 1 and a sentence for what is wrong, or for each kind that is in use.
"""

    def add_arguments(self, parser: CommandParser) -> None:
        kinds = [retention.kind for retention in retentions() if retention.automatic]
        parser.add_argument(
            "kinds",
            nargs="*",
            metavar="KIND",
            help=f"of what: {', '.join(kinds)}; all that have a retention, if none is named",
        )
        parser.add_argument(
            "--days", type=int, metavar="N", help="remove what is older, whatever the settings say"
        )
        parser.add_argument("--dry-run", action="store_true", help="only say how much there is")
        parser.add_argument(
            "--audit", action="store_true", help="drop old months of the audit log; with --days"
        )
        parser.add_argument("--yes", action="store_true", help="do not ask before --audit")
        parser.add_argument(
            "--batch-size",
            type=int,
            default=1000,
            metavar="N",
            help="rows a batch; 1000 by default",
        )
        parser.add_argument(
            "--pause-ms",
            type=int,
            default=20,
            metavar="N",
            help="rest between batches, for the service's sake; 20 by default",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not 1 <= options["batch_size"] <= 10_000:
            raise CommandError("--batch-size must be between 1 and 10000.")
        if options["pause_ms"] < 0:
            raise CommandError("--pause-ms must not be negative.")
        chosen = _chosen(options)
        if options["audit"] and not (options["dry_run"] or options["yes"]):
            if not sys.stdin.isatty():
                raise CommandError(
                    "--audit asks before it drops anything: say --yes to go without."
                )
            months = f"the months of the audit log that were over {options['days']} days ago"
            if input(f"Drop {months}, for good? ").strip().lower() not in {"y", "yes"}:
                raise CommandError("Nothing was dropped.")
        in_use = []
        for retention in chosen:
            try:
                self.prune(retention, options)
            except InUse as error:
                in_use.append(f"{retention.kind}: {error}")
        if in_use:
            raise CommandError("\n".join(in_use))

    def prune(self, retention: Retention, options: dict[str, Any]) -> None:
        days = retention.days() if options["days"] is None else options["days"]
        if days is None:
            self.stdout.write(f"{retention.kind}: kept for ever.")
            return
        dry_run, removed = options["dry_run"], 0
        batches = prune(retention, days=days, limit=options["batch_size"], dry_run=dry_run)
        with Progress(sys.stderr, retention.kind) as progress:
            for batch in batches:
                removed += batch.removed
                progress.add(batch.removed)
                if not dry_run:
                    time.sleep(options["pause_ms"] / 1000)
        verb = "would be removed" if dry_run else "removed"
        self.stdout.write(f"{retention.kind}: {removed:,} {verb}, older than {_days(days)}.")


def _chosen(options: dict[str, Any]) -> list[Retention]:
    """Raises CommandError if the options contradict each other."""
    kinds, days = options["kinds"], options["days"]
    if options["audit"] and kinds:
        raise CommandError("--audit is about the audit log alone: name no other kind with it.")
    if options["audit"] and days is None:
        raise CommandError("--audit needs --days: the audit log has no retention of its own.")
    if days is not None and days > _MOST_DAYS:
        raise CommandError(f"--days must not be over {_MOST_DAYS}.")
    if days is not None and not (kinds or options["audit"]):
        raise CommandError("--days needs a KIND to which it applies.")
    known = {r.kind: r for r in retentions() if r.automatic != options["audit"]}
    for kind in kinds:
        if kind not in known:
            raise CommandError(f"There is no kind {kind!r}: choose from {', '.join(known)}.")
    chosen = [known[kind] for kind in kinds] or list(known.values())
    for retention in chosen:
        if days is not None and days < retention.at_least:
            raise CommandError(
                f"{retention.what.capitalize()} are kept for at least {_days(retention.at_least)}."
            )
    return chosen


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"
