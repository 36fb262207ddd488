"""The audit log's rows."""

from django.db import models
from django.db.models.functions import Now

from pipedai.ids import new_id


class AuditEntry(models.Model):
    """Who did what to which row, when, from where (SPEC §9).

    The table is partitioned by month and append-only: the database refuses UPDATE, DELETE and
    TRUNCATE. It has no foreign keys, so that no cascade reaches it and it outlives what it tells
    of. Its real primary key is `(created_at, id)`, as partitioning demands.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment_id = models.UUIDField(null=True)
    action = models.CharField(max_length=32)
    actor_type = models.CharField(max_length=8)
    actor_id = models.UUIDField(null=True)
    target_type = models.CharField(max_length=32)
    target_id = models.UUIDField(null=True)
    metadata = models.JSONField(default=dict)
    ip = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=128, null=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "audit_entry"
        verbose_name_plural = "audit log"
        managed = False
