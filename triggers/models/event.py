"""The tables of events: sources, what they sent, who listens, and what was decided."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.table_rules import check, has, index, lacks, unique
from triggers.models.run import JSONAsGivenField
from triggers.states import EventDecided, Outcome, Refusal, Scheme
from workspaces.tenant_columns import (
    FileColumns,
    TenantRow,
    environment_key,
    in_environment,
    own_key,
    sealed_column,
    tenant_key,
)

# The column of a source that is encrypted.
SECRETS = sealed_column("event_source", "secrets", "secrets_key_id")
# How many listeners a trigger has at most.
MAX_LISTENERS = 10


class EventSource(FileColumns):
    """A sender of events, and how it shows that an event is from it."""

    # How the source signs what it sends; see `triggers.states.Scheme`. It never changes.
    scheme = models.CharField(max_length=8, choices=Scheme.choices)
    # The encrypted JSON list of one or two secrets, each of which may sign. Users write them, and a rotation of the
    # data key encrypts them anew. NULL once the source is deleted.
    secrets = models.BinaryField(null=True)
    # The data key that encrypts `secrets`. The database refers to it together with the environment.
    secrets_key = tenant_key("workspaces.DataKey", null=True)
    # Where a sender of the scheme `hmac` puts its signature: an object with `header`, `prefix` and `timestampHeader`.
    # NULL for other schemes.
    hmac = models.JSONField(null=True)
    # Whether events are accepted. Users switch it.
    enabled = models.BooleanField(default=True)
    # When the source's last event came, by the database's clock and to a second or so; NULL before the first.
    last_event_at = models.DateTimeField(null=True)
    # When a user last changed the source, by the database's clock.
    updated_at = models.DateTimeField(db_default=Now())
    # When a user deleted the source; NULL if nobody did. The row stays, because its events refer to it.
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "event_source"
        verbose_name = "source"
        constraints = (
            own_key("event_source", live=lacks("deleted_at")),
            in_environment("event_source"),
            check("event_source_scheme", Q(scheme__in=Scheme.values)),
            check(
                "event_source_has_secrets",
                has("secrets", "secrets_key", deleted_at__isnull=True)
                | lacks("secrets", "secrets_key", deleted_at__isnull=False),
            ),
            check(
                "event_source_hmac",
                has("hmac", scheme=Scheme.HMAC) | (lacks("hmac") & ~Q(scheme=Scheme.HMAC)),
            ),
        )
        indexes = (
            index(
                "event_source_listed",
                ["environment", "created_at", "id"],
                where=lacks("deleted_at"),
            ),
        )


class Event(TenantRow):
    """What a source sent, or the end of a run to which triggers listen. Only `duplicates` and `decided_at` change
    later.
    """

    # The source that sent the event; NULL if a run's end is the event.
    source = tenant_key("triggers.EventSource", null=True, related_name="events")
    # The run whose final end is the event; NULL if a source sent it.
    run = tenant_key("triggers.Run", null=True)
    # The sender's own name for the kind of event, cut to 200 characters; NULL if it named none.
    type = models.CharField(max_length=200, null=True)
    # The sender's own id of the event, cut to 255 characters; NULL if it named none. It is shown, and decides nothing.
    given_id = models.CharField(max_length=255, null=True)
    # The JSON that the source sent, as text; NUL and lone surrogates have become U+FFFD. NULL if a run's end is the
    # event.
    body = JSONAsGivenField(null=True)
    # How often the source has sent the event again.
    duplicates = models.PositiveIntegerField(default=0, db_default=0)
    # The event that this one has decided anew, at the request of a user; NULL if this is no replay. If that event is
    # pruned, the database sets NULL.
    replay_of = tenant_key("self", null=True)
    # When the event came, by the database's clock.
    received_at = models.DateTimeField(db_default=Now(), editable=False)
    # The user or the API key that replays the event; NULL if this is no replay.
    requested_by = models.UUIDField(null=True)
    # When it was decided what the event starts. An event of a source is decided in the transaction that stores it, if
    # its clauses don't take too long. The scheduler decides the others, and those of runs; until then this is NULL.
    decided_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "event"
        constraints = (
            in_environment("event"),
            unique("event_one_of_run", ["run", "environment"], where=has("run")),
            check(
                "event_of_source_or_run",
                has("source", "body", run__isnull=True)
                | lacks(
                    "source",
                    "body",
                    "type",
                    "given_id",
                    "replay_of",
                    "requested_by",
                    duplicates=0,
                    run__isnull=False,
                ),
            ),
        )
        indexes = (
            index("event_listed", ["source", "received_at", "id"], where=has("source")),
            # By this index the types that a source has sent are looked up one by one, without reading all of its
            # events.
            index("event_types", ["source", "type", "-received_at"], where=has("source", "type")),
            index("event_listed_of_all", ["environment", "received_at", "id"], where=has("source")),
            # By this index the scheduler finds the events that it has to decide, the oldest of each environment first.
            index(
                "event_undecided", ["environment", "received_at", "id"], where=lacks("decided_at")
            ),
            # By this index old events are removed. Its condition keeps lists from using it, because they would read the
            # events of all other environments.
            index("event_prunable", ["received_at", "id"], where=has("decided_at")),
            # The database uses this index when it removes an event, to empty `replay_of` of the events that name it.
            index("event_replay", ["replay_of", "environment"], where=has("replay_of")),
        )


class EventKey(models.Model):
    """The key by which a repeated event is recognised. It outlives the event, so that an old delivery starts nothing.

    `triggers.events.receiving` writes the row before the event, so that only one of two equal deliveries is an event.
    """

    pk = models.CompositePrimaryKey("source_id", "key")
    environment = environment_key()
    source = tenant_key("triggers.EventSource")
    # The SHA-256 of what identifies the event under the source's scheme.
    key = models.BinaryField(max_length=32)
    # The id of the event, which may have been pruned.
    event_id = models.UUIDField()
    # Until when the key counts, by the database's clock. Afterwards the next event with this key takes the row over.
    expires_at = models.DateTimeField()

    class Meta:
        db_table = "event_key"
        indexes = (index("event_key_old", ["expires_at"]),)


class RefusedRequest(models.Model):
    """How many requests a source refused for one reason in one hour. `triggers.events.refusals` counts them."""

    pk = models.CompositePrimaryKey("source_id", "reason", "hour")
    environment = environment_key()
    source = tenant_key("triggers.EventSource")
    # See `triggers.states.Refusal`.
    reason = models.CharField(max_length=13, choices=Refusal.choices)
    # When the hour began, in UTC and by the database's clock.
    hour = models.DateTimeField()
    count = models.PositiveBigIntegerField()
    # When the last of these requests came, by the database's clock.
    last_at = models.DateTimeField()

    class Meta:
        db_table = "refused_request"
        constraints = (check("refused_request_reason", Q(reason__in=Refusal.values)),)
        indexes = (index("refused_request_old", ["hour"]),)


class Listener(TenantRow):
    """An entry of a trigger's `on`, by which events of a source, or ends of another trigger's runs, start it."""

    # The trigger that listens.
    trigger = tenant_key("triggers.Trigger", related_name="listeners")
    # The place of the entry in `on`, from 0.
    position = models.PositiveSmallIntegerField()
    # The source to which the trigger listens, or NULL if it listens to a trigger.
    source = tenant_key("triggers.EventSource", null=True, related_name="listeners")
    # The trigger to whose runs this one listens, or NULL if it listens to a source.
    upstream = tenant_key("triggers.Trigger", null=True, related_name="heard_by")
    # Which ends of the upstream trigger's runs count; NULL for a source.
    outcome = models.CharField(max_length=9, choices=Outcome.choices, null=True)
    # The types of events that count; NULL for all. This and the next three columns are NULL for an upstream trigger.
    types = ArrayField(models.CharField(max_length=200), null=True)
    # The clauses that must all hold, a list of `{ path, op, value }` as given; NULL for none.
    where = models.JSONField(null=True)
    # The values of the body for the run's payload: an object of names and paths, as given; NULL for the whole body.
    fields = models.JSONField(null=True)
    # How events that come close together share a run: `{ path, windowSeconds, keep }` as given; NULL if they don't.
    coalesce = models.JSONField(null=True)

    class Meta:
        db_table = "listener"
        constraints = (
            unique("listener_one_in_position", ["trigger", "position", "environment"]),
            check("listener_position", Q(position__lt=MAX_LISTENERS)),
            check(
                "listener_to_source_or_trigger",
                lacks("upstream", "outcome", source__isnull=False)
                | lacks(
                    "source",
                    "types",
                    "where",
                    "fields",
                    "coalesce",
                    upstream__isnull=False,
                    outcome__isnull=False,
                    outcome__in=Outcome.values,
                ),
            ),
            check("listener_not_to_itself", lacks("upstream") | ~Q(upstream=models.F("trigger"))),
        )
        indexes = (
            index("listener_to_source", ["source", "trigger"], where=has("source")),
            index("listener_to_trigger", ["upstream", "trigger"], where=has("upstream")),
        )


class EventDecision(TenantRow):
    """What was decided about an event for one trigger that listens to it. `triggers.events.deciding` writes it."""

    # The event. If it is pruned, the database removes the row.
    event = tenant_key("triggers.Event", related_name="decisions")
    # The source and the time of the event, copied so that indexes find the events with a rare decision: those of one
    # source, and those of all sources of an environment.
    source = tenant_key("triggers.EventSource", null=True)
    received_at = models.DateTimeField()
    # The trigger that listens.
    trigger = tenant_key("triggers.Trigger")
    # See `triggers.states.EventDecided`.
    decision = models.CharField(max_length=9, choices=EventDecided.choices)
    # The error code with which a request for the run would have been refused; NULL unless the decision is `refused`.
    code = models.CharField(max_length=40, null=True)
    # The clause that did not hold, with the value that it saw; NULL unless the decision is `filtered`.
    clause = models.JSONField(null=True)
    # The run that was queued or joined; NULL for other decisions. If the run is pruned, the database sets NULL.
    run = tenant_key("triggers.Run", null=True)

    class Meta:
        db_table = "event_decision"
        constraints = (
            unique("event_decision_one_for_trigger", ["event", "trigger", "environment"]),
            check(
                "event_decision_refused_has_a_code",
                has("code", decision=EventDecided.REFUSED)
                | (lacks("code") & ~Q(decision=EventDecided.REFUSED)),
            ),
            check(
                "event_decision_clause_filtered",
                lacks("clause") | Q(decision=EventDecided.FILTERED),
            ),
            check(
                "event_decision_has_a_run",
                lacks("run") | Q(decision__in=(EventDecided.FIRED, EventDecided.COALESCED)),
            ),
            check("event_decision_decision", Q(decision__in=EventDecided.values)),
        )
        indexes = (
            index(
                "event_decision_of_source",
                ["source", "decision", "received_at", "event"],
                where=has("source"),
            ),
            index(
                "event_decision_of_all_sources",
                ["environment", "decision", "received_at", "event"],
                where=has("source"),
            ),
            index("event_decision_of_trigger", ["trigger", "received_at", "id"]),
            # The database uses this index when it removes a run, to empty `run` of the decisions that name it.
            index("event_decision_of_run", ["run", "environment"], where=has("run")),
        )
