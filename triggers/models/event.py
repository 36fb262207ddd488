"""The tables of events: sources, what they sent, who listens, and what was decided (SPEC §25)."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.ids import new_id
from triggers.models.fields import JSONAsGivenField, tenant_key
from triggers.states import EventDecided, Outcome, Scheme
from workspaces.encryption.sealed_fields import SealedField
from workspaces.files.columns import FileColumns, own_key
from workspaces.models import Environment

# The column of a source that is encrypted.
SECRETS = SealedField("event_source", "secrets", "secrets_key_id")
# How many listeners a trigger has at most.
MAX_LISTENERS = 10


class EventSource(FileColumns):
    """A sender of events, and how it shows that an event is from it."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The source's name, which people chose: 1 to 200 characters. It need not be unique.
    name = models.CharField(max_length=200)
    # How the source signs what it sends; see `triggers.states.Scheme`. It never changes.
    scheme = models.CharField(max_length=8, choices=Scheme.choices)
    # The encrypted JSON list of one or two secrets, each of which may sign. Users write them, and a rotation of the
    # data key encrypts them anew. NULL once the source is deleted.
    secrets = models.BinaryField(null=True)
    # The data key that encrypts `secrets`. The database refers to it together with the environment.
    secrets_key = models.ForeignKey(
        "workspaces.DataKey",
        on_delete=models.PROTECT,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    # Where a sender of the scheme `hmac` puts its signature: an object with `header`, `prefix` and `timestampHeader`.
    # NULL for other schemes.
    hmac = models.JSONField(null=True)
    # Whether events are accepted. Users switch it.
    enabled = models.BooleanField(default=True)
    # When the source's last event came, by the database's clock and to a second or so; NULL before the first.
    last_event_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When a user last changed the source, by the database's clock.
    updated_at = models.DateTimeField(db_default=Now())
    # When a user deleted the source; NULL if nobody did. The row stays, because its events refer to it.
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "event_source"
        verbose_name = "source"
        constraints = (
            own_key("event_source", live=Q(deleted_at__isnull=True)),
            models.UniqueConstraint(
                fields=["environment", "id"], name="event_source_in_environment"
            ),
            models.CheckConstraint(
                condition=Q(scheme__in=Scheme.values), name="event_source_scheme"
            ),
            models.CheckConstraint(
                condition=Q(
                    deleted_at__isnull=True, secrets__isnull=False, secrets_key__isnull=False
                )
                | Q(deleted_at__isnull=False, secrets__isnull=True, secrets_key__isnull=True),
                name="event_source_has_secrets",
            ),
            models.CheckConstraint(
                condition=Q(scheme=Scheme.HMAC, hmac__isnull=False)
                | (Q(hmac__isnull=True) & ~Q(scheme=Scheme.HMAC)),
                name="event_source_hmac",
            ),
        )
        indexes = (
            models.Index(
                fields=["environment", "created_at", "id"],
                name="event_source_listed",
                condition=Q(deleted_at__isnull=True),
            ),
        )

    def __str__(self) -> str:
        return self.name


class Event(models.Model):
    """What a source sent, or that a run ended to which triggers listen. It never changes, but for what is counted and
    decided.
    """

    # The event's id: a UUIDv7, which the process makes that takes the event.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The source that sent the event; NULL if a run's end is the event.
    source = tenant_key("triggers.EventSource", null=True, related_name="events")
    # The run whose final end is the event; NULL if a source sent it.
    run = tenant_key("triggers.Run", null=True, related_name="+")
    # The sender's own name for the kind of event, cut to 200 characters; NULL if it named none.
    type = models.CharField(max_length=200, null=True)
    # The sender's own id of the event, cut to 255 characters; NULL if it named none. It is shown, and decides nothing.
    given_id = models.CharField(max_length=255, null=True)
    # The JSON that the source sent, as text; NUL and lone surrogates have become U+FFFD. NULL if a run's end is the
    # event.
    body = JSONAsGivenField(null=True)
    # How often the source has sent the event again.
    duplicates = models.PositiveIntegerField(default=0, db_default=0)
    # The event that an operator had decided anew by this one; NULL for any other. If that one is pruned, the database
    # sets NULL.
    replay_of = tenant_key("self", null=True, related_name="+")
    # When the event came, by the database's clock.
    received_at = models.DateTimeField(db_default=Now(), editable=False)
    # When it was decided what the event starts. That of a source is decided in the transaction that keeps it. The
    # scheduler decides that of a run; until then this is NULL.
    decided_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "event"
        constraints = (
            models.UniqueConstraint(fields=["environment", "id"], name="event_in_environment"),
            models.UniqueConstraint(
                fields=["run", "environment"],
                condition=Q(run__isnull=False),
                name="event_one_of_run",
            ),
            models.CheckConstraint(
                condition=Q(
                    source__isnull=False,
                    body__isnull=False,
                    decided_at__isnull=False,
                    run__isnull=True,
                )
                | Q(
                    source__isnull=True,
                    body__isnull=True,
                    type__isnull=True,
                    given_id__isnull=True,
                    replay_of__isnull=True,
                    duplicates=0,
                    run__isnull=False,
                ),
                name="event_of_source_or_run",
            ),
        )
        indexes = (
            models.Index(
                fields=["source", "received_at", "id"],
                name="event_listed",
                condition=Q(source__isnull=False),
            ),
            # By this index the scheduler finds the ends of runs that it has to decide, the oldest of each environment
            # first.
            models.Index(
                fields=["environment", "received_at", "id"],
                name="event_undecided",
                condition=Q(decided_at__isnull=True),
            ),
            models.Index(fields=["received_at", "id"], name="event_old"),
            # The database uses this index when it removes an event, to empty `replay_of` of the events that name it.
            models.Index(
                fields=["replay_of", "environment"],
                name="event_replay",
                condition=Q(replay_of__isnull=False),
            ),
        )


class EventKey(models.Model):
    """By which a source's event is known again. It outlives the event, so that an old delivery starts nothing.

    `triggers.events.receiving` writes the row before the event, so that only one of two equal deliveries is an event.
    """

    pk = models.CompositePrimaryKey("source_id", "key")
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    source = tenant_key("triggers.EventSource", related_name="+")
    # The SHA-256 of what identifies the event under the source's scheme.
    key = models.BinaryField(max_length=32)
    # The id of the event, which may have been pruned.
    event_id = models.UUIDField()
    # Until when the key counts, by the database's clock. Afterwards the next event with it takes the row over.
    expires_at = models.DateTimeField()

    class Meta:
        db_table = "event_key"
        indexes = (models.Index(fields=["expires_at"], name="event_key_old"),)


class Listener(models.Model):
    """An entry of a trigger's `on`: it runs upon events of a source, or upon ends of another trigger's runs."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The trigger that listens.
    trigger = tenant_key("triggers.Trigger", related_name="listeners")
    # The place of the entry in `on`, from 0.
    position = models.PositiveSmallIntegerField()
    # The source to which it listens, or else NULL.
    source = tenant_key("triggers.EventSource", null=True, related_name="listeners")
    # The trigger to whose runs it listens, or else NULL.
    upstream = tenant_key("triggers.Trigger", null=True, related_name="heard_by")
    # Which ends of the upstream trigger's runs count; NULL for a source.
    outcome = models.CharField(max_length=9, choices=Outcome.choices, null=True)
    # The types of events that count; NULL for all. It and the next three are NULL for an upstream trigger.
    types = ArrayField(models.CharField(max_length=200), null=True)
    # The clauses that must all hold, a list of `{ path, op, value }` as given; NULL for none.
    where = models.JSONField(null=True)
    # What of the body the run's payload has, an object of names and paths as given; NULL for the body itself.
    fields = models.JSONField(null=True)
    # How events that come close together share a run: `{ path, windowSeconds, keep }` as given; NULL if they don't.
    coalesce = models.JSONField(null=True)

    class Meta:
        db_table = "listener"
        constraints = (
            models.UniqueConstraint(
                fields=["trigger", "position", "environment"], name="listener_one_in_position"
            ),
            models.CheckConstraint(
                condition=Q(position__lt=MAX_LISTENERS), name="listener_position"
            ),
            models.CheckConstraint(
                condition=Q(source__isnull=False, upstream__isnull=True, outcome__isnull=True)
                | Q(
                    source__isnull=True,
                    upstream__isnull=False,
                    outcome__isnull=False,
                    outcome__in=Outcome.values,
                    types__isnull=True,
                    where__isnull=True,
                    fields__isnull=True,
                    coalesce__isnull=True,
                ),
                name="listener_to_source_or_trigger",
            ),
            models.CheckConstraint(
                condition=Q(upstream__isnull=True) | ~Q(upstream=models.F("trigger")),
                name="listener_not_to_itself",
            ),
        )
        indexes = (
            models.Index(
                fields=["source", "trigger"],
                name="listener_to_source",
                condition=Q(source__isnull=False),
            ),
            models.Index(
                fields=["upstream", "trigger"],
                name="listener_to_trigger",
                condition=Q(upstream__isnull=False),
            ),
        )


class EventDecision(models.Model):
    """What was decided about an event for one trigger that listens to it. `triggers.events.deciding` writes it."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The event. If it is pruned, the database removes the row.
    event = tenant_key("triggers.Event", related_name="decisions")
    # The source and the time of the event, copied so that an index finds the source's events with a rare decision.
    source = tenant_key("triggers.EventSource", null=True, related_name="+")
    received_at = models.DateTimeField()
    # The trigger that listens.
    trigger = tenant_key("triggers.Trigger", related_name="+")
    # See `triggers.states.EventDecided`.
    decision = models.CharField(max_length=9, choices=EventDecided.choices)
    # The error code with which a request for the run would have been refused; NULL unless the decision is `refused`.
    code = models.CharField(max_length=40, null=True)
    # The clause that did not hold, with the value that it saw; NULL unless the decision is `filtered`.
    clause = models.JSONField(null=True)
    # The run that was queued or joined; NULL for other decisions. If the run is pruned, the database sets NULL.
    run = tenant_key("triggers.Run", null=True, related_name="+")

    class Meta:
        db_table = "event_decision"
        constraints = (
            models.UniqueConstraint(
                fields=["event", "trigger", "environment"], name="event_decision_one_for_trigger"
            ),
            models.CheckConstraint(
                condition=Q(decision=EventDecided.REFUSED, code__isnull=False)
                | (Q(code__isnull=True) & ~Q(decision=EventDecided.REFUSED)),
                name="event_decision_refused_has_a_code",
            ),
            models.CheckConstraint(
                condition=Q(clause__isnull=True) | Q(decision=EventDecided.FILTERED),
                name="event_decision_clause_filtered",
            ),
            models.CheckConstraint(
                condition=Q(run__isnull=True)
                | Q(decision__in=(EventDecided.FIRED, EventDecided.COALESCED)),
                name="event_decision_has_a_run",
            ),
            models.CheckConstraint(
                condition=Q(decision__in=EventDecided.values), name="event_decision_decision"
            ),
        )
        indexes = (
            models.Index(
                fields=["source", "decision", "received_at", "event"],
                name="event_decision_of_source",
                condition=Q(source__isnull=False),
            ),
            models.Index(fields=["trigger", "received_at", "id"], name="event_decision_of_trigger"),
            # The database uses this index when it removes a run, to empty `run` of the decisions that name it.
            models.Index(
                fields=["run", "environment"],
                name="event_decision_of_run",
                condition=Q(run__isnull=False),
            ),
        )
