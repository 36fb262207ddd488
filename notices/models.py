"""The table of incidents: what went wrong, since when, and whether somebody has acknowledged it."""

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from notices.channels.addresses import AskedAddress, RefusedAddress
from notices.channels.models import Channel, Notice, NoticeAttempt
from notices.states import Kind, SubjectType
from pipedai.table_rules import check, has, index, lacks, unique
from workspaces.tenant_columns import TenantRow

__all__ = [
    "AskedAddress",
    "Channel",
    "Incident",
    "Notice",
    "NoticeAttempt",
    "RefusedAddress",
    "UntoldOutcome",
]


class Incident(TenantRow):
    """Something that is wrong, until it is over (SPEC §14). A subject has one open incident of each kind."""

    # What is wrong; see `notices.states.Kind`.
    kind = models.CharField(max_length=22, choices=Kind.choices)
    # The kind of thing that the incident is about. The kind of the incident decides it.
    subject_type = models.CharField(max_length=10, choices=SubjectType.choices)
    # The id of the thing that the incident is about. It is no foreign key, because such things are in several tables.
    subject_id = models.UUIDField()
    # The name of that thing when the incident was opened.
    subject_name = models.CharField(max_length=255)
    # The run that showed the cause; NULL if no single run did. It is no foreign key, since the run may be pruned.
    run_id = models.UUIDField(null=True)
    # The cause in one sentence for people, up to 300 characters.
    message = models.CharField(max_length=300)
    opened_at = models.DateTimeField(db_default=Now(), editable=False)
    # When the incident was closed, because its cause went away or its subject is not watched any more; NULL while open.
    closed_at = models.DateTimeField(null=True)
    # When somebody first acknowledged the incident; NULL if nobody has.
    acknowledged_at = models.DateTimeField(null=True)
    # The user who acknowledged the incident; NULL if nobody has, or if an API key did.
    acknowledged_by = models.UUIDField(null=True)
    # How many notices about the opening, the reminders and the recovery were queued for channels. `notices.incidents`
    # adds to it.
    notice_count = models.PositiveIntegerField(default=0, db_default=0)
    # How many times people were reminded of the incident.
    reminder_count = models.PositiveSmallIntegerField(default=0, db_default=0)
    # When the scheduler next reminds people; NULL if it will not, because the incident is closed or acknowledged, or
    # because all reminders were sent.
    remind_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "incident"
        constraints = (
            unique(
                "incident_one_open", ["subject_id", "kind", "environment"], where=lacks("closed_at")
            ),
            check("incident_kind", Q(kind__in=Kind.values)),
            check("incident_subject_type", Q(subject_type__in=SubjectType.values)),
            check(
                "incident_closed_after_opening",
                lacks("closed_at") | Q(closed_at__gte=F("opened_at")),
            ),
            check(
                "incident_acknowledged_has_a_time",
                lacks("acknowledged_by") | has("acknowledged_at"),
            ),
            check(
                "incident_reminded_is_open",
                lacks("remind_at") | lacks("closed_at", "acknowledged_at"),
            ),
        )
        indexes = (
            index("incident_listed", ["environment", "opened_at", "id"]),
            index("incident_open", ["environment", "opened_at", "id"], where=lacks("closed_at")),
            index("incident_closed", ["environment", "opened_at", "id"], where=has("closed_at")),
            index("incident_of_kind", ["environment", "kind", "opened_at", "id"]),
            index("incident_of_subject", ["subject_id", "opened_at", "id"]),
            index("incident_reminded", ["remind_at"], where=has("remind_at")),
            # This index finds the open incidents of one kind for the scheduler, and the old closed ones for `prune`.
            index("incident_watched", ["kind", "id"], where=lacks("closed_at")),
            index("incident_prunable", ["closed_at"], where=has("closed_at")),
        )

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject_name}"


class UntoldOutcome(TenantRow):
    """A final outcome of a run of which the scheduler has not told the channels yet. The transaction that ends the run
    writes the row if a channel of the environment tells of such, and the one that queues the notices removes it.
    """

    # The run that ended. It is no foreign key, because runs are pruned.
    run_id = models.UUIDField()

    class Meta:
        db_table = "untold_outcome"
        indexes = (index("untold_outcome_next", ["environment", "id"]),)
