"""The table of triggers on admin's pages of workers and pools."""

from uuid import UUID

from pipedai.admin.panels import Table
from pipedai.admin.values import link_to, list_of, moment, text, yes
from triggers.models import Trigger

_SHOWN = 50


def triggers_panel(**owner: UUID) -> Table:
    """Returns the newest triggers that name this owner, `worker` or `pool`, with a link to the list of them all."""
    found = Trigger.objects.filter(**owner, deleted_at__isnull=True)
    return Table(
        "Its triggers",
        ("Name", "Enabled", "Schedule", "Due next"),
        [
            (
                link_to(Trigger, each.id, each.name),
                yes(each.enabled),
                text(each.schedule),
                moment(each.next_run_at),
            )
            for each in found.only("name", "enabled", "schedule", "next_run_at").order_by(
                "-created_at", "-id"
            )[:_SHOWN]
        ],
        more=list_of(Trigger, **owner),
    )
