"""The table of the audit log."""

from django.db import models
from django.db.models.functions import Now

from pipedai.ids import new_id


class AuditEntry(models.Model):
    """Who did what to which row, when, from where (SPEC §9).

    The table is partitioned by month and append-only: the database refuses UPDATE, DELETE and
    TRUNCATE. It has no foreign keys, so that no cascade deletes its rows and they stay when the rows
    that they name are gone. Its real primary key is `(created_at, id)`, as partitioning demands.
    `audit/receivers.py` alone writes rows: one for each domain event, in the event's transaction.
    """

    # A UUIDv7, which the receiver makes just before it inserts the row.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The environment in which it happened; None for actions outside any, such as a login.
    environment_id = models.UUIDField(null=True)
    # What was done, such as `trigger.created`: one of ACTIONS in pipedai/events.py.
    action = models.CharField(max_length=32)
    # Who did it: `user`, `api_key`, `worker`, `staff` or `system` (the scheduler and commands).
    actor_type = models.CharField(max_length=8)
    # The id of that user, key or worker; None for the system.
    actor_id = models.UUIDField(null=True)
    # The kind of row to which it was done, such as `run`.
    target_type = models.CharField(max_length=32)
    # The id of that row; None where there is no single one.
    target_id = models.UUIDField(null=True)
    # What changed, under the names that API.md lists for each action. It holds no token and no secret.
    metadata = models.JSONField(default=dict)
    # The client's IP address; None where no request caused it.
    ip = models.GenericIPAddressField(null=True)
    # The request's id, as in the X-Request-Id header and in the log; None where no request caused it.
    request_id = models.CharField(max_length=128, null=True)
    # The time of the event, which the database's clock writes. Only `seed_demo --scale` sets it, to invented times.
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "audit_entry"
        verbose_name_plural = "audit log"
        managed = False
