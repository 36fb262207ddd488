"""The table of what is known about the health of triggers."""

from django.db import models
from django.db.models import Q

from pipedai.table_rules import check, has, index
from triggers.models.trigger import Trigger
from workspaces.tenant_columns import environment_key


class TriggerHealth(models.Model):
    """What is known about a trigger's health (SPEC §14), in a row of its own, so that ends of runs don't rewrite the
    trigger. `notices.health` and `notices.lateness` write it. It is locked while the trigger is judged, so that
    judgements follow each other.
    """

    # The trigger whose health the row describes. A trigger has one row at most.
    trigger = models.OneToOneField(
        Trigger,
        primary_key=True,
        on_delete=models.PROTECT,
        db_constraint=False,
        related_name="judged",
    )
    # The environment that owns the row.
    environment = environment_key()
    # The time from which outcomes and due times count: when the trigger was last enabled. NULL if it was never
    # disabled, so that all count.
    counts_from = models.DateTimeField(null=True)
    # Whether the trigger has had a final outcome since `counts_from`. Without one the trigger counts as idle.
    has_outcome = models.BooleanField(default=False)
    # How many final outcomes in a row have failed or timed out, up to `alert_after_failures`.
    failures = models.PositiveSmallIntegerField(default=0)
    # Whether the trigger is failing. An incident of the kind `trigger_failing` is open for as long as it is. A trigger
    # does not become failing while its environment is paused.
    is_failing = models.BooleanField(default=False)
    # The due time after which no success came in time; NULL if the trigger is not late. An incident of the kind
    # `trigger_late` is open for as long as it is.
    late_since = models.DateTimeField(null=True)
    # When the scheduler next checks whether the trigger is late; NULL if no check is needed. It is never later than the
    # moment at which the trigger can become late.
    check_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "trigger_health"
        constraints = (
            check(
                "trigger_health_failing_has_failures",
                Q(is_failing=False) | Q(has_outcome=True, failures__gte=1),
            ),
        )
        indexes = (index("trigger_health_due", ["check_at"], where=has("check_at")),)
