"""The admin pages of incidents, channels and notices, and what is wrong now on the start page."""

from datetime import UTC, datetime, time
from typing import Any

from django.contrib.admin import register
from django.db.models import Q

from accounts.models import User
from notices.models import IS_FAILING, Channel, Incident, Notice, NoticeAttempt
from notices.states import Kind
from pipedai.admin.base import StaffModelAdmin, in_state, related
from pipedai.admin.columns import attempts, link_to
from pipedai.admin.site import Figure, count_of, model_named, show_on_start_page, site
from triggers.models import Approval, Budget, Run, Trigger
from triggers.runs.queries import failures
from workers.models import Pool, Worker
from workspaces.models import Connection

_IS_OPEN = Q(closed_at__isnull=True)


site.register(
    Channel, StaffModelAdmin, named_by="name", list_filter=(in_state(failing=IS_FAILING),), indexes={("state",): "id"},
    list_display=("name", "kind", "enabled", "host", "environment", "failing_since", "last_error", "deleted_at"),
    refers={"created_by": User},
)  # fmt: skip
site.register(
    Notice, StaffModelAdmin, panels=(attempts(NoticeAttempt, "notice"),),
    list_display=("created_at", "event", "status", "channel", "attempt_count", "next_attempt_at"),
    refers={"incident_id": Incident, "run_id": Run, "approval_id": Approval, "digest_id": Notice},
)  # fmt: skip


@register(Incident, site=site)
class IncidentAdmin(StaffModelAdmin):
    list_display = (
        "opened_at",
        "kind",
        "about",
        "environment",
        "message",
        "acknowledged_at",
        "closed_at",
    )
    list_filter = (
        in_state(open=_IS_OPEN),
        related("subject", Trigger, Worker, Pool, Budget, Connection),
    )
    indexes = {
        ("environment", "state"): "opened_at", ("subject",): "opened_at", ("state",): "id", ("state", "kind"): "id",
    }  # fmt: skip
    reads = ("subject_type", "subject_id", "subject_name")
    refers = {"run_id": Run, "acknowledged_by": User}

    def about(self, incident: Incident) -> Any:
        return link_to(
            model_named(incident.subject_type), incident.subject_id, incident.subject_name
        )


def _what_is_wrong() -> list[Figure]:
    today = datetime.combine(datetime.now(UTC), time.min, UTC)
    incidents = Incident.objects.filter(_IS_OPEN)

    def of_kind(label: str, kind: Kind) -> Figure:
        return count_of(label, incidents.filter(kind=kind), state="open", kind__exact=kind.value)

    failed = failures(Run.objects.filter(ended_at__gte=today))
    since: dict[str, Any] = {"from": today.date()}
    return [
        count_of("Open incidents", incidents, state="open"),
        of_kind("Late triggers", Kind.TRIGGER_LATE),
        count_of("Failures today (UTC)", failed, failures="all", **since),
        of_kind("Budgets reached", Kind.BUDGET_REACHED),
        count_of("Failing channels", Channel.objects.filter(IS_FAILING), state="failing"),
    ]


show_on_start_page(_what_is_wrong)
