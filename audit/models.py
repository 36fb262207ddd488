"""The table of the audit log."""

from django.db import models
from django.db.models.functions import Now

from pipedai.ids import new_id


class AuditEntry(models.Model):
    """Who did what to which row, when and from where. Only `audit/receivers.py` writes, in the event's
    transaction.

    The table is partitioned by month, so its real primary key is `(created_at, id)`. The database refuses UPDATE,
    DELETE and TRUNCATE. It has no foreign keys, so that an entry outlives the rows that it names.
    """

    # The entry's id: a UUIDv7 that `audit/receivers.py` makes just before it inserts the row.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The environment in which the action happened; None for actions outside any environment, such as a login.
    environment_id = models.UUIDField(null=True)
    # What was done, such as `trigger.created`: one of ACTIONS in pipedai/events.py.
    action = models.CharField(max_length=32)
    # What kind of actor did the action: `user`, `api_key`, `worker`, `staff` or `system` (the scheduler and commands).
    actor_type = models.CharField(max_length=8)
    # The id of the user, API key, worker or staff user who did the action; None for the system.
    actor_id = models.UUIDField(null=True)
    # The kind of row to which the action was done, such as `run`.
    target_type = models.CharField(max_length=32)
    # The id of the row to which the action was done; None if the action concerns several rows or none.
    target_id = models.UUIDField(null=True)
    # The name that the row had then: of a run, that of its trigger. None for people, and for rows without a name.
    target_name = models.CharField(max_length=255, null=True)
    # What the action changed, under the names that API.md lists for each action. It holds no token and no secret.
    metadata = models.JSONField(default=dict)
    # The IP address of the client whose request caused the action; None if no request did.
    ip = models.GenericIPAddressField(null=True)
    # The id of the request that caused the action, as in the header X-Request-Id and the log; None without one.
    request_id = models.CharField(max_length=128, null=True)
    # When the action happened, by the database's clock. Only `seed_demo` writes invented times here.
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "audit_entry"
        verbose_name_plural = "audit log"
        managed = False
