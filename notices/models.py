"""The table of incidents: what went wrong, since when, and whether somebody has acknowledged it."""

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from notices.channels.addresses import AskedAddress, RefusedAddress
from notices.channels.models import Channel, Notice, NoticeAttempt
from notices.states import Kind, SubjectType
from pipedai.ids import new_id
from workspaces.models import Environment

__all__ = [
    "AskedAddress",
    "Channel",
    "Incident",
    "Notice",
    "NoticeAttempt",
    "RefusedAddress",
    "UntoldOutcome",
]


class Incident(models.Model):
    """Something that is wrong, until it is over (SPEC §14). A subject has one open incident of each kind."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
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
            models.UniqueConstraint(
                fields=["subject_id", "kind", "environment"],
                condition=Q(closed_at__isnull=True),
                name="incident_one_open",
            ),
            models.CheckConstraint(condition=Q(kind__in=Kind.values), name="incident_kind"),
            models.CheckConstraint(
                condition=Q(subject_type__in=SubjectType.values), name="incident_subject_type"
            ),
            models.CheckConstraint(
                condition=Q(closed_at__isnull=True) | Q(closed_at__gte=F("opened_at")),
                name="incident_closed_after_opening",
            ),
            models.CheckConstraint(
                condition=Q(acknowledged_by__isnull=True) | Q(acknowledged_at__isnull=False),
                name="incident_acknowledged_has_a_time",
            ),
            models.CheckConstraint(
                condition=Q(remind_at__isnull=True)
                | Q(closed_at__isnull=True, acknowledged_at__isnull=True),
                name="incident_reminded_is_open",
            ),
        )
        indexes = (
            models.Index(fields=["environment", "opened_at", "id"], name="incident_listed"),
            models.Index(
                fields=["environment", "opened_at", "id"],
                name="incident_open",
                condition=Q(closed_at__isnull=True),
            ),
            models.Index(
                fields=["environment", "opened_at", "id"],
                name="incident_closed",
                condition=Q(closed_at__isnull=False),
            ),
            models.Index(
                fields=["environment", "kind", "opened_at", "id"], name="incident_of_kind"
            ),
            models.Index(fields=["subject_id", "opened_at", "id"], name="incident_of_subject"),
            models.Index(
                fields=["remind_at"], name="incident_reminded", condition=Q(remind_at__isnull=False)
            ),
            # This index finds the open incidents of one kind for the scheduler, and the old closed ones for `prune`.
            models.Index(
                fields=["kind", "id"], name="incident_watched", condition=Q(closed_at__isnull=True)
            ),
            models.Index(
                fields=["closed_at"], name="incident_prunable", condition=Q(closed_at__isnull=False)
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject_name}"


class UntoldOutcome(models.Model):
    """A final outcome of a run of which the scheduler has not told the channels yet. The transaction that ends the run
    writes the row if a channel of the environment tells of such, and the one that queues the notices removes it.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The run that ended. It is no foreign key, because runs are pruned.
    run_id = models.UUIDField()

    class Meta:
        db_table = "untold_outcome"
        indexes = (models.Index(fields=["environment", "id"], name="untold_outcome_next"),)
